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

    /// Whether it moves when every task is asleep.
    pub is_automatic: bool,

    state: Mutex<State>,
}

/// The deadline of a sleep, and a number that orders equal deadlines by creation.
pub type Key = (Duration, u64);

#[derive(Default)]
pub struct State {
    /// The time since the epoch.
    pub now: Duration,

    /// The sleeps that are not over, with their wakers.
    pub sleepers: BTreeMap<Key, Option<Waker>>,

    /// The watched tasks, and whether each was woken since its last poll began.
    pub tasks: BTreeMap<u64, bool>,

    /// The number of woken tasks and of [`Hold`]s: the clock moves by itself at zero.
    awake: usize,

    /// Counts changes of sleeps.
    pub activity: u64,

    last_id: u64,
}

impl Clock {
    pub fn new(is_automatic: bool) -> Self {
        Self {
            epoch: Instant::now(),
            is_automatic,
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
        loop {
            let state = self.lock();
            if !self.is_automatic
                || state.awake > 0
                || state.tasks.is_empty()
                || state.sleepers.is_empty()
            {
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
        let _hold = self.hold(state);
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
        state.tasks.insert(id, true);
        state.awake += 1;
        id
    }

    pub fn remove_task(&self, id: u64) {
        let mut state = self.lock();
        let was_woken = state.tasks.remove(&id) == Some(true);
        state.awake -= usize::from(was_woken);
        drop(state);
        self.settle();
    }

    /// Marks a watched task as woken.
    pub fn wake_task(&self, id: u64) {
        let mut state = self.lock();
        if let Some(woken) = state.tasks.get_mut(&id) {
            let was_woken = mem::replace(woken, true);
            state.awake += usize::from(!was_woken);
        }
    }

    /// Begins the poll of a watched task, which lasts until the hold is dropped.
    pub fn poll_task(&self, id: u64) -> Hold<'_> {
        let mut state = self.lock();
        if let Some(woken) = state.tasks.get_mut(&id) {
            let was_woken = mem::replace(woken, false);
            state.awake -= usize::from(was_woken);
        }
        self.hold(state)
    }

    fn hold(&self, mut state: MutexGuard<'_, State>) -> Hold<'_> {
        state.awake += 1;
        Hold(self)
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

/// Keeps the clock from moving by itself.
pub struct Hold<'a>(&'a Clock);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().awake -= 1;
    }
}
