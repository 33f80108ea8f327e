//! A limit on the rate of attempts that calls learn from each other.
//!
//! Each model has a law, which says when the next turn is, and a queue of calls that wait
//! for one. A turn is a point in time, not a lock: every look at a model grants all turns
//! that are due, in order, and wakes those calls. So a call that has its turn and is not
//! polled delays nobody.
//!
//! If a waiting call has a shareable timer, an entry in its list, the alarm, looks at the
//! next turn. Otherwise each call sleeps until its own place is due.
//!
//! No user code runs under the lock: wakers and timers are cloned, called and dropped
//! outside it.

mod alarm;
mod law;
#[cfg(all(test, crabllm_retry_model))]
mod model;
mod queue;
mod turns;

pub use law::Ticket;
pub use queue::Waiter;

use crate::{
    failure::Failure,
    timer::{
        Instant,
        sync::{AtomicUsize, Ordering},
    },
};
use std::{fmt, sync::Arc, task::Waker, time::Duration};
use turns::Shared;

/// Learns the rate that a server allows, and makes calls wait for their turn at it.
///
/// While no model is throttled it is dormant, and costs a call one atomic load. When an
/// attempt is throttled (status 429, unless the body says that waiting will not help), its
/// model wakes: from then on every attempt for it waits for its turn, retries first, then
/// calls in order of arrival. Turns are evenly spaced. Their rate starts at 4/s. A refusal
/// lowers it below what the server took, once for each burst, and it rises while calls
/// wait, so it discovers a raised limit. A delay that the server requests holds back all
/// calls of the model. After 60 s, the usual window of a limit, without throttling and
/// without waiting calls the model is dormant again.
///
/// While a model is awake, a throttled attempt of a retried operation is followed by a free
/// retry, at most ten per call, unless [`max_retries`](crate::policy::Policy::max_retries)
/// is 0. It counts neither towards `max_retries` nor the budget. A call waits until
/// its [`deadline`](crate::policy::Policy::deadline) at most, so set one. The guide
/// [rate limits](docs/rate_limits/index.html) has figures; the constants are those that did
/// best in its simulations.
///
/// Clones share the state, and so do all wrappers that are
/// [given](crate::retrying::Retrying::rate_limiter) the limiter. They must share a clock,
/// as all timers of the system do. At most 1,024 models are awake at a time: a further one
/// replaces the least recently used one without waiting calls or, if all have some, is not
/// limited.
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
/// contain its code, which would be a fifth of a small one for browsers.
pub trait Turns: Send + Sync {
    /// Asks for the turn of an attempt, and joins the queue if it has to wait. `None` if the
    /// model is dormant, so that the attempt needs no turn.
    fn ask(self: Arc<Self>, model: &str, is_retry: bool, waiter: Waiter) -> Option<Box<dyn Place>>;

    /// Learns that an attempt was throttled, and for how long the server asked to hold
    /// back all calls. Returns whether the model is awake now. An error that says that
    /// waiting will not help is ignored.
    fn refused(
        self: Arc<Self>,
        model: &str,
        error: &dyn Failure,
        ticket: Ticket,
        hold: Option<Duration>,
        now: Instant,
    ) -> bool;

    fn rate(&self, model: &str) -> Option<f64>;
}

/// The place of a call in the queue of its model, or its turn. Dropping it leaves the queue,
/// and hands the turn on.
pub trait Place: Send {
    /// Grants the turns that are due and tells whether this one is among them. If not,
    /// `waker` is woken at the turn. A sleep until `over` has ended.
    fn look(&self, waker: &Waker, over: Option<Instant>) -> Look;

    /// Leaves the queue with the turn, which the attempt that starts now uses.
    fn take(self: Box<Self>) -> Ticket;
}

/// The result of a look at a place.
pub enum Look {
    Granted,

    /// The deadline of the call has passed, or comes during a requested delay.
    Expired,

    Waiting {
        now: Instant,

        /// When the place is due at the current rate.
        due: Instant,
    },
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
    /// that looked; `None` while the model is dormant. Calls without a model, or with
    /// an empty name, share one rate.
    pub fn rate(&self, model: Option<&str>) -> Option<f64> {
        self.turns.rate(model.unwrap_or_default())
    }

    /// Whether any model is awake.
    #[inline]
    pub(crate) fn is_awake(&self) -> bool {
        // Relaxed: a call that misses the first refusal might as well have been earlier.
        self.awake.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn turns(&self) -> Arc<dyn Turns> {
        self.turns.clone()
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("awake", &self.awake.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
