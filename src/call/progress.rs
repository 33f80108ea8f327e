//! The state of a call between polls, except its current step.

use super::{
    Attempt, CallModel, Engine,
    decision::{Decision, Failed, decide, earns_free_retry},
    turn::Limited,
};
use crate::{
    event::{Event, GiveUpReason},
    failure::Failure,
    limits::{Payment, Place},
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
    pub model: CallModel<'m>,

    /// The number of the call, if there is an observer; otherwise 0.
    pub call: u64,

    /// The start of the call, if an observer or a deadline needs it.
    pub began: Option<Instant>,

    /// The attempts that have started: the number of the current one; 0 before the first.
    pub attempts: u32,

    /// The payment of the latest attempt, if it had one: whether it was the one for a
    /// throttled failure.
    paid: Option<bool>,

    /// Whether the timeout of this attempt is the time left before the deadline.
    capped_by_deadline: bool,

    /// `Some` if an attempt lasts until the first content of its stream: when this one was
    /// first found pending, if the limit of its first content needs it. By reference, because
    /// only streams have it.
    pub commit: Option<&'m mut Option<Instant>>,

    /// In a box, because most calls have nothing to do with a rate limiter.
    pub limited: Option<Box<Limited<'m>>>,
}

impl<'e, 'm, T: Timer> Progress<'e, 'm, T> {
    #[inline]
    pub fn new(
        engine: &'e Engine<T>,
        policy: &'e Policy,
        operation: &'m Operation,
        model: CallModel<'m>,
    ) -> Self {
        Self {
            engine,
            policy,
            operation,
            model,
            call: 0,
            began: None,
            attempts: 0,
            paid: None,
            capped_by_deadline: false,
            commit: None,
            limited: None,
        }
    }

    /// Starts the call.
    #[inline]
    pub fn begin(&mut self) {
        let deadline = self.policy.call_deadline();
        if self.engine.hooks.observer.is_some() || deadline.is_some() {
            self.began = Some(self.now());
            self.call = self.engine.hooks.observer.number_call();
        }
    }

    /// Starts the first attempt of a call that begins now.
    #[inline]
    pub fn begin_attempt(&mut self) {
        if self.began.is_some() {
            self.attempt_starts(1, Duration::ZERO);
        }
        self.attempts = 1;
    }

    /// Starts an attempt after a delay, or in its turn. Spends its cost.
    pub fn resume(
        &mut self,
        payment: Option<Payment<'e>>,
        turn: Option<(Box<dyn Place>, Option<Instant>)>,
    ) {
        if let Some((_, Some(since))) = turn {
            self.engine.hooks.emit(|| Event::Waiting {
                call: self.call,
                operation: *self.operation,
                model: self.model.name(),
                attempt: self.attempts,
                elapsed: self.elapsed(),
                wait: self.now().saturating_duration_since(since),
            });
        }
        let attempt = self.attempts.saturating_add(1);
        self.attempt_starts(attempt, self.elapsed());
        // Until here a panic of an observer refunds the payment and hands the turn on.
        self.attempts = attempt;
        self.paid = payment.map(Payment::spend);
        if let Some(pending_since) = &mut self.commit {
            **pending_since = None;
        }
        if let Some((place, _)) = turn {
            self.limited().ticket = place.take();
        }
    }

    /// Whether the deadline has passed.
    pub fn is_late(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// Ends a call whose deadline passes before its next attempt.
    pub fn gave_up_late<E: Failure>(&self, error: Option<E>) -> E {
        let error = error.unwrap_or_else(E::timeout);
        self.gave_up(&error, self.elapsed(), GiveUpReason::Deadline);
        error
    }

    fn attempt_starts(&self, attempt: u32, elapsed: Duration) {
        self.engine.hooks.emit(|| Event::Attempt {
            call: self.call,
            operation: *self.operation,
            model: self.model.name(),
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
        let left = match self.commit {
            Some(_) => self.left_for_content(),
            None => None,
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
        let since = *self.commit.as_mut()?.get_or_insert(now);
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
        if self.engine.budget.is_some() || self.engine.hooks.observer.is_some() {
            self.report_success();
        }
    }

    fn report_success(&self) {
        if let Some(budget) = &self.engine.budget {
            match (self.attempts, self.paid) {
                (_, Some(throttled)) => budget.refund(throttled),
                (1, None) => budget.reward(),
                // The last retry was free.
                (_, None) => {}
            }
        }
        self.engine.hooks.emit(|| Event::Success {
            call: self.call,
            operation: *self.operation,
            model: self.model.name(),
            attempt: self.attempts,
            elapsed: self.elapsed(),
        });
    }

    /// The next attempt's delay and payment, or `None` to return the error.
    #[cold]
    pub fn failed(
        &mut self,
        error: &dyn Failure,
        timed_out: bool,
    ) -> Option<(Duration, Option<Payment<'e>>)> {
        let elapsed = self.elapsed();
        let throttled = error.is_throttled();
        let failed = self.judge(error, throttled, timed_out);
        let decision = decide(self.policy, *self.operation, &failed);
        let (decision, payment) = match failed.free {
            true => (decision, None),
            false => self.pay(decision, throttled),
        };
        match decision {
            Decision::Retry { delay, source } => {
                if let Some(limited) = self.limited.as_mut().filter(|_| failed.free) {
                    limited.free += 1;
                }
                self.engine.hooks.emit(|| Event::Retry {
                    call: self.call,
                    operation: *self.operation,
                    model: self.model.name(),
                    attempt: self.attempts,
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

    fn judge(&mut self, error: &dyn Failure, throttled: bool, timed_out: bool) -> Failed {
        let Engine { hooks, entropy, .. } = self.engine;
        let transient = hooks.is_transient(error);
        // Reading a long body is slow, so only if it matters.
        let requested = transient.then(|| hooks.requested_delay(error)).flatten();
        let awake = transient && throttled && self.was_throttled(error, requested);
        let (free, retries) = (self.free(), self.retries());
        let free = awake && earns_free_retry(self.policy, *self.operation, free);
        let backoff = self.policy.backoff_after(throttled);
        let mut random = entropy.rng();
        Failed {
            transient,
            requested,
            retries,
            free,
            left: match timed_out && self.capped_by_deadline {
                true => Some(Duration::ZERO),
                false => self.left(),
            },
            drawn: backoff.draw(if free { 0 } else { retries }, &mut random),
            spread: match backoff.jitter {
                // The turns spread the calls.
                _ if awake => 0.0,
                Jitter::None => 0.0,
                Jitter::Equal | Jitter::Full => random.f64(),
            },
        }
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
            model: self.model.name(),
            attempt: self.attempts,
            elapsed,
            error,
            reason,
        });
    }

    /// The free retries so far.
    fn free(&self) -> u8 {
        self.limited.as_ref().map_or(0, |limited| limited.free)
    }

    /// The retries that have started, except free ones.
    fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1 + u32::from(self.free()))
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

    pub fn deadline(&self) -> Option<Instant> {
        self.began?.checked_add(self.policy.call_deadline()?)
    }

    pub fn now(&self) -> Instant {
        self.engine.timer.timer().now()
    }
}
