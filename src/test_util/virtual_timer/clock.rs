//! The state shared by a virtual timer, its sleeps and its tasks.

use crate::timer::Instant;
use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

pub struct Clock {
    pub epoch: Instant,
    pub mode: Mode,
    state: Mutex<State>,
}

#[derive(PartialEq)]
pub enum Mode {
    Automatic,
    Manual,
}

/// The deadline of a sleep, and a number that orders equal deadlines by creation.
pub type Key = (Duration, u64);

#[derive(Default)]
pub struct State {
    /// The time since the epoch.
    pub now: Duration,

    /// The sleeps that are not over, with their wakers.
    pub sleepers: BTreeMap<Key, Option<Waker>>,

    /// The watched tasks.
    pub tasks: BTreeMap<u64, Wakefulness>,

    /// The number of watched tasks that are not asleep, plus one for each thread that
    /// is waking some.
    awake: usize,

    /// Counts changes of sleeps.
    pub activity: u64,

    last_id: u64,
}

/// The state of a watched task.
#[derive(Clone, Copy, PartialEq)]
pub enum Wakefulness {
    Asleep,
    Woken,
    Polled,
}

impl Clock {
    pub fn new(mode: Mode) -> Self {
        Self {
            epoch: Instant::now(),
            mode,
            state: Mutex::default(),
        }
    }

    /// Locks the state. No user code runs under the lock, so wakers and drops cannot
    /// deadlock.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock while all watched tasks are asleep.
    pub fn settle(&self) {
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

    /// Moves the clock to the earliest deadline.
    pub fn move_to_next(&self, state: MutexGuard<'_, State>) {
        if let Some((&(deadline, _), _)) = state.sleepers.first_key_value() {
            self.move_to(state, deadline);
        }
    }

    /// Moves the clock, never back, and wakes the sleeps that are over.
    pub fn move_to(&self, mut state: MutexGuard<'_, State>, target: Duration) {
        state.now = state.now.max(target);
        state.activity += 1;
        let mut due = Vec::new();
        while let Some(sleeper) = state.first_due() {
            due.extend(sleeper);
        }
        // The tasks that are about to be woken are not asleep any more.
        state.awake += 1;
        drop(state);
        let _waking = Waking(self);
        due.into_iter().for_each(Waker::wake);
    }

    pub fn add_sleep(&self, duration: Duration) -> Key {
        let mut state = self.lock();
        let key = (state.now.saturating_add(duration), state.new_id());
        state.sleepers.insert(key, None);
        state.activity += 1;
        key
    }

    pub fn remove_sleep(&self, mut state: MutexGuard<'_, State>, key: Key) {
        let waker = state.sleepers.remove(&key);
        state.activity += 1;
        drop(state);
        drop(waker);
    }

    /// Starts to watch a task, which counts as awake.
    pub fn add_task(&self) -> u64 {
        let mut state = self.lock();
        let id = state.new_id();
        state.tasks.insert(id, Wakefulness::Woken);
        state.awake += 1;
        id
    }

    pub fn remove_task(&self, id: u64) {
        let mut state = self.lock();
        let task = state.tasks.remove(&id);
        if task.is_some_and(|task| task != Wakefulness::Asleep) {
            state.awake -= 1;
        }
        drop(state);
        self.settle();
    }

    /// Changes the state of a watched task and updates the count of those awake.
    pub fn set_task(&self, id: u64, change: impl FnOnce(Wakefulness) -> Wakefulness) {
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

    /// Removes the earliest sleep if it is over, and returns its waker.
    fn first_due(&mut self) -> Option<Option<Waker>> {
        let first = self.sleepers.first_entry()?;
        (first.key().0 <= self.now).then(|| first.remove())
    }
}

/// Stops the clock until all wakers have been woken or one has panicked.
struct Waking<'a>(&'a Clock);

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        self.0.lock().awake -= 1;
    }
}
