//! A limit on the rate of attempts that calls learn from each other.
//!
//! Each model has a [`Law`], which says when the next turn is, and a [`Queue`] of calls
//! that wait for one. A turn is a point in time, not a lock: every look at a model grants
//! all turns that are due, in order, and wakes those calls. So a call that has its turn
//! and is not polled delays nobody.
//!
//! If a waiting call has a shareable timer, an entry in its list, the [`Alarm`], looks at
//! the next turn. Otherwise each call sleeps until its own place is due.
//!
//! No user code runs under the lock: wakers and timers are cloned, called and dropped
//! outside it.

mod law;
#[cfg(all(test, crabllm_retry_model))]
mod model;
mod queue;

pub use law::Ticket;
pub use queue::Waiter;

use crate::{
    failure::Failure,
    hints,
    timer::{
        AnyEntry, AnyTimer, Instant, contain_panics,
        sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering},
    },
};
use law::Law;
use queue::{Key, Left, Queue};
use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, PoisonError, Weak},
    task::{Wake, Waker},
    time::Duration,
};

/// The most models that have a state.
const MOST_MODELS: usize = 1024;

/// How long a model stays awake without throttling and without waiting calls.
const AWAKE: Duration = Duration::from_secs(60);

/// Learns the rate that a server allows, and makes calls wait for their turn at it.
///
/// While no model is throttled it is dormant, and costs a call one atomic load. When an
/// attempt is throttled (status 429, unless the body says that waiting will not help), its
/// model wakes: from then on every attempt for it waits for its turn, retries first, then
/// calls in order of arrival. Turns are evenly spaced. Their rate starts at 4/s. A refusal
/// lowers it below what the server took, once for each burst, and it rises while calls
/// wait, so it discovers a raised limit. A delay that the server requests holds back all
/// calls of the model. After 60 s without throttling and without waiting calls the model is
/// dormant again: longer than the usual window of a limit, a minute.
///
/// While a model is awake, a throttled attempt of a retried operation is followed by a free
/// retry, at most ten per call, which counts neither towards
/// [`max_retries`](crate::policy::Policy::max_retries) nor the budget. A call waits until
/// its [`deadline`](crate::policy::Policy::deadline) at most, so set one. The guide
/// [rate limits](docs/rate_limits/index.html) has figures; the constants are those that did
/// best in its simulations.
///
/// Clones share the state, and so do all wrappers that are
/// [given](crate::retrying::Retrying::rate_limiter) the limiter. They must share a clock,
/// as all timers of the system do. It knows at most 1,024 models at a time, and forgets
/// those first that were used least recently and have no waiting calls.
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::{RateLimiter, Retrying};
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
///
/// let timer = VirtualTimer::new();
/// let refusing = Scripted::new(timer.clone(), [(); 5].map(|()| Step::status(429)));
/// let limiter = RateLimiter::adaptive();
/// let provider = Retrying::with_timer(refusing, timer).rate_limiter(limiter.clone());
///
/// // Two retries would not have been enough.
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// futures::executor::block_on(provider.chat_completion(&request))?;
/// assert_eq!(provider.get_ref().attempts().len(), 6);
/// assert!(limiter.rate(Some("m")).is_some());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a rate limiter does nothing until a `Retrying` uses it"]
pub struct RateLimiter {
    /// The number of awake models.
    awake: Arc<AtomicUsize>,

    turns: Arc<dyn Turns>,
}

/// The turns of all models. Behind a trait, so that a program without a limiter does not
/// contain its code, which would be a quarter of a small one for browsers.
trait Turns: Send + Sync {
    fn ask(self: Arc<Self>, name: &str, is_retry: bool, waiter: Waiter) -> Asked;

    fn refused(
        self: Arc<Self>,
        name: &str,
        error: &dyn Failure,
        ticket: Ticket,
        hold: Option<Duration>,
        now: Instant,
    ) -> bool;

    fn rate(&self, name: &str) -> Option<f64>;
}

