//! The turns of all models.

use super::{
    Look, Place, Ticket, Turns, Waiter,
    alarm::Alarm,
    law::Law,
    queue::{Key, Queue, Turn},
};
use crate::{
    failure::Failure,
    hints,
    timer::{
        AnyTimer, Instant, contain_panics,
        sync::{AtomicUsize, Mutex, MutexGuard, Ordering},
    },
};
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, PoisonError},
    task::Waker,
    time::Duration,
};

/// The most models that have a state.
const MOST_MODELS: usize = 1024;

/// How long a model stays awake without throttling and without waiting calls.
const AWAKE: Duration = Duration::from_secs(60);

pub struct Shared {
    /// The number of awake models.
    pub awake: Arc<AtomicUsize>,

    models: Mutex<Models>,
}

/// The awake models. A dormant one has no state.
#[derive(Default)]
pub struct Models {
    pub by_name: HashMap<Arc<str>, Model>,

    /// The decreases and first refusals so far. Each names an epoch, so that a ticket
    /// says nothing about a model that has been dormant since.
    epochs: u32,

    /// The looks so far, to find the model that was used least recently.
    looks: u64,

    /// Not later than the time since which any model has been quiet.
    quiet_since: Option<Instant>,
}

pub struct Model {
    name: Arc<str>,

    /// The epoch in which it woke, which tells it from an earlier state of the name.
    id: u32,

    pub law: Law,
    pub queue: Queue<Ticket>,

    /// Since when it has neither been throttled nor had waiting calls.
    quiet_since: Instant,

    /// The number of the last look.
    used: u64,

    pub alarm: Option<Alarm>,
}

struct PlaceInQueue {
    shared: Arc<Shared>,
    model: Arc<str>,
    id: u32,
    timer: Arc<dyn AnyTimer>,
    asked_at: Instant,

    /// `None` once the call has left.
    held: Option<Held>,
}

enum Held {
    /// A place in the queue, in which it is granted its turn.
    Place(Key),

    /// A turn for which the call had not to wait.
    Turn(Turn<Ticket>),
}

/// User code to run after the lock.
#[derive(Default)]
pub struct Outbox {
    /// To be woken.
    wakers: Vec<Waker>,

    /// To be dropped.
    waiters: Vec<Waiter>,
    alarms: Vec<Alarm>,
}

/// The time by a clock, but not before `time`. Contains a panic of the clock, which concerns
/// other calls, or is the second one of this call.
pub fn now_since(timer: &dyn AnyTimer, time: Instant) -> Instant {
    let mut now = time;
    contain_panics(|| now = now.max(timer.now()));
    now
}

impl Turns for Shared {
    fn ask(self: Arc<Self>, name: &str, is_retry: bool, waiter: Waiter) -> Option<Box<dyn Place>> {
        let timer = waiter.timer.clone();
        let now = timer.now();
        let mut waiter = Some(waiter);
        self.look(name, now, |models, outbox| {
            let model = models.by_name.get_mut(name)?;
            // Turns that were due before belong to earlier calls.
            model.grant_due(now, outbox);
            let held = match model.turn_at_once(now) {
                Some(turn) => Held::Turn(turn),
                None => Held::Place(model.queue.join(is_retry, waiter.take()?)),
            };
            let place: Box<dyn Place> = Box::new(PlaceInQueue {
                shared: self.clone(),
                model: model.name.clone(),
                id: model.id,
                timer,
                asked_at: now,
                held: Some(held),
            });
            Some(place)
        })
    }

    fn refused(
        self: Arc<Self>,
        name: &str,
        error: &dyn Failure,
        ticket: Ticket,
        hold: Option<Duration>,
        now: Instant,
    ) -> bool {
        if !hints::waiting_helps(error) {
            return false;
        }
        let awake = self.look(name, now, |models, _| {
            models.epochs = models.epochs.wrapping_add(1).max(1);
            let epoch = models.epochs;
            let model = models.wake(name, now, epoch)?;
            model.quiet_since = now;
            model.law.refused(ticket, epoch);
            if let Some(hold) = hold.filter(|hold| !hold.is_zero()) {
                model.law.hold(now, hold);
                model.queue.take_back();
            }
            Some(())
        });
        awake.is_some()
    }

    fn rate(&self, name: &str) -> Option<f64> {
        Some(self.lock().by_name.get(name)?.law.rate())
    }
}

impl Place for PlaceInQueue {
    fn look(&self, waker: &Waker, over: Option<Instant>) -> Look {
        let Some(Held::Place(key)) = self.held else {
            return Look::Granted;
        };
        let mut waker = Some(waker.clone());
        let now = over.into_iter().fold(self.timer.now(), Instant::max);
        let seen = self.shared.look(&self.model, now, |models, outbox| {
            let model = models.model_of(self)?;
            model.grant_due(now, outbox);
            if model.queue.has_turn(key) {
                return Some(Look::Granted);
            }
            let Some((ahead, waiter)) = model.queue.waiter(key) else {
                return Some(Look::Expired);
            };
            mem::swap(&mut waiter.waker, &mut waker);
            let due = model.law.due_after(ahead);
            waiter.sleeps_until = Some(due);
            Some(Look::Waiting { now, due })
        });
        // A model that has been dormant since has granted all its turns.
        seen.unwrap_or(Look::Granted)
    }

    fn take(mut self: Box<Self>) -> Ticket {
        let key = match self.held.take() {
            Some(Held::Place(key)) => key,
            Some(Held::Turn(turn)) => return turn.turn,
            None => return Ticket::default(),
        };
        let mut models = self.shared.lock();
        let left = models
            .model_of(&self)
            .and_then(|model| model.queue.leave(key));
        drop(models);
        match left {
            Some((Some(turn), _)) => turn.turn,
            // The model has been dormant since, or has just taken the turn back.
            _ => Ticket::default(),
        }
    }
}

