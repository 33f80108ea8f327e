//! The loop around the attempts of one call.

use crate::{
    Event, Failure, GiveUpReason, Operation, Policy, RetryBudget, Timer,
    attempt::Attempt,
    backoff::Entropy,
    deadlines::{Deadlines, Timeout},
    decision::{Decision, Failed, Grant, decide},
    hooks::Hooks,
    timer::{Instant, sleep},
};
use std::{sync::Arc, time::Duration};

/// Everything that a call needs besides its provider.
pub(crate) struct Engine<T> {
    pub(crate) timer: Arc<T>,

    /// The timeouts of the attempts under way.
    pub(crate) timeouts: Arc<Deadlines<T>>,

    /// The bounds of the open streams that wait for an item; apart from the
    /// timeouts, since they are of another length.
    pub(crate) idles: Arc<Deadlines<T>>,

    pub(crate) policy: Policy,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) hooks: Hooks,
    pub(crate) entropy: Entropy,
}

impl<T> Clone for Engine<T> {
    fn clone(&self) -> Self {
        Self {
            timer: self.timer.clone(),
            timeouts: self.timeouts.clone(),
            idles: self.idles.clone(),
            policy: self.policy.clone(),
            budget: self.budget.clone(),
            hooks: self.hooks.clone(),
            entropy: self.entropy.clone(),
        }
    }
}

impl<T: Timer> Engine<T> {
    pub(crate) fn new(timer: T) -> Self {
        let timer = Arc::new(timer);
        Self {
            timeouts: Deadlines::new(timer.clone()),
            idles: Deadlines::new(timer.clone()),
            timer,
            policy: Policy::default(),
            budget: None,
            hooks: Hooks::default(),
            entropy: Entropy::default(),
        }
    }

    /// Makes attempts with `start` until one succeeds or the policy gives up.
    pub(crate) fn call<O, E: Failure, F>(
        &self,
        operation: Operation,
        model: Option<&str>,
        mut start: impl FnMut() -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        let mut call = Call::new(self, operation, model);
        async move {
            call.begin();
            loop {
                let timeout = || Timeout::new(&*self.timeouts, call.bound());
                let error = match Attempt::new(start(), timeout).await {
                    Some(Ok(output)) => {
                        call.succeeded();
                        return Ok(output);
                    }
                    Some(Err(error)) => error,
                    None => {
                        call.struck = call.cut;
                        E::timeout()
                    }
                };
                let Some(delay) = call.failed(&error) else {
                    return Err(error);
                };
                drop(error);
                sleep(&*call.engine.timer, delay).await;
            }
        }
    }
}

/// One call, around its attempts.
struct Call<'e, 'm, T> {
    engine: &'e Engine<T>,
    operation: Operation,
    model: Option<&'m str>,

    /// The first poll, where somebody asks for the time since.
    began: Option<Instant>,

    /// The retries made so far.
    retries: u32,

    /// What the last retry took from the budget.
    paid: u32,

    /// Whether the timeout of this attempt was cut to what the deadline leaves.
    cut: bool,

    /// Whether an attempt that was cut has run out of time.
    struck: bool,
}

impl<'e, 'm, T: Timer> Call<'e, 'm, T> {
    fn new(engine: &'e Engine<T>, operation: Operation, model: Option<&'m str>) -> Self {
        Self {
            engine,
            operation,
            model,
            began: None,
            retries: 0,
            paid: 0,
            cut: false,
            struck: false,
        }
    }

    /// Takes the time, if anybody will ask for it.
    fn begin(&mut self) {
        if self.engine.hooks.observer.is_some() || self.grant().deadline.is_some() {
            self.began = Some(self.engine.timer.now());
        }
    }

    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| {
            self.engine.timer.now().saturating_duration_since(began)
        })
    }

    /// The bound of the attempt that has to wait now: the timeout, cut to what
    /// is left of the deadline.
    fn bound(&mut self) -> Option<Duration> {
        let Grant {
            timeout, deadline, ..
        } = self.grant();
        let Some(deadline) = deadline else {
            return timeout;
        };
        let left = deadline.saturating_sub(self.elapsed());
        self.cut = timeout.is_none_or(|timeout| left <= timeout);
        if self.cut { Some(left) } else { timeout }
    }

    /// What the policy grants; cheaper to make anew than to keep.
    fn grant(&self) -> Grant {
        Grant::new(&self.engine.policy, self.operation)
    }

    fn attempt(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    fn succeeded(&self) {
        if let Some(budget) = &self.engine.budget {
            budget.give(if self.retries == 0 { 1 } else { self.paid });
        }
        self.engine.hooks.tell(|| Event::Success {
            operation: self.operation,
            model: self.model,
            attempt: self.attempt(),
            elapsed: self.elapsed(),
        });
    }

    /// The delay before the next attempt, or `None` to return the error.
    #[cold]
    fn failed(&mut self, error: &dyn Failure) -> Option<Duration> {
        let elapsed = self.elapsed();
        match self.decide(error, elapsed) {
            Decision::Retry { delay, why } => {
                self.engine.hooks.tell(|| Event::Retry {
                    operation: self.operation,
                    model: self.model,
                    attempt: self.attempt(),
                    delay,
                    elapsed,
                    error,
                    why,
                });
                self.retries += 1;
                Some(delay)
            }
            Decision::GiveUp(why) => {
                self.engine.hooks.tell(|| Event::GaveUp {
                    operation: self.operation,
                    model: self.model,
                    attempt: self.attempt(),
                    elapsed,
                    error,
                    why,
                });
                None
            }
        }
    }

    /// Decides, and pays for the retry where there is a budget.
    fn decide(&mut self, error: &dyn Failure, elapsed: Duration) -> Decision {
        let Engine {
            policy,
            budget,
            hooks,
            entropy,
            ..
        } = self.engine;
        let throttled = error.is_throttling();
        let backoff = match &policy.throttle_backoff {
            Some(own) if throttled => own,
            _ => &policy.backoff,
        };
        let failed = Failed {
            transient: hooks.is_transient(error),
            retry_after: hooks.retry_after(error),
            retries: self.retries,
            elapsed,
            struck: self.struck,
            drawn: backoff.draw(self.retries, &mut entropy.rng()),
        };
        let decision = decide(&self.grant(), &failed);
        if let (Decision::Retry { .. }, Some(budget)) = (&decision, budget) {
            match budget.take(throttled) {
                Some(cost) => self.paid = cost,
                None => return Decision::GiveUp(GiveUpReason::Budget),
            }
        }
        decision
    }
}
