//! A clock that stands still until nobody has anything else to do.

use super::{Instant, Timer};
use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// A timer for tests, in which an hour takes no time.
///
/// Its clock moves in two ways: a test moves it by hand with
/// [`advance`](Self::advance), or it moves itself to the next deadline when
/// every task is asleep. Clones share the clock. It works on every executor
/// and on none.
///
/// ```
/// use crabllm_retry::{Timer, VirtualTimer};
/// use std::time::Duration;
///
/// let timer = VirtualTimer::new();
/// futures::executor::block_on(timer.sleep(Duration::from_secs(3600)));
/// assert_eq!(timer.elapsed(), Duration::from_secs(3600));
/// ```
///
/// # When is every task asleep?
///
/// No executor tells. So the clock finds out by itself, in one of two ways:
///
/// * Tasks that are wrapped in [`task`](Self::task) are watched: each is awake
///   from its making or its waking until it has been polled and waits. As long
///   as there is one such task, the clock moves exactly when all of them are
///   asleep, on however many threads they run. Tests of more than one thread
///   need this.
/// * Without any such task, the sleep that is due next lets the executor run
///   its other tasks a hundred times over. If nobody has made, dropped or
///   finished a sleep meanwhile, it moves the clock. On one thread this is as
///   good, and needs no preparation.
///
/// Either way the clock knows nothing of sockets and other threads' work: a
/// task that waits for those counts as asleep.
#[derive(Clone)]
pub struct VirtualTimer {
    clock: Arc<Clock>,
}

impl VirtualTimer {
    /// A clock that moves by hand, and by itself when every task is asleep.
    pub fn new() -> Self {
        Self::with_mode(Mode::Automatic)
    }

    /// A clock that moves by hand only.
    pub fn manual() -> Self {
        Self::with_mode(Mode::Manual)
    }

    /// Moves the clock ahead by `duration` and wakes all whose sleep is over,
    /// in the order of their deadlines.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.clock.lock();
        let target = state.now.saturating_add(duration);
        let due = state.move_to(target);
        drop(state);
        wake_all(due);
    }

    /// How far the clock has moved since it was made.
    pub fn elapsed(&self) -> Duration {
        self.clock.lock().now
    }

    /// How many sleeps are under way: made, and neither over nor dropped.
    pub fn sleeping(&self) -> usize {
        self.clock.lock().sleepers.len()
    }

    /// Watches a task, so that the clock knows when it is asleep.
    ///
    /// The task counts as awake from this call on. To start several at the same
    /// instant, wrap them all before the first one is spawned.
    pub fn task<F: Future>(&self, future: F) -> VirtualTask<F> {
        let mut state = self.clock.lock();
        let id = state.new_id();
        state.tasks.insert(id, Wakefulness::Woken);
        state.awake += 1;
        drop(state);
        VirtualTask {
            future: Box::pin(future),
            waker: Arc::new(TaskWaker {
                id,
                clock: self.clock.clone(),
                executor: Mutex::new(Waker::noop().clone()),
            }),
        }
    }

    fn with_mode(mode: Mode) -> Self {
        Self {
            clock: Arc::new(Clock {
                epoch: Instant::now(),
                mode,
                state: Mutex::default(),
            }),
        }
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
        let mut state = self.clock.lock();
        let key = (state.now.saturating_add(duration), state.new_id());
        state.sleepers.insert(key, None);
        state.activity += 1;
        drop(state);
        VirtualSleep {
            clock: self.clock.clone(),
            key,
            seen: None,
            quiet_polls: 0,
        }
    }

    fn now(&self) -> Instant {
        // A clock that was moved beyond the system's range stays at its start.
        let epoch = self.clock.epoch;
        epoch.checked_add(self.elapsed()).unwrap_or(epoch)
    }
}

#[derive(Debug, PartialEq)]
enum Mode {
    Automatic,
    Manual,
}

struct Clock {
    epoch: Instant,
    mode: Mode,
    state: Mutex<State>,
}

/// A sleep's deadline, and a number that keeps equal deadlines in the order in
/// which they were made.
type Key = (Duration, u64);

#[derive(Default)]
struct State {
    /// The time since the epoch.
    now: Duration,

    /// The sleeps under way, and whom to wake at their end.
    sleepers: BTreeMap<Key, Option<Waker>>,

    /// The watched tasks.
    tasks: HashMap<u64, Wakefulness>,

    /// How many of the watched tasks are not asleep; besides, one for each
    /// thread that is waking some.
    awake: usize,

    /// Counts whatever happens to sleeps.
    activity: u64,

    last_id: u64,
}

/// What a watched task is doing.
#[derive(Clone, Copy, PartialEq)]
enum Wakefulness {
    Asleep,
    Woken,
    Polled,
}

impl Clock {
    /// The state. User code never runs while it is locked, so that neither a
    /// waker nor a drop can come back to it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock on while all watched tasks are asleep.
    fn settle(&self) {
        if self.mode == Mode::Manual {
            return;
        }
        let mut state = self.lock();
        while state.awake == 0 && !state.tasks.is_empty() {
            let Some((&(deadline, _), _)) = state.sleepers.first_key_value() else {
                return;
            };
            let due = state.move_to(deadline);
            // Those that are about to be woken are not asleep any more.
            state.awake += 1;
            drop(state);
            wake_all(due);
            state = self.lock();
            state.awake -= 1;
        }
    }