struct Shared {
    awake: Arc<AtomicUsize>,
    models: Mutex<Models>,
}

/// The awake models. A dormant one has no state.
struct Models {
    by_name: HashMap<Arc<str>, Model>,

    /// The decreases and first refusals so far. Each names an epoch, so that a ticket
    /// says nothing about a model that has been dormant since.
    epochs: u32,

    /// The looks so far, to find the model that was used least recently.
    looks: u64,

    /// Not later than the time since which any model has been quiet.
    quiet_since: Option<Instant>,
}

struct Model {
    name: Arc<str>,

    /// The epoch in which it woke, which tells it from an earlier state of the name.
    id: u32,

    law: Law,
    queue: Queue<Ticket>,

    /// Since when it has neither been throttled nor had waiting calls.
    quiet_since: Instant,

    /// The number of the last look.
    used: u64,

    alarm: Option<Alarm>,
}

/// An entry in a timer's list that looks at the next turn.
struct Alarm {
    at: Instant,
    bell: Arc<Bell>,
    _entry: AnyEntry,
}

/// The waker of an alarm.
struct Bell {
    shared: Weak<Shared>,
    model: Arc<str>,
    timer: Arc<dyn AnyTimer>,

    /// Whether it has been woken, after which its alarm is useless.
    rang: AtomicBool,
}

/// The result of asking for a turn.
pub enum Asked {
    Granted(Ticket),
    Waiting(Box<dyn Place>),

    /// The model is dormant, so the attempt needs no turn.
    Dormant,
}

/// The place of a call in the queue of its model. Dropping it leaves the queue.
pub trait Place: Send {
    /// Grants the turns that are due and tells whether this one is among them. If not,
    /// `waker` is woken at the turn.
    fn look(&self, waker: &Waker) -> Look;

    /// Leaves the queue with the turn, which the attempt uses.
    fn take(self: Box<Self>) -> Ticket;
}

struct PlaceInQueue {
    shared: Arc<Shared>,
    model: Arc<str>,
    id: u32,
    timer: Arc<dyn AnyTimer>,

    /// `None` once the call has left.
    key: Option<Key>,
}

/// The result of a look at a place.
pub enum Look {
    Granted,

    Waiting {
        /// When the place is due at the current rate.
        due: Instant,

        /// The end of the wait that the server asked for.
        held_until: Instant,
    },
}

/// User code to run after the lock.
#[derive(Default)]
struct Outbox {
    /// To be woken.
    wakers: Vec<Waker>,

    /// To be dropped.
    waiters: Vec<Box<Waiter>>,
    alarms: Vec<Alarm>,
}

impl RateLimiter {
    /// A limiter that learns the rate of each model.
    pub fn adaptive() -> Self {
        let shared = Shared::new();
        Self {
            awake: shared.awake.clone(),
            turns: shared,
        }
    }

    /// The attempts per second that the model is thought to allow, as of the last call
    /// that looked; `None` while the model is dormant. Calls without a model share one
    /// rate.
    pub fn rate(&self, model: Option<&str>) -> Option<f64> {
        self.turns.rate(model.unwrap_or_default())
    }

    /// Whether any model is awake.
    #[inline]
    pub(crate) fn is_awake(&self) -> bool {
        // Relaxed: a call that misses the first refusal might as well have been earlier.
        self.awake.load(Ordering::Relaxed) > 0
    }

    /// Asks for the turn of an attempt, and joins the queue if it has to wait.
    pub(crate) fn ask(&self, name: &str, is_retry: bool, waiter: Waiter) -> Asked {
        self.turns.clone().ask(name, is_retry, waiter)
    }

