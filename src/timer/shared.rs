//! Many waits behind one sleep.
//!
//! A pending call needs a timeout but almost never uses it, because the answer comes
//! first. A fresh sleep of a timer crate for each call costs more than the
//! rest of the call: an allocation, and a wake of the thread or reactor that keeps
//! the timers. One sleep for the earliest of many deadlines serves them all. The calls
//! of a wrapper have few distinct timeouts, and deadlines of one length expire in the
//! order in which they were set, so keeping them in order is cheap.
//!
//! # How it works
//!
//! * A [`SharedWait`] adds its deadline to the [`List`], with the waker of its task,
//!   when it is started. A poll checks whether the deadline has expired, or has passed
//!   by the timer's clock, and updates the waker. Dropping the wait removes the
//!   deadline.
//! * The *armed* deadline is the one that the shared sleep is for. Adding a deadline
//!   that is earlier, or while nothing is armed, calls [`SharedTimer::drive`].
//! * The sleep is polled with a waker of its own, the alarm, which calls `drive`
//!   again on whichever thread the timer wakes it.
//! * `drive` removes all deadlines that are due, wakes their tasks, and makes the
//!   next sleep for the earliest remaining one.
//!
//! Removing a deadline does not change the sleep. When that ends, `drive` finds nothing
//! due and makes a sleep for the next deadline: one sleep per timeout, not one per call.
//! If the list is empty by then, nothing is armed. So a sleep may outlast the last call
//! by up to a timeout; it keeps nothing alive and wakes no task.
//!
//! # Why it is correct
//!
//! 1. *No deadline is forgotten.* While no thread is driving, the armed deadline is
//!    not later than the earliest in the list: adding an earlier one calls `drive`,
//!    which ends only after it has armed the earliest one, under the list's lock. If
//!    the timer panics, nothing is armed, and adding the next deadline drives for all.
//! 2. *No wake is lost.* Every call of `drive` is counted first. The driving thread
//!    ends only by resetting the count from the value it had when it last looked, so
//!    it looks again after every call.
//! 3. *No deadline expires early.* It is compared with the timer's clock, or with
//!    the armed deadline when the sleep for that has ended.
//! 4. *No user code runs under the list's lock.* Wakers are cloned, woken and
//!    dropped outside of it, so they may make, poll and drop calls. Only the driving
//!    thread locks the sleep: the next driver waits for it at most while the last one
//!    returns. A waker that panics affects no other call, and nothing unwinds into the
//!    timer crate, whose thread would end.
//! 5. *Nothing is kept alive.* The alarm holds the timer weakly: the sleep is dropped
//!    with the last wrapper or stream.

mod list;

use super::{Instant, Timer};
use list::{Key, List, State};
use std::{
    borrow::Borrow,
    iter,
    marker::PhantomData,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
};
use sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Replaced by loom's under the model checker.
pub mod sync {
    #[cfg(not(all(test, crabllm_retry_model)))]
    pub use std::sync::{Mutex, MutexGuard, atomic::*};

    #[cfg(all(test, crabllm_retry_model))]
    pub use loom::sync::{Mutex, MutexGuard, atomic::*};
}

/// The timer of a wrapper, with the deadlines of its calls and open streams.
pub struct SharedTimer<T> {
    timer: T,
    waiting: Mutex<Waiting>,

    /// The sleep for the armed deadline.
    sleep: Mutex<Option<SharedSleep>>,

    /// Calls of `drive` since the current driver started; 0 while idle.
    drives: AtomicUsize,

    /// The waker of the sleep.
    alarm: Waker,
}

type SharedSleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks woken per lock of the list: the woken tasks need the lock too.
const BATCH: usize = 32;

struct Waiting {
    list: List,

    /// The deadline that the sleep is for.
    armed: Option<Instant>,
}

impl<T: Timer> SharedTimer<T> {
    pub fn new(timer: T) -> Arc<Self> {
        Arc::new_cyclic(|shared: &Weak<Self>| Self {
            timer,
            waiting: Mutex::new(Waiting {
                list: List::new(),
                armed: None,
            }),
            sleep: Mutex::new(None),
            drives: AtomicUsize::new(0),
            alarm: Waker::from(Arc::new(Alarm(shared.clone()))),
        })
    }

    pub fn timer(&self) -> &T {
        &self.timer
    }

    /// Adds a deadline and returns whether it is earlier than the armed one. `None` if
    /// the list is full.
    #[inline]
    fn add(&self, deadline: Instant, waker: Waker) -> Option<(Key, bool)> {
        let mut waiting = self.lock();
        let key = waiting.list.add(deadline, waker)?;
        let earlier = waiting.armed.is_none_or(|armed| deadline < armed);
        Some((key, earlier))
    }

