//! The turns of all models.

use super::{
    Asked, Look, Place, Ticket, Turns, Waiter,
    alarm::Alarm,
    law::Law,
    queue::{Key, Left, Queue},
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

    /// `None` once the call has left.
    key: Option<Key>,
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

impl Turns for Shared {
    fn ask(self: Arc<Self>, name: &str, is_retry: bool, waiter: Waiter) -> Asked {
        let timer = waiter.timer.clone();
        let now = timer.now();
        let mut waiter = Some(waiter);
        let asked = self.look(name, now, |models, outbox| {
            let model = models.by_name.get_mut(name)?;
            // Turns that were due before belong to earlier calls.
            model.grant_due(now, outbox);
            if model.queue.is_empty() {
                if model.law.due() <= now {
                    model.queue.pass();
                    return Some(Asked::Granted(model.law.grant(now)));
                }
                let unused = || model.queue.unused().map(Asked::Granted);
                if let Some(granted) = (model.law.held_until() <= now).then(unused).flatten() {
                    return Some(granted);
                }
            }
            let key = model.queue.join(is_retry, waiter.take()?);
            Some(Asked::Waiting(Box::new(PlaceInQueue {
                shared: self.clone(),
                model: model.name.clone(),
                id: model.id,
                timer,
                key: Some(key),
            })))
        });
        asked.unwrap_or(Asked::Dormant)
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
        let awake = self.look(name, now, |models, outbox| {
            models.epochs = models.epochs.wrapping_add(1).max(1);
            let epoch = models.epochs;
            let model = models.wake(name, now, epoch)?;
            model.quiet_since = now;
            model.law.refused(ticket, epoch);
            if let Some(hold) = hold {
                model.law.hold(now, hold);
                let overdue = model.queue.wakers_of_overdue(model.law.held_until());
                outbox.wakers.extend(overdue);
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
        let mut waker = Some(waker.clone());
        let now = over.into_iter().fold(self.timer.now(), Instant::max);
        let waiting = self.shared.look(&self.model, now, |models, outbox| {
            let model = models.model_of(self)?;
            model.grant_due(now, outbox);
            let (ahead, waiter) = model.queue.waiter(self.key?)?;
            mem::swap(&mut waiter.waker, &mut waker);
            let due = model.law.due_after(ahead);
            waiter.sleeps_until = Some(due);
            let held_until = model.law.held_until();
            Some(Look::Waiting {
                now,
                due,
                held_until,
            })
        });
        waiting.unwrap_or(Look::Granted)
    }

    fn take(mut self: Box<Self>) -> Ticket {
        let left = self.key.take().and_then(|key| {
            let mut models = self.shared.lock();
            Some(models.model_of(&self)?.queue.leave(key))
        });
        match left {
            Some(Left::Granted(turn)) => turn.turn,
            // The model has been dormant since the turn was granted.
            _ => Ticket::default(),
        }
    }
}

impl Drop for PlaceInQueue {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        let now = self.timer.now();
        self.shared.look(&self.model, now, |models, outbox| {
            let model = models.model_of(self)?;
            match model.queue.leave(key) {
                Left::Waiting(waiter) => {
                    model.quiet_since = now;
                    outbox.waiters.push(waiter);
                    // It may have moved up, and sleep for too long.
                    let behind = model.queue.behind(key).filter(|it| !it.is_shareable);
                    outbox.wakers.extend(behind.and_then(|it| it.waker.take()));
                }
                Left::Granted(turn) => outbox.granted(model.queue.hand_on(turn)),
                Left::Unknown => {}
            }
            Some(())
        });
    }
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            awake: Arc::default(),
            models: Mutex::new(Models {
                by_name: HashMap::new(),
                epochs: 0,
                looks: 0,
                quiet_since: None,
            }),
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
                queue: Queue::new(),
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
    /// Grants the turns that are due, in order.
    fn grant_due(&mut self, now: Instant, outbox: &mut Outbox) {
        if !self.queue.is_empty() {
            self.quiet_since = now;
        }
        while !self.queue.is_empty() && self.law.due() <= now {
            outbox.granted(self.queue.grant(self.law.grant(now)));
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
    fn granted(&mut self, waiter: Option<Waiter>) {
        self.waiters.extend(waiter.map(|mut waiter| {
            self.wakers.extend(waiter.waker.take());
            waiter
        }));
    }

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