    /// Learns that an attempt was throttled, and for how long the server asked to hold
    /// back all calls. Returns whether the model is awake now. An error that says that
    /// waiting will not help is ignored.
    pub(crate) fn refused(
        &self,
        name: &str,
        error: &dyn Failure,
        ticket: Ticket,
        hold: Option<Duration>,
        now: Instant,
    ) -> bool {
        self.turns.clone().refused(name, error, ticket, hold, now)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("awake", &self.awake.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Turns for Shared {
    fn ask(self: Arc<Self>, name: &str, is_retry: bool, waiter: Waiter) -> Asked {
        let timer = waiter.timer.clone();
        let now = timer.now();
        let mut waiter = Some(Box::new(waiter));
        let asked = self.look(name, now, |models, _| {
            let model = models.by_name.get_mut(name)?;
            if model.queue.is_empty() && model.law.due() <= now {
                model.queue.pass();
                return Some(Asked::Granted(model.law.grant(now)));
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
    fn look(&self, waker: &Waker) -> Look {
        let mut waker = Some(waker.clone());
        let now = self.timer.now();
        let waiting = self.shared.look(&self.model, now, |models, outbox| {
            let model = models.model_of(self)?;
            model.grant_due(now, outbox);
            let (ahead, waiter) = model.queue.waiter(self.key?)?;
            mem::swap(&mut waiter.waker, &mut waker);
            let due = model.law.due_after(ahead);
            waiter.sleeps_until = Some(due);
            let held_until = model.law.held_until();
            Some(Look::Waiting { due, held_until })
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
                Left::Waiting(waiter) => outbox.waiters.push(waiter),
                Left::Granted(turn) => outbox.granted(model.queue.hand_on(turn)),
                Left::Unknown => {}
            }
            Some(())
        });
    }
}

impl Shared {
    fn new() -> Arc<Self> {
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

    fn lock(&self) -> MutexGuard<'_, Models> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock, then grants all turns of the model that are due, and sets
    /// the alarm for the next one.
    fn look<R>(
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

    #[cold]
    fn set_alarm(self: &Arc<Self>, name: &str) {
        let next = |models: &Models| models.by_name.get(name)?.next_alarm();
        loop {
            let Some((at, timer)) = next(&self.lock()) else {
                return;
            };
            let bell = Arc::new(Bell {
                shared: Arc::downgrade(self),
                model: name.into(),
                timer: timer.clone(),
                rang: AtomicBool::new(false),
            });
            // If the time has come, the bell rings at once and looks.
            let Some(_entry) = timer.wake_at(at, &Waker::from(bell.clone())) else {
                return;
            };
            let alarm = Alarm { at, bell, _entry };
            let mut models = self.lock();
            let unused = match models.by_name.get_mut(name) {
                Some(model) if model.next_alarm().is_some() => model.alarm.replace(alarm),
                _ => Some(alarm),
            };
            drop(models);
            drop(unused);
        }
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
        match self.queue.first() {
            // It sleeps for too long: it has moved up, or the rate has risen.
            Some(first) if !first.is_shareable && first.sleeps_until > Some(self.law.due()) => {
                first.sleeps_until = None;
                outbox.wakers.extend(first.waker.take());
            }
            Some(_) => {}
            None => outbox.alarms.extend(self.alarm.take()),
        }
    }

    /// When and by which timer to look next, unless the alarm is set for that.
    fn next_alarm(&self) -> Option<(Instant, Arc<dyn AnyTimer>)> {
        let due = self.law.due();
        let timer = self.queue.timer()?;
        let is_set = self.alarm.as_ref().is_some_and(|Alarm { at, bell, .. }| {
            !bell.rang.load(Ordering::Acquire) && *at <= due && Arc::ptr_eq(&bell.timer, timer)
        });
        (!is_set).then(|| (due, timer.clone()))
    }
}

impl Outbox {
    fn granted(&mut self, waiter: Option<Box<Waiter>>) {
        self.waiters.extend(waiter.map(|mut waiter| {
            self.wakers.extend(waiter.waker.take());
            waiter
        }));
    }

    /// Wakes the calls. A waker that panics affects no other.
    fn deliver(self) {
        for waker in self.wakers {
            contain_panics(|| waker.wake());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        if let Some(shared) = self.shared.upgrade() {
            let now = self.timer.now();
            shared.look(&self.model, now, |_, _| Some(()));
        }
    }
}