    /// Changes what a watched task does, and keeps count.
    fn set(&self, id: u64, change: impl FnOnce(Wakefulness) -> Wakefulness) {
        let mut state = self.lock();
        let Some(task) = state.tasks.get_mut(&id) else {
            return;
        };
        let before = *task;
        let after = change(before);
        *task = after;
        match (before, after) {
            (Wakefulness::Asleep, Wakefulness::Woken | Wakefulness::Polled) => state.awake += 1,
            (Wakefulness::Woken | Wakefulness::Polled, Wakefulness::Asleep) => state.awake -= 1,
            _ => {}
        }
    }

    fn remove_task(&self, id: u64) {
        let mut state = self.lock();
        if state
            .tasks
            .remove(&id)
            .is_some_and(|task| task != Wakefulness::Asleep)
        {
            state.awake -= 1;
        }
        let watcher = self.next_watcher(&state);
        drop(state);
        wake_all(watcher);
        self.settle();
    }

    /// Whom to wake so that, without watched tasks, the clock goes on.
    fn next_watcher(&self, state: &State) -> Option<Waker> {
        let (_, waker) = state.first_to_wake()?;
        self.is_watched_by_sleeps(state).then(|| waker.clone())
    }

    /// Whether the first sleep moves the clock, for want of watched tasks.
    fn is_watched_by_sleeps(&self, state: &State) -> bool {
        self.mode == Mode::Automatic && state.tasks.is_empty()
    }

    /// Forgets a sleep; the one that is now first looks after the clock.
    fn remove_sleep(&self, key: Key) {
        let mut state = self.lock();
        let removed = state.sleepers.remove(&key);
        state.activity += 1;
        let watcher = self.next_watcher(&state);
        drop(state);
        drop(removed);
        wake_all(watcher);
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The sleep that is due first of those that somebody waits for.
    fn first_to_wake(&self) -> Option<(Key, &Waker)> {
        self.sleepers
            .iter()
            .find_map(|(&key, waker)| Some((key, waker.as_ref()?)))
    }

    /// Moves the clock and takes out those whose sleep is over.
    fn move_to(&mut self, target: Duration) -> Vec<Waker> {
        self.now = self.now.max(target);
        self.activity += 1;
        let pending = self.sleepers.split_off(&(self.now, u64::MAX));
        let due = mem::replace(&mut self.sleepers, pending);
        due.into_values().flatten().collect()
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// A sleep of [`VirtualTimer`].
#[must_use = "futures do nothing unless polled"]
pub struct VirtualSleep {
    clock: Arc<Clock>,
    key: Key,

    /// The clock's activity at the last poll in which this sleep was first.
    seen: Option<u64>,

    /// How many polls in a row have seen no activity.
    quiet_polls: u32,
}

impl VirtualSleep {
    /// Whether nothing but this sleep has happened for long enough to take
    /// every task for asleep.
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
        let waker = cx.waker().clone();
        let mut state = this.clock.lock();
        if state.now >= this.key.0 {
            drop(state);
            this.clock.remove_sleep(this.key);
            return Poll::Ready(());
        }
        let stale = state.sleepers.insert(this.key, Some(waker));
        let first = state
            .first_to_wake()
            .is_some_and(|(key, _)| key == this.key);
        let watches = first && this.clock.is_watched_by_sleeps(&state);
        let activity = state.activity;
        drop(state);
        drop(stale);
        if !watches {
            return Poll::Pending;
        }
        if this.all_is_quiet(activity) {
            let mut state = this.clock.lock();
            let due = state.move_to(this.key.0);
            drop(state);
            wake_all(due);
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        self.clock.remove_sleep(self.key);
    }
}

impl fmt::Debug for VirtualSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualSleep")
            .field("deadline", &self.key.0)
            .finish_non_exhaustive()
    }
}

/// A task that a [`VirtualTimer`] watches.
#[must_use = "futures do nothing unless polled"]
pub struct VirtualTask<F> {
    future: Pin<Box<F>>,
    waker: Arc<TaskWaker>,
}

/// Tells the clock that a task is awake, then its executor.
struct TaskWaker {
    id: u64,
    clock: Arc<Clock>,
    executor: Mutex<Waker>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.clock.set(self.id, |_| Wakefulness::Woken);
        let executor = self.executor().clone();
        executor.wake();
    }
}

impl TaskWaker {
    fn executor(&self) -> MutexGuard<'_, Waker> {
        self.executor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> Future for VirtualTask<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let TaskWaker { id, clock, .. } = &*self.waker;
        let (id, clock) = (*id, clock.clone());
        let stale = mem::replace(&mut *self.waker.executor(), cx.waker().clone());
        drop(stale);
        clock.set(id, |_| Wakefulness::Polled);
        let waker = Waker::from(self.waker.clone());
        let poll = self.future.as_mut().poll(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            clock.remove_task(id);
        } else {
            clock.set(id, |now| match now {
                Wakefulness::Polled => Wakefulness::Asleep,
                woken => woken,
            });
            clock.settle();
        }
        poll
    }
}

impl<F> Drop for VirtualTask<F> {
    fn drop(&mut self) {
        self.waker.clock.remove_task(self.waker.id);
    }
}

impl<F> fmt::Debug for VirtualTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTask").finish_non_exhaustive()
    }
}
