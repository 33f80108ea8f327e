//! The state that a virtual timer, its sleeps and its tasks share.

use super::Instant;
use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

pub(super) struct Clock {
    pub(super) epoch: Instant,
    pub(super) mode: Mode,
    state: Mutex<State>,
}

#[derive(PartialEq)]
pub(super) enum Mode {
    Automatic,
    Manual,
}

/// A sleep's deadline, and a number that keeps equal deadlines in the order in
/// which they were made.
pub(super) type Key = (Duration, u64);

#[derive(Default)]
pub(super) struct State {
    /// The time since the epoch.
    pub(super) now: Duration,

    /// The sleeps under way, and whom to wake at their end.
    pub(super) sleepers: BTreeMap<Key, Option<Waker>>,

    /// The watched tasks.
    pub(super) tasks: BTreeMap<u64, Wakefulness>,

    /// How many of the watched tasks are not asleep; besides, one for each
    /// thread that is waking some.
    awake: usize,

    /// Counts whatever happens to sleeps.
    pub(super) activity: u64,

    last_id: u64,
}

/// What a watched task is doing.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wakefulness {
    Asleep,
    Woken,
    Polled,
}

impl Clock {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            epoch: Instant::now(),
            mode,
            state: Mutex::default(),
        }
    }

    /// The state. User code never runs while it is locked, so that neither a
    /// waker nor a drop can come back to it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock on while all watched tasks are asleep.
    pub(super) fn settle(&self) {
        if self.mode == Mode::Manual {
            return;
        }
        loop {
            let state = self.lock();
            if state.awake > 0 || state.tasks.is_empty() || state.sleepers.is_empty() {
                return;
            }
            self.move_to_next(state);
        }
    }

    /// Moves the clock to the deadline that comes first.
    pub(super) fn move_to_next(&self, state: MutexGuard<'_, State>) {
        if let Some((&(deadline, _), _)) = state.sleepers.first_key_value() {
            self.move_to(state, deadline);
        }
    }

    /// Moves the clock, never back, and wakes those whose sleep is over.
    pub(super) fn move_to(&self, mut state: MutexGuard<'_, State>, target: Duration) {
        state.now = state.now.max(target);
        state.activity += 1;
        let mut due = Vec::new();
        while let Some(sleeper) = state.first_due() {
            due.extend(sleeper);
        }
        // Those that are about to be woken are not asleep any more.
        state.awake += 1;
        drop(state);
        let _waking = Waking(self);
        due.into_iter().for_each(Waker::wake);
    }

    pub(super) fn add_sleep(&self, duration: Duration) -> Key {
        let mut state = self.lock();
        let key = (state.now.saturating_add(duration), state.new_id());
        state.sleepers.insert(key, None);
        state.activity += 1;
        key
    }

    pub(super) fn remove_sleep(&self, mut state: MutexGuard<'_, State>, key: Key) {
        let waker = state.sleepers.remove(&key);
        state.activity += 1;
        drop(state);
        drop(waker);
    }

    /// Begins to watch a task, which is awake.
    pub(super) fn add_task(&self) -> u64 {
        let mut state = self.lock();
        let id = state.new_id();
        state.tasks.insert(id, Wakefulness::Woken);
        state.awake += 1;
        id
    }

    pub(super) fn remove_task(&self, id: u64) {
        let mut state = self.lock();
        let task = state.tasks.remove(&id);
        if task.is_some_and(|task| task != Wakefulness::Asleep) {
            state.awake -= 1;
        }
        drop(state);
        self.settle();
    }

    /// Changes what a watched task does, and keeps count.
    pub(super) fn set_task(&self, id: u64, change: impl FnOnce(Wakefulness) -> Wakefulness) {
        let mut state = self.lock();
        let Some(task) = state.tasks.get_mut(&id) else {
            return;
        };
        let before = mem::replace(task, change(*task)) != Wakefulness::Asleep;
        let after = *task != Wakefulness::Asleep;
        state.awake = state.awake + usize::from(after) - usize::from(before);
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes out the first sleep, if that is over, and whom to wake.
    fn first_due(&mut self) -> Option<Option<Waker>> {
        let first = self.sleepers.first_entry()?;
        (first.key().0 <= self.now).then(|| first.remove())
    }
}

/// Holds the clock until all have been woken, or a waker has panicked.
struct Waking<'a>(&'a Clock);

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        self.0.lock().awake -= 1;
    }
}
