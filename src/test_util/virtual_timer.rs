//! A clock that stands still until every task is asleep.

mod clock;
mod task;

pub use task::VirtualTask;

use crate::timer::{FOREVER, Instant, Timer};
use clock::{Clock, Key};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// A timer for tests, in which an hour takes no time.
///
/// A test moves the clock with [`advance`](Self::advance), or the clock moves itself to the
/// next deadline when every task is asleep. Clones share the clock. It
/// works on every executor and on none.
///
/// ```
/// use crabllm_retry::{Timer, test_util::VirtualTimer};
/// use std::time::Duration;
///
/// let timer = VirtualTimer::new();
/// futures::executor::block_on(timer.sleep(Duration::from_secs(3600)));
/// assert_eq!(timer.elapsed(), Duration::from_secs(3600));
/// ```
///
/// # When is every task asleep?
///
/// Executors do not say, so the clock finds out in one of two ways:
///
/// * Tasks wrapped in [`task`](Self::task) are watched: each is awake from its
///   creation or its wake until it has been polled and is pending. While there is
///   such a task, the clock moves exactly when all of them are asleep, on any number
///   of threads. Tests with several threads need this.
/// * Without such a task, every sleep that is polled asks to be polled again, which
///   lets the executor run its other tasks. When a sleep has been polled a hundred
///   times in a row, and no sleep was made, dropped or finished meanwhile, it moves
///   the clock. This is enough for tests on one thread, unless they poll by hand and
///   count polls or wakes: use [`manual`](Self::manual) for those.
///
/// Either way the clock does not see sockets or the work of other threads: a task that
/// waits for them counts as asleep.
#[derive(Clone)]
pub struct VirtualTimer {
    clock: Arc<Clock>,
}

impl VirtualTimer {
    /// A clock that moves by itself when every task is asleep, and by
    /// [`advance`](Self::advance).
    pub fn new() -> Self {
        Self::with_clock(Clock::new(true))
    }

    /// A clock that moves only by [`advance`](Self::advance).
    pub fn manual() -> Self {
        Self::with_clock(Clock::new(false))
    }

    /// Moves the clock ahead by `duration` and wakes all sleeps that are over, in the
    /// order of their deadlines.
    ///
    /// It moves in one step: a sleep that starts after an earlier one has ended starts at
    /// the new time.
    pub fn advance(&self, duration: Duration) {
        let state = self.clock.lock();
        let target = state.now.saturating_add(duration);
        self.clock.move_to(state, target);
        self.clock.settle();
    }

    /// The time since the clock was created.
    pub fn elapsed(&self) -> Duration {
        self.clock.lock().now
    }

    /// The number of sleeps that are neither over nor dropped.
    pub fn sleeping(&self) -> usize {
        self.clock.lock().sleepers.len()
    }

    /// Watches a task, so that the clock knows when it is asleep.
    ///
    /// The task counts as awake from this call on. To start several tasks at the same
    /// instant, wrap all of them before the first one is spawned.
    ///
    /// ```
    /// use crabllm_retry::{Timer, test_util::VirtualTimer};
    /// use std::time::Duration;
    ///
    /// let timer = VirtualTimer::new();
    /// let tasks = [1, 2].map(|seconds| timer.task(timer.sleep(Duration::from_secs(seconds))));
    /// let threads = tasks.map(|task| {
    ///     std::thread::spawn(move || futures::executor::block_on(task))
    /// });
    /// threads.map(|thread| thread.join().unwrap());
    /// assert_eq!(timer.elapsed(), Duration::from_secs(2));
    /// ```
    pub fn task<F: Future>(&self, future: F) -> VirtualTask<F> {
        VirtualTask::new(&self.clock, future)
    }

    fn with_clock(clock: Clock) -> Self {
        let clock = Arc::new(clock);
        Self { clock }
    }
}

impl Default for VirtualTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VirtualTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTimer")
            .field("elapsed", &self.elapsed())
            .field("sleeping", &self.sleeping())
            .finish()
    }
}

impl Timer for VirtualTimer {
    type Sleep = VirtualSleep;

    fn sleep(&self, duration: Duration) -> VirtualSleep {
        VirtualSleep {
            key: self.clock.add_sleep(duration),
            clock: self.clock.clone(),
            seen: None,
            quiet_polls: 0,
        }
    }

    /// The clock's time, capped at a hundred years, because an [`Instant`] may overflow.
    fn now(&self) -> Instant {
        let epoch = self.clock.epoch;
        let elapsed = self.elapsed().min(FOREVER);
        epoch.checked_add(elapsed).unwrap_or(epoch)
    }
}

/// A sleep of [`VirtualTimer`].
#[must_use = "futures do nothing unless polled"]
pub struct VirtualSleep {
    clock: Arc<Clock>,
    key: Key,

    /// The clock's activity at the last poll.
    seen: Option<u64>,

    /// The number of polls in a row without activity.
    quiet_polls: u32,
}

impl VirtualSleep {
    /// Whether enough polls in a row saw no activity to assume that every task is asleep.
    fn all_is_quiet(&mut self, activity: u64) -> bool {
        const ENOUGH: u32 = 100;
        if self.seen.replace(activity) == Some(activity) {
            self.quiet_polls += 1;
        } else {
            self.quiet_polls = 0;
        }
        self.quiet_polls >= ENOUGH
    }
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let clock = this.clock.clone();
        let waker = cx.waker().clone();
        let mut state = clock.lock();
        if state.now >= this.key.0 {
            clock.remove_sleep(state, this.key);
            return Poll::Ready(());
        }
        let stale = state.sleepers.insert(this.key, Some(waker));
        if clock.is_automatic && state.tasks.is_empty() {
            if this.all_is_quiet(state.activity) {
                clock.move_to_next(state);
            } else {
                drop(state);
            }
            // To continue counting, or to check whether the move was far enough.
            cx.waker().wake_by_ref();
        } else {
            drop(state);
            clock.settle();
        }
        drop(stale);
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        self.clock.remove_sleep(self.clock.lock(), self.key);
    }
}

impl fmt::Debug for VirtualSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualSleep")
            .field("deadline", &self.key.0)
            .finish_non_exhaustive()
    }
}
