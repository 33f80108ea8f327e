//! The loop around the attempts of one call.

use crate::{
    Event, Failure, GiveUpReason, Operation, Policy, RetryBudget, Timer,
    attempt::Attempt,
    backoff::Entropy,
    budget::Payment,
    deadlines::Deadlines,
    decision::{Decision, Failed, Grant, decide},
    hooks::Hooks,
    policy::Policies,
    timeout::Wait,
    timer::Instant,
};
use futures::{future::Either, ready};
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
    /// much for each call, and move each answer more often.
    struct Call<'e, 'm, T: Timer, S, F, E> {
        progress: Progress<'e, 'm, T>,
        start: S,

        #[pin]
        step: Step<'e, T, F, E>,
    }
}

pin_project! {
    #[project = StepProjection]
    #[project_replace = TakenStep]
    enum Step<'e, T: Timer, F, E> {
        // Before the first attempt.
        Start,

        Attempt { #[pin] attempt: Attempt<F, Wait<T, &'e Deadlines<T>>> },

        // Before the next attempt, which is paid for.
        Delay {
            #[pin]
            wait: Wait<T, &'e Deadlines<T>>,
            error: E,
            payment: Option<Payment<'e>>,
        },

        // The caller has its answer, and no reason to poll again.
        Done,
    }
}

impl<T: Timer, S, F, O, E: Failure> Future for Call<'_, '_, T, S, F, E>
where
    S: FnMut() -> F,
    F: Future<Output = Result<O, E>>,
{
    type Output = Result<O, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let progress = this.progress;
        let mut failed_in_this_poll = false;
        loop {
            match this.step.as_mut().project() {
                StepProjection::Start => {
                    progress.begin();
                    let attempt = Attempt::new((this.start)());
                    this.step.set(Step::Attempt { attempt });
                }
                StepProjection::Attempt { attempt } => {
                    let mut race = attempt.race(|| progress.timeout());
                    // Whatever wins, the attempt is dropped before anything else
                    // happens.
                    let error = match ready!(Pin::new(&mut race).poll(cx)) {
                        Either::Left((Ok(answer), _)) => {
                            this.step.set(Step::Done);
                            progress.succeeded();
                            return Poll::Ready(Ok(answer));
                        }
                        Either::Left((Err(error), _)) => {
                            this.step.set(Step::Done);
                            error
                        }
                        Either::Right(_) => {
                            this.step.set(Step::Done);
                            progress.timed_out()
                        }
                    };
                    match progress.failed(&error) {
                        Some((delay, payment)) => {
                            let wait = Wait::new(&*progress.engine.deadlines, Some(delay));
                            this.step.set(Step::Delay {
                                wait,
                                error,
                                payment,
                            });
                            failed_in_this_poll = true;
                        }
                        None => return Poll::Ready(Err(error)),
                    }
                }
                StepProjection::Delay { wait, .. } => {
                    ready!(wait.poll(cx));
                    // However short the delay, other tasks have their turn.
                    if failed_in_this_poll {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let taken = this.step.as_mut().project_replace(Step::Done);
                    let TakenStep::Delay { error, payment, .. } = taken else {
                        return Poll::Pending;
                    };
                    if progress.is_past_the_deadline() {
                        drop(payment);
                        progress.gave_up(&error, progress.elapsed(), GiveUpReason::Deadline);
                        return Poll::Ready(Err(error));
                    }
                    progress.resume(payment);
                    let attempt = Attempt::new((this.start)());
                    this.step.set(Step::Attempt { attempt });
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

    /// The start of the call, if an observer or a deadline needs it.
    began: Option<Instant>,

    /// The retries that have started.
    retries: u32,

    /// What the last retry took from the budget.
    paid: u32,

    /// Whether the timeout of this attempt is what the deadline leaves.
    capped_by_deadline: bool,

    /// Whether the deadline has ended an attempt.
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
            capped_by_deadline: false,
            struck: false,
        }
    }

    /// Records the start of the call if an observer or a deadline needs it.
    #[inline]
    fn begin(&mut self) {
        if self.engine.hooks.observer.is_some() || self.grant().deadline.is_some() {
            self.began = Some(self.engine.timer().now());
        }
    }

    /// Starts a retry: from here on its cost is spent.
    fn resume(&mut self, payment: Option<Payment<'e>>) {
        self.paid = payment.map_or(0, Payment::spend);
        self.retries += 1;
    }

    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| {
            self.engine.timer().now().saturating_duration_since(began)
        })
    }

    fn is_past_the_deadline(&self) -> bool {
        let deadline = self.grant().deadline;
        deadline.is_some_and(|deadline| self.elapsed() >= deadline)
    }

    /// The timeout of an attempt that was found pending now: at most what is left
    /// of the deadline.
    #[inline]
    fn timeout(&mut self) -> Wait<T, &'e Deadlines<T>> {
        let Grant {
            timeout, deadline, ..
        } = self.grant();
        let left = deadline.map(|deadline| deadline.saturating_sub(self.elapsed()));
        self.capped_by_deadline =
            left.is_some_and(|left| timeout.is_none_or(|timeout| left <= timeout));
        let bound = if self.capped_by_deadline {
            left
        } else {
            timeout
        };
        Wait::new(&*self.engine.deadlines, bound)
    }

    /// The error of an attempt whose timeout has passed.
    fn timed_out<E: Failure>(&mut self) -> E {
        self.struck = self.capped_by_deadline;
        E::timeout()
    }

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

    /// The delay before the next attempt and what that has cost, or `None` to
    /// return the error.
    #[cold]
    fn failed(&mut self, error: &dyn Failure) -> Option<(Duration, Option<Payment<'e>>)> {
        let elapsed = self.elapsed();
        let throttled = error.is_throttling();
        let decision = self.decide(error, throttled, elapsed);
        let (decision, payment) = self.pay(decision, throttled);
        match decision {
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
                Some((delay, payment))
            }
            Decision::GiveUp(why) => {
                self.gave_up(error, elapsed, why);
                None
            }
        }
    }

    fn gave_up(&self, error: &dyn Failure, elapsed: Duration, why: GiveUpReason) {
        self.engine.hooks.tell(|| Event::GaveUp {
            operation: self.operation,
            model: self.model,
            attempt: self.attempt(),
            elapsed,
            error,
            why,
        });
    }

    fn decide(&self, error: &dyn Failure, throttled: bool, elapsed: Duration) -> Decision {
        let Engine { hooks, entropy, .. } = self.engine;
        let transient = hooks.is_transient(error);
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
        decide(&self.grant(), &failed)
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
}
