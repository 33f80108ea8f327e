//! The loop around the attempts of one call.

use crate::{
    Event, Failure, GiveUpReason, Operation, Policy, RetryBudget, Timer,
    attempt::{Attempt, Winner},
    backoff::Entropy,
    deadlines::Deadlines,
    decision::{Decision, Failed, Grant, decide},
    hooks::Hooks,
    policy::Policies,
    timeout::Timeout,
    timer::{Instant, Sleep},
};
use futures::ready;
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Everything that a call needs besides its provider.
pub(crate) struct Engine<T> {
    /// The timer, and who waits for it: attempts, and open streams.
    pub(crate) deadlines: Arc<Deadlines<T>>,

    pub(crate) policies: Policies,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) hooks: Hooks,
    pub(crate) entropy: Entropy,
}

impl<T> Clone for Engine<T> {
    fn clone(&self) -> Self {
        Self {
            deadlines: self.deadlines.clone(),
            policies: self.policies.clone(),
            budget: self.budget.clone(),
            hooks: self.hooks.clone(),
            entropy: self.entropy.clone(),
        }
    }
}

impl<T: Timer> Engine<T> {
    pub(crate) fn new(timer: T) -> Self {
        Self {
            deadlines: Deadlines::new(timer),
            policies: Policies::default(),
            budget: None,
            hooks: Hooks::default(),
            entropy: Entropy::default(),
        }
    }

    pub(crate) fn timer(&self) -> &T {
        self.deadlines.timer()
    }

    /// Makes attempts with `start` until one succeeds or the policy gives up.
    pub(crate) fn call<O, E: Failure, F>(
        &self,
        operation: Operation,
        model: Option<&str>,
        start: impl FnMut() -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        Call {
            progress: Progress::new(self, operation, model),
            start,
            step: Step::Start,
        }
    }
}

pin_project! {
    /// The attempts of a call, one after the other, and the delays between them.
    ///
    /// It is written out rather than an `async` block: that would keep twice as
    /// much for each call, and move each answer four times.
    struct Call<'e, 'm, T: Timer, S, F> {
        progress: Progress<'e, 'm, T>,
        start: S,

        #[pin]
        step: Step<'e, T, F>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<'e, T: Timer, F> {
        // Before the next attempt, or the first.
        Start,

        Attempt { #[pin] attempt: Attempt<F, Timeout<T, &'e Deadlines<T>>> },
        Delay { #[pin] delay: Sleep<T::Sleep> },

        // The caller has its answer, and no reason to poll again.
        Done,
    }
}

impl<T: Timer, S, F, O, E: Failure> Future for Call<'_, '_, T, S, F>
where
    S: FnMut() -> F,
    F: Future<Output = Result<O, E>>,
{
    type Output = Result<O, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let progress = this.progress;
        loop {
            match this.step.as_mut().project() {
                StepProjection::Start => {
                    progress.begin();
                    let attempt = Attempt::new((this.start)());
                    this.step.set(Step::Attempt { attempt });
                }
                StepProjection::Attempt { mut attempt } => {
                    let answer = attempt.as_mut().answer(cx);
                    let timeout = || progress.timeout();
                    let winner = ready!(attempt.race(answer.is_ready(), timeout, cx));
                    // The attempt is dropped before anything else happens.
                    this.step.set(Step::Done);
                    let error = match winner {
                        Winner::Timeout => progress.timed_out(),
                        Winner::Answer => match answer {
                            Poll::Ready(Err(error)) => error,
                            // Where there is no answer, it does not win.
                            Poll::Ready(Ok(_)) | Poll::Pending => {
                                progress.succeeded();
                                return answer;
                            }
                        },
                    };
                    match progress.failed(&error) {
                        Some(delay) => {
                            let delay = Sleep::new(progress.engine.timer(), delay);
                            this.step.set(Step::Delay { delay });
                        }
                        None => return Poll::Ready(Err(error)),
                    }
                }
                StepProjection::Delay { delay } => {
                    ready!(delay.poll(cx));
                    this.step.set(Step::Start);
                }
                StepProjection::Done => return Poll::Pending,
            }
        }
    }
}

/// What is known of a call, besides the step that it is at.
struct Progress<'e, 'm, T> {
    engine: &'e Engine<T>,
    policy: &'e Policy,
    operation: Operation,
    model: Option<&'m str>,

    /// The start of the first attempt, where somebody asks for the time since.
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

impl<'e, 'm, T: Timer> Progress<'e, 'm, T> {
    fn new(engine: &'e Engine<T>, operation: Operation, model: Option<&'m str>) -> Self {
        Self {
            engine,
            policy: engine.policies.of(model),
            operation,
            model,
            began: None,
            retries: 0,
            paid: 0,
            cut: false,
            struck: false,
        }
    }

    /// Takes the time of the first attempt, if anybody will ask for it.
    #[inline]
    fn begin(&mut self) {
        let first = self.retries == 0;
        if first && (self.engine.hooks.observer.is_some() || self.grant().deadline.is_some()) {
            self.began = Some(self.engine.timer().now());
        }
    }

    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| {
            self.engine.timer().now().saturating_duration_since(began)
        })
    }

    /// The timeout of the attempt that has to wait now, cut to what is left of
    /// the deadline.
    fn timeout(&mut self) -> Timeout<T, &'e Deadlines<T>> {
        // The first attempt has to wait from the very poll in which the call
        // began. A deadline among others can be counted from there, which saves
        // a look at the clock; a sleep is counted from now.
        let shareable = self.engine.timer().is_shareable();
        let now = self.began.filter(|_| self.retries == 0 && shareable);
        let elapsed = || match now {
            Some(_) => Duration::ZERO,
            None => self.elapsed(),
        };
        let Grant {
            timeout, deadline, ..
        } = self.grant();
        let left = deadline.map(|deadline| deadline.saturating_sub(elapsed()));
        self.cut = left.is_some_and(|left| timeout.is_none_or(|timeout| left <= timeout));
        let bound = if self.cut { left } else { timeout };
        Timeout::new(&*self.engine.deadlines, bound, now)
    }

    /// The error of an attempt whose timeout has passed.
    fn timed_out<E: Failure>(&mut self) -> E {
        self.struck = self.cut;
        E::timeout()
    }

    /// What the policy grants; cheaper to make anew than to keep.
    fn grant(&self) -> Grant {
        Grant::new(self.policy, self.operation)
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
            budget,
            hooks,
            entropy,
            ..
        } = self.engine;
        let transient = hooks.is_transient(error);
        let throttled = error.is_throttling();
        let backoff = match &self.policy.throttle_backoff {
            Some(own) if throttled => own,
            _ => &self.policy.backoff,
        };
        let failed = Failed {
            transient,
            // It may be read from a long body, so not where it changes nothing.
            retry_after: transient.then(|| hooks.retry_after(error)).flatten(),
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