    /// Checks whether a deadline has expired; if not, registers `waker`.
    #[inline]
    fn poll(&self, key: &Key, waker: &Waker) -> Poll<()> {
        let state = self.lock().list.state(key, waker);
        let deadline = match state {
            State::Expired => return Poll::Ready(()),
            State::Waiting(deadline) => deadline,
            State::WaitingWithAnotherWaker(deadline) => {
                let waker = waker.clone();
                let replaced = self.lock().list.replace_waker(key, waker);
                // It may have expired in between and woken the old waker.
                match replaced {
                    Ok(_old) => deadline,
                    Err(_unused) => return Poll::Ready(()),
                }
            }
        };
        // The thread that should have woken this task may be late.
        match self.timer.now() < deadline {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    #[inline]
    fn remove(&self, key: &Key) {
        let waker = self.lock().list.remove(key);
        drop(waker);
    }

    /// Wakes expired waits and arms the earliest remaining deadline, unless another
    /// thread is driving, which then looks again.
    #[cold]
    fn drive(&self) {
        let mut drives = self.drives.fetch_add(1, Ordering::AcqRel) + 1;
        if drives > 1 {
            return;
        }
        let mut driver = Driver {
            shared: self,
            sleep: self.sleep.lock().unwrap_or_else(PoisonError::into_inner),
            done: false,
        };
        loop {
            while let Some(deadline) = self.wake_expired(&mut driver.sleep) {
                self.arm(&mut driver.sleep, deadline);
            }
            // Done, unless `drive` was called meanwhile.
            match self
                .drives
                .compare_exchange(drives, 0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    driver.done = true;
                    return;
                }
                Err(more) => drives = more,
            }
        }
    }

    /// Wakes expired waits. Returns the earliest remaining deadline if the sleep is not
    /// armed for it yet.
    fn wake_expired(&self, sleep: &mut Option<SharedSleep>) -> Option<Instant> {
        let mut cx = Context::from_waker(&self.alarm);
        let over = sleep
            .as_mut()
            .is_some_and(|sleep| sleep.as_mut().poll(&mut cx).is_ready());
        if over {
            *sleep = None;
        }
        let mut now = self.timer.now();
        let mut due = Vec::new();
        loop {
            let mut waiting = self.lock();
            if over && let Some(armed) = waiting.armed.take() {
                now = now.max(armed);
            }
            due.extend(iter::from_fn(|| waiting.list.expire(now)).take(BATCH));
            if due.is_empty() {
                let earliest = waiting.list.earliest()?;
                let earlier = waiting.armed.is_none_or(|armed| earliest < armed);
                return earlier.then_some(earliest);
            }
            drop(waiting);
            for waker in due.drain(..) {
                contain_panics(|| waker.wake());
            }
        }
    }

    /// Makes the sleep for a deadline, unless it has already passed.
    fn arm(&self, sleep: &mut Option<SharedSleep>, deadline: Instant) {
        let duration = deadline.saturating_duration_since(self.timer.now());
        if duration.is_zero() {
            return;
        }
        let next = Box::pin(self.timer.sleep(duration));
        let old = sleep.replace(next);
        self.lock().armed = Some(deadline);
        drop(old);
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resets the driver if the timer panics.
struct Driver<'a, T: Timer> {
    shared: &'a SharedTimer<T>,
    sleep: MutexGuard<'a, Option<SharedSleep>>,
    done: bool,
}

impl<T: Timer> Drop for Driver<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            *self.sleep = None;
            self.shared.lock().armed = None;
            self.shared.drives.store(0, Ordering::Release);
        }
    }
}

/// Drives the timer when its sleep is over.
struct Alarm<T>(Weak<SharedTimer<T>>);

impl<T: Timer> Wake for Alarm<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        contain_panics(|| {
            if let Some(shared) = self.0.upgrade() {
                shared.drive();
            }
        });
    }
}

/// Runs foreign code and contains its panics, including one from dropping a panic's
/// payload.
pub fn contain_panics(f: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else {
        return;
    };
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// A wait for a deadline in the list. `S` is a reference for an attempt or a delay, and
/// an `Arc` for an open stream.
pub struct SharedWait<T: Timer, S: Borrow<SharedTimer<T>> = Arc<SharedTimer<T>>> {
    shared: S,
    key: Key,
    timer: PhantomData<fn() -> T>,
}

impl<T: Timer, S: Borrow<SharedTimer<T>>> SharedWait<T, S> {
    /// Adds a deadline for the task of `waker`, and arms it if it is the earliest.
    /// `None` if the list holds four billion already.
    #[inline]
    pub fn start(shared: S, deadline: Instant, waker: &Waker) -> Option<Self> {
        let (key, earlier) = shared.borrow().add(deadline, waker.clone())?;
        let wait = Self {
            shared,
            key,
            timer: PhantomData,
        };
        if earlier {
            wait.shared.borrow().drive();
        }
        Some(wait)
    }
}

impl<T: Timer, S: Borrow<SharedTimer<T>> + Unpin> Future for SharedWait<T, S> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.borrow().poll(&self.key, cx.waker())
    }
}

impl<T: Timer, S: Borrow<SharedTimer<T>>> Drop for SharedWait<T, S> {
    #[inline]
    fn drop(&mut self) {
        self.shared.borrow().remove(&self.key);
    }
}

/// A timer of any type, with its list.
pub trait AnyTimer: Send + Sync {
    fn now(&self) -> Instant;

    /// Wakes `waker` at `time`, unless the entry is dropped before. `None` if the list is
    /// full.
    fn wake_at(self: Arc<Self>, time: Instant, waker: &Waker) -> Option<AnyEntry>;
}

/// An entry in the list of a timer, which it keeps alive.
pub type AnyEntry = Box<dyn Send>;

impl<T: Timer> AnyTimer for SharedTimer<T> {
    fn now(&self) -> Instant {
        self.timer.now()
    }

    fn wake_at(self: Arc<Self>, time: Instant, waker: &Waker) -> Option<AnyEntry> {
        Some(Box::new(SharedWait::start(self, time, waker)?))
    }
}

#[cfg(all(test, crabllm_retry_model))]
pub mod model;
#[cfg(all(test, not(crabllm_retry_model), feature = "test-util"))]
mod tests;
