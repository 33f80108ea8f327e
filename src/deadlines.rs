//! Many deadlines behind one sleep.
//!
//! A call that waits needs a timer, and nearly always does not need it after
//! all: the answer comes first. Making one of the timer crate's for each call
//! costs more than the rest of the call: an allocation, and a wake of the thread
//! or reactor that keeps the timers. But a sleep for the first deadline of many
//! serves them all. And since the calls of a wrapper have few different timeouts,
//! the deadlines of each length pass in the order in which they were set, so that
//! keeping them in order costs next to nothing. Only where there are many lengths,
//! such as those of attempts that are cut to the deadlines of their calls, has one
//! to find its place.
//!
//! # How it goes
//!
//! * A [`Deadline`] enters the [`List`], with the waker of the task that waits for
//!   it, when it is first polled. Later polls see whether it has expired or passed
//!   by the timer's clock, and bring the waker up to date. Dropping it takes it out.
//! * The *armed* deadline is the one that the one sleep is for. A deadline that
//!   comes before it, or while nothing is armed, calls [`Deadlines::drive`].
//! * The sleep is polled with a waker of its own, the alarm, which calls `drive`
//!   again, on whichever thread the timer wakes it.
//! * `drive` takes everything that is due out of the list and wakes its tasks,
//!   and makes the next sleep for whatever is first then.
//!
//! A deadline that is taken out before its time leaves the sleep as it is. It
//! ends early for those that are left, `drive` finds nothing due, and makes the
//! next one: one sleep a timeout, not one a call. When the list is empty at that
//! time, nothing is armed any more. So a sleep may outlast the last call by up to
//! a timeout, for which it keeps nothing alive and wakes nobody.
//!
//! # Why it is right
//!
//! 1. *No deadline is forgotten.* Whenever no thread is driving, the armed
//!    deadline is not later than the first one in the list: whoever adds an
//!    earlier one calls `drive`, and `drive` does not end before it has armed the
//!    first one, under the list's lock. If the timer panics, nothing is armed,
//!    and the next deadline that is added drives for all.
//! 2. *No wake is lost.* Whoever calls `drive` is counted first. The thread that
//!    drives ends only by setting that count to zero from where it was when it
//!    last looked, so it looks again after every call.
//! 3. *No deadline expires early.* It is compared with the timer's clock, or with
//!    the armed deadline when the sleep for that has ended.
//! 4. *No user code runs under the list's lock.* Wakers are cloned, woken and
//!    dropped outside of it, so they may make, poll and drop calls. The lock on
//!    the sleep is that of the one thread that drives: the next one waits for it
//!    while the last one returns, at most. A waker that panics affects no other
//!    call, and nothing unwinds into the timer crate, whose threads would end.
//! 5. *Nothing is kept alive.* The alarm knows the deadlines weakly: when the
//!    last wrapper and stream are gone, so is the sleep.

mod list;

use crate::{Instant, Timer};
use list::{Found, Key, List};
use std::{
    borrow::Borrow,
    marker::PhantomData,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
};
use sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// What the model checker replaces by its own.
mod sync {
    #[cfg(not(all(test, crabllm_retry_model)))]
    pub(super) use std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    };

    #[cfg(all(test, crabllm_retry_model))]
    pub(super) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    };
}

/// The deadlines of the calls and the open streams of one wrapper.
pub(crate) struct Deadlines<T> {
    timer: T,
    shared: Mutex<Shared>,

    /// The sleep for the armed deadline.
    sleep: Mutex<Option<SharedSleep>>,

    /// How often `drive` was called since a thread began to; zero: by none.
    calls: AtomicUsize,

    /// The waker of the sleep.
    alarm: Waker,
}

type SharedSleep = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Shared {
    list: List,

    /// The deadline that the sleep is for.
    armed: Option<Instant>,
}

impl<T: Timer> Deadlines<T> {
    pub(crate) fn new(timer: T) -> Arc<Self> {
        Arc::new_cyclic(|deadlines: &Weak<Self>| Self {
            timer,
            shared: Mutex::new(Shared {
                list: List::new(),
                armed: None,
            }),
            sleep: Mutex::new(None),
            calls: AtomicUsize::new(0),
            alarm: Waker::from(Arc::new(Alarm(deadlines.clone()))),
        })
    }

    pub(crate) fn timer(&self) -> &T {
        &self.timer
    }

    /// Adds a deadline, and arms it if it is the first. Its key is stored before
    /// the timer is asked for anything, which may panic.
    #[inline]
    fn insert(&self, key: &mut Option<Key>, deadline: Instant, waker: Waker) {
        let mut shared = self.lock();
        *key = shared.list.insert(deadline, waker);
        let earlier = key.is_some() && shared.armed.is_none_or(|armed| deadline < armed);
        drop(shared);
        if earlier {
            self.drive();
        }
    }

