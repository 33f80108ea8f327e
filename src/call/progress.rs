//! The state of a call between polls, except its current step.

use super::{
    Attempt, Engine,
    decision::{Decision, Failed, decide},
};
use crate::{
    event::{Event, GiveUpReason},
    failure::Failure,
    limits::Payment,
    policy::{Jitter, Operation, Policy},
    timer::{Instant, SharedTimer, Timer, Wait},
};
use futures::future::Either;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

pub struct Progress<'e, 'm, T> {
    pub engine: &'e Engine<T>,
    pub policy: &'e Policy,
    pub operation: &'m Operation,
    pub model: Option<&'m str>,

    /// The number of the call, if there is an observer; otherwise 0.
    pub call: u64,

    /// The start of the call, if an observer or a deadline needs it.
    pub began: Option<Instant>,

    /// The retries that have started.
    retries: u32,

    /// Whether the attempt before the last retry was throttled.
    throttled: bool,

    /// Whether the timeout of this attempt is the time left before the deadline.
    capped_by_deadline: bool,

    /// Whether an attempt lasts until the first content of its stream.
    pub commits: bool,

    /// When this attempt was first found pending, if the limit of its first content
    /// needs it.
    pending_since: Option<Instant>,
}

impl<'e, 'm, T: Timer> Progress<'e, 'm, T> {
    pub fn new(
        engine: &'e Engine<T>,
        policy: &'e Policy,
        operation: &'m Operation,
        model: Option<&'m str>,
    ) -> Self {
        Self {
            engine,
            policy,
            operation,
            model,
            call: 0,
            began: None,
            retries: 0,
            throttled: false,
            capped_by_deadline: false,
            commits: false,
            pending_since: None,
        }
    }

    /// The call opens a stream: its attempts last until the first content, if the policy
    /// says so.
    pub fn commits_streams(&mut self) {
        self.commits = self.policy.commits(*self.operation);
    }

    /// Starts the call and its first attempt.
    #[inline]
    pub fn begin(&mut self) {
        let deadline = self.policy.call_deadline();
        if self.engine.hooks.observer.is_some() || deadline.is_some() {
            self.began = Some(self.now());
            self.call = self.engine.hooks.number_call();
            self.attempt_starts(1, Duration::ZERO);
        }
    }

    /// Starts a retry and spends its cost. If the deadline has passed, reports `GaveUp`
    /// and returns false.
    pub fn resume(&mut self, error: &dyn Failure, payment: Option<Payment<'e>>) -> bool {
        if self.left().is_some_and(|left| left.is_zero()) {
            drop(payment);
            self.gave_up(error, self.elapsed(), GiveUpReason::Deadline);
            return false;
        }
        self.attempt_starts(self.attempt().saturating_add(1), self.elapsed());
        self.throttled = payment.is_some_and(Payment::spend);
        self.retries += 1;
        self.pending_since = None;
        true
    }

    fn attempt_starts(&self, attempt: u32, elapsed: Duration) {
        self.engine.hooks.emit(|| Event::Attempt {
            call: self.call,
            operation: *self.operation,
            model: self.model,
            attempt,
            elapsed,
        });
    }