impl Drop for PlaceInQueue {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let now = now_since(&*self.timer, self.asked_at);
        self.shared.look(&self.model, now, |models, outbox| {
            let model = models.model_of(self)?;
            let turn = match held {
                Held::Turn(turn) => Some(turn),
                Held::Place(key) => model.leave(key, now, outbox),
            };
            outbox.wakers.extend(model.queue.hand_on(turn?));
            Some(())
        });
    }
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            awake: Arc::default(),
            models: Mutex::new(Models::default()),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Models> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock, then grants all turns of the model that are due, and sets
    /// the alarm for the next one.
    pub fn look<R>(
        self: &Arc<Self>,
        name: &str,
        now: Instant,
        f: impl FnOnce(&mut Models, &mut Outbox) -> Option<R>,
    ) -> Option<R> {
        let mut outbox = Outbox::default();
        let mut models = self.lock();
        models.sweep(now);
        let result = f(&mut models, &mut outbox);
        models.looks += 1;
        let looks = models.looks;
        let mut needs_alarm = false;
        if let Some(model) = models.by_name.get_mut(name) {
            model.used = looks;
            model.grant_due(now, &mut outbox);
            needs_alarm = model.next_alarm().is_some();
        }
        self.awake.store(models.by_name.len(), Ordering::Relaxed);
        drop(models);
        outbox.deliver();
        if needs_alarm {
            self.set_alarm(name);
        }
        result
    }
}

impl Models {
    fn model_of(&mut self, place: &PlaceInQueue) -> Option<&mut Model> {
        let model = self.by_name.get_mut(&place.model)?;
        (model.id == place.id).then_some(model)
    }

    /// The model, which is awake from now on. `None` if there are too many whose calls
    /// wait.
    fn wake(&mut self, name: &str, now: Instant, epoch: u32) -> Option<&mut Model> {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= MOST_MODELS {
                let idle = self.by_name.values().filter(|model| model.queue.is_empty());
                let evicted = idle.min_by_key(|model| model.used)?.name.clone();
                self.by_name.remove(&evicted);
            }
            let name = Arc::<str>::from(name);
            let model = Model {
                name: name.clone(),
                id: epoch,
                law: Law::new(now, epoch),
                queue: Queue::default(),
                quiet_since: now,
                used: 0,
                alarm: None,
            };
            self.by_name.insert(name, model);
            self.quiet_since.get_or_insert(now);
        }
        self.by_name.get_mut(name)
    }

    /// Removes the models that have been quiet for long enough.
    fn sweep(&mut self, now: Instant) {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= AWAKE;
        if !self.quiet_since.is_some_and(is_over) {
            return;
        }
        self.by_name.retain(|_, model| {
            if !model.queue.is_empty() {
                model.quiet_since = now;
            }
            // A wait that the server asked for is not forgotten before its end.
            let held = model.law.held_until().checked_sub(AWAKE);
            model.quiet_since = held.into_iter().fold(model.quiet_since, Instant::max);
            !is_over(model.quiet_since)
        });
        self.quiet_since = self.by_name.values().map(|model| model.quiet_since).min();
    }
}

impl Model {
    /// The turn of a call that comes now, if it need not wait. Earlier calls have theirs.
    fn turn_at_once(&mut self, now: Instant) -> Option<Turn<Ticket>> {
        if self.law.due() > now {
            return self.queue.unused.take();
        }
        let ticket = self.law.grant(now);
        Some(self.queue.number(ticket))
    }

    /// Removes a call that is dropped. Returns the turn that it had.
    fn leave(&mut self, key: Key, now: Instant, outbox: &mut Outbox) -> Option<Turn<Ticket>> {
        let (turn, waiter) = self.queue.leave(key)?;
        outbox.waiters.push(waiter);
        if turn.is_none() {
            self.quiet_since = now;
            // The next one may have moved up, and sleep for too long.
            let behind = self.queue.behind(key).filter(|it| !it.is_shareable);
            outbox.wakers.extend(behind.and_then(|it| it.waker.take()));
        }
        turn
    }

    /// Removes the calls whose deadline has passed, or comes during a requested delay, and
    /// grants the others the turns that are due, in order.
    fn grant_due(&mut self, now: Instant, outbox: &mut Outbox) {
        if !self.queue.is_empty() {
            self.quiet_since = now;
        }
        for mut waiter in self.queue.expire(now.max(self.law.held_until())) {
            outbox.wakers.extend(waiter.waker.take());
            outbox.waiters.push(waiter);
        }
        while !self.queue.is_empty() && self.law.due() <= now {
            outbox.wakers.extend(self.queue.grant(self.law.grant(now)));
        }
        self.law.set_waiting(!self.queue.is_empty(), now);
        // The first may have moved up, or the rate has risen.
        let sleeps_too_long =
            |first: &&mut Waiter| !first.is_shareable && first.sleeps_until > Some(self.law.due());
        if let Some(first) = self.queue.first().filter(sleeps_too_long) {
            first.sleeps_until = None;
            outbox.wakers.extend(first.waker.take());
        }
        if self.queue.timer().is_none() {
            outbox.alarms.extend(self.alarm.take());
        }
    }
}

impl Outbox {
    /// Wakes the calls. A waker that panics, also when it is dropped, affects no other.
    fn deliver(self) {
        for waker in self.wakers {
            contain_panics(|| waker.wake());
        }
        for waiter in self.waiters {
            contain_panics(|| drop(waiter));
        }
    }
}