    /// Whether a deadline has expired; if not, `waker` is whom to wake.
    fn find(&self, key: &Key, waker: &Waker) -> Poll<()> {
        let found = self.lock().list.find(key, waker);
        match found {
            Found::Expired => Poll::Ready(()),
            Found::Waiting => Poll::Pending,
            Found::WaitingForAnother => {
                let waker = waker.clone();
                let replaced = self.lock().list.replace(key, waker);
                // It may have expired in between, and woken the other one.
                match replaced {
                    Ok(_stale) => Poll::Pending,
                    Err(_unused) => Poll::Ready(()),
                }
            }
        }
    }

    #[inline]
    fn cancel(&self, key: &Key) {
        let stale = self.lock().list.remove(key);
        drop(stale);
    }

    /// Wakes whom it is time for, and sees to it that the sleep is for the
    /// first of the others; or leaves that to the thread that is about it.
    #[cold]
    fn drive(&self) {
        let mut calls = self.calls.fetch_add(1, Ordering::AcqRel) + 1;
        if calls > 1 {
            return;
        }
        let mut driving = Driving {
            deadlines: self,
            sleep: self.sleep.lock().unwrap_or_else(PoisonError::into_inner),
            done: false,
        };
        loop {
            while let Some(deadline) = self.expire(&mut driving.sleep) {
                self.arm(&mut driving.sleep, deadline);
            }
            // Done, unless somebody has called meanwhile.
            match self
                .calls
                .compare_exchange(calls, 0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    driving.done = true;
                    return;
                }
                Err(more) => calls = more,
            }
        }
    }

    /// Wakes whom it is time for, and returns the first of the other deadlines
    /// if the sleep is not for that one yet.
    fn expire(&self, sleep: &mut Option<SharedSleep>) -> Option<Instant> {
        let mut cx = Context::from_waker(&self.alarm);
        let over = sleep
            .as_mut()
            .is_some_and(|sleep| sleep.as_mut().poll(&mut cx).is_ready());
        if over {
            *sleep = None;
        }
        let mut now = self.timer.now();
        loop {
            let mut shared = self.lock();
            if over && let Some(armed) = shared.armed.take() {
                now = now.max(armed);
            }
            match shared.list.expire(now) {
                Some(waker) => {
                    drop(shared);
                    contain_panics(|| waker.wake());
                }
                None => {
                    let first = shared.list.first()?;
                    let earlier = shared.armed.is_none_or(|armed| first < armed);
                    return earlier.then_some(first);
                }
            }
        }
    }

    /// Makes the sleep for a deadline, unless that has passed by now.
    fn arm(&self, sleep: &mut Option<SharedSleep>, deadline: Instant) {
        let duration = deadline.saturating_duration_since(self.timer.now());
        if duration.is_zero() {
            return;
        }
        let next = Box::pin(self.timer.sleep(duration));
        let stale = sleep.replace(next);
        self.lock().armed = Some(deadline);
        drop(stale);
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins anew after a panic of the timer, with a sleep that was not to blame.
struct Driving<'a, T: Timer> {
    deadlines: &'a Deadlines<T>,
    sleep: MutexGuard<'a, Option<SharedSleep>>,
    done: bool,
}

impl<T: Timer> Drop for Driving<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            *self.sleep = None;
            self.deadlines.lock().armed = None;
            self.deadlines.calls.store(0, Ordering::Release);
        }
    }
}

/// Drives the deadlines when the sleep is over.
struct Alarm<T>(Weak<Deadlines<T>>);

impl<T: Timer> Wake for Alarm<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        contain_panics(|| {
            if let Some(deadlines) = self.0.upgrade() {
                deadlines.drive();
            }
        });
    }
}

/// Runs code of others that must not unwind into whoever calls: neither its panic
/// nor one of dropping that panic's payload gets out.
fn contain_panics(f: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else {
        return;
    };
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// A moment that is waited for. It joins the others when it is first polled. An
/// attempt borrows the deadlines, an open stream shares them: that is `D`.
pub(crate) struct Deadline<T: Timer, D: Borrow<Deadlines<T>> = Arc<Deadlines<T>>> {
    deadlines: D,
    at: Instant,

    /// `None` before the first poll.
    key: Option<Key>,

    timer: PhantomData<fn() -> T>,
}

impl<T: Timer, D: Borrow<Deadlines<T>>> Deadline<T, D> {
    pub(crate) fn new(deadlines: D, at: Instant) -> Self {
        Self {
            deadlines,
            at,
            key: None,
            timer: PhantomData,
        }
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>> + Unpin> Future for Deadline<T, D> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            deadlines, at, key, ..
        } = self.get_mut();
        let deadlines: &Deadlines<T> = (*deadlines).borrow();
        let Some(key) = key else {
            deadlines.insert(key, *at, cx.waker().clone());
            return Poll::Pending;
        };
        match deadlines.find(key, cx.waker()) {
            // The thread that should have woken this task may be held up.
            Poll::Pending if deadlines.timer.now() < *at => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>>> Drop for Deadline<T, D> {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.deadlines.borrow().cancel(key);
        }
    }
}

#[cfg(all(test, crabllm_retry_model))]
mod model;
#[cfg(all(
    test,
    not(crabllm_retry_model),
    feature = "futures-timer",
    feature = "test-util"
))]
mod tests;