    /// Starts the timeout of an attempt that was found pending now.
    #[inline(always)]
    pub fn start_timeout(
        &mut self,
        place: Pin<&mut Option<Wait<T, &'e SharedTimer<T>>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let left = if self.commits {
            self.left_for_content()
        } else {
            None
        };
        let limit = left.or_else(|| self.policy.attempt_timeout(*self.operation));
        self.start_limit(place, limit, cx)
    }

    /// Waits for a commit within the time that is left.
    pub async fn committed<E: Failure>(
        &mut self,
        commit: Pin<&mut impl Future<Output = Result<(), E>>>,
    ) -> Result<(), (E, bool)> {
        let mut attempt = pin!(Attempt::new(commit));
        let outcome = poll_fn(|cx| {
            let mut race = attempt.as_mut().race(|place, cx| {
                let limit = self.left_for_content();
                self.start_limit(place, limit, cx)
            });
            Pin::new(&mut race).poll(cx).map(|outcome| match outcome {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            })
        });
        match outcome.await {
            Some(result) => result.map_err(|error| (error, false)),
            None => Err((E::timeout(), true)),
        }
    }

    /// The time left for the first content of an attempt that is pending now; `None`
    /// without a limit.
    fn left_for_content(&mut self) -> Option<Duration> {
        let limit = self.policy.first_content_limit()?;
        let now = self.now();
        let since = *self.pending_since.get_or_insert(now);
        Some(limit.saturating_sub(now.saturating_duration_since(since)))
    }

    /// Starts a wait for `limit`, or for the deadline if that is earlier.
    #[inline(always)]
    fn start_limit(
        &mut self,
        place: Pin<&mut Option<Wait<T, &'e SharedTimer<T>>>>,
        limit: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let left = self.left();
        self.capped_by_deadline = left.is_some_and(|left| limit.is_none_or(|limit| left <= limit));
        let duration = if self.capped_by_deadline { left } else { limit };
        Wait::start(place, &self.engine.timer, duration, cx)
    }

    /// The limit of each wait for an item of a stream that has just been opened, which
    /// commits if the first content is limited.
    pub fn idle_limit(&self) -> Option<Duration> {
        match self.policy.first_content_limit() {
            None => self.policy.idle_limit(),
            Some(_) => None,
        }
    }

    #[inline]
    pub fn succeeded(&self) {
        if let Some(budget) = &self.engine.budget {
            match self.retries {
                0 => budget.reward(),
                _ => budget.refund(self.throttled),
            }
        }
        self.engine.hooks.emit(|| Event::Success {
            call: self.call,
            operation: *self.operation,
            model: self.model,
            attempt: self.attempt(),
            elapsed: self.elapsed(),
        });
    }

    /// The next attempt's delay and payment, or `None` to return the error.
    #[cold]
    pub fn failed(
        &self,
        error: &dyn Failure,
        timed_out: bool,
    ) -> Option<(Duration, Option<Payment<'e>>)> {
        let elapsed = self.elapsed();
        let throttled = error.is_throttled();
        let decision = self.decide(error, throttled, timed_out);
        let (decision, payment) = self.pay(decision, throttled);
        match decision {
            Decision::Retry { delay, source } => {
                self.engine.hooks.emit(|| Event::Retry {
                    call: self.call,
                    operation: *self.operation,
                    model: self.model,
                    attempt: self.attempt(),
                    delay,
                    elapsed,
                    error,
                    source,
                });
                Some((delay, payment))
            }
            Decision::GiveUp(reason) => {
                self.gave_up(error, elapsed, reason);
                None
            }
        }
    }

    fn decide(&self, error: &dyn Failure, throttled: bool, timed_out: bool) -> Decision {
        let Engine { hooks, entropy, .. } = self.engine;
        let transient = hooks.is_transient(error);
        let backoff = self.policy.backoff_after(throttled);
        let mut random = entropy.rng();
        let failed = Failed {
            transient,
            // Reading a long body is slow, so only if it matters.
            requested: transient.then(|| hooks.requested_delay(error)).flatten(),
            retries: self.retries,
            left: match timed_out && self.capped_by_deadline {
                true => Some(Duration::ZERO),
                false => self.left(),
            },
            drawn: backoff.draw(self.retries, &mut random),
            spread: match backoff.jitter {
                Jitter::None => 0.0,
                Jitter::Equal | Jitter::Full => random.f64(),
            },
        };
        decide(self.policy, *self.operation, &failed)
    }

    /// Pays for a retry if there is a budget, which may refuse it.
    fn pay(&self, decision: Decision, throttled: bool) -> (Decision, Option<Payment<'e>>) {
        match (&decision, &self.engine.budget) {
            (Decision::Retry { .. }, Some(budget)) => match budget.pay(throttled) {
                Some(payment) => (decision, Some(payment)),
                None => (Decision::GiveUp(GiveUpReason::Budget), None),
            },
            _ => (decision, None),
        }
    }

    fn gave_up(&self, error: &dyn Failure, elapsed: Duration, reason: GiveUpReason) {
        self.engine.hooks.emit(|| Event::GaveUp {
            call: self.call,
            operation: *self.operation,
            model: self.model,
            attempt: self.attempt(),
            elapsed,
            error,
            reason,
        });
    }

    /// The number of the current attempt.
    pub fn attempt(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| {
            self.now().saturating_duration_since(began)
        })
    }

    /// The time left before the deadline.
    #[inline]
    fn left(&self) -> Option<Duration> {
        let deadline = self.policy.call_deadline()?;
        Some(deadline.saturating_sub(self.elapsed()))
    }

    fn now(&self) -> Instant {
        self.engine.timer.timer().now()
    }
}
