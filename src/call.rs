//! The loop around the attempts of one call.

mod attempt;
mod decision;
mod entropy;
mod hooks;
mod progress;
mod stream;

pub use entropy::Entropy;
pub use hooks::Hooks;
pub use stream::Items;

use crate::{
    failure::Failure,
    limits::{Payment, RetryBudget},
    policy::{Operation, Policies},
    timer::{SharedTimer, Timer, Wait},
};
use attempt::Attempt;
use futures::{FutureExt, future::Either, ready, stream::BoxStream};
use pin_project_lite::pin_project;
use progress::Progress;
use std::{
    error::Error,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use stream::OpenStream;

/// Everything a call needs except its provider. Clones of a wrapper share the timer,
/// budget and hooks.
pub struct Engine<T> {
    pub timer: Arc<SharedTimer<T>>,
    pub policies: Policies,
    pub budget: Option<RetryBudget>,
    pub hooks: Hooks,
    pub entropy: Entropy,
}

impl<T> Clone for Engine<T> {
    fn clone(&self) -> Self {
        Self {
            timer: self.timer.clone(),
            policies: self.policies.clone(),
            budget: self.budget.clone(),
            hooks: self.hooks.clone(),
            entropy: self.entropy.clone(),
        }
    }
}

impl<T> Engine<T> {
    pub fn with_timer<U: Timer>(self, timer: U) -> Engine<U> {
        Engine {
            timer: SharedTimer::new(timer),
            policies: self.policies,
            budget: self.budget,
            hooks: self.hooks,
            entropy: self.entropy,
        }
    }
}

impl<T: Timer> Engine<T> {
    pub fn new(timer: T) -> Self {
        Self {
            timer: SharedTimer::new(timer),
            policies: Policies::default(),
            budget: None,
            hooks: Hooks::default(),
            entropy: Entropy::default(),
        }
    }

    /// Calls `start` for each attempt, until one succeeds or the call gives up.
    pub fn call<'e, 'm, S, F, O, E: Failure>(
        &'e self,
        operation: &'m Operation,
        model: Option<&'m str>,
        start: S,
    ) -> Call<'e, 'm, T, S, F, E>
    where
        S: FnMut() -> F,
        F: Future<Output = Result<O, E>>,
    {
        let policy = self.policies.of(model);
        Call {
            progress: Progress::new(self, policy, operation, model),
            start,
            step: Step::Start,
        }
    }

    /// Opens a stream as [`call`](Self::call) does, and limits its silence. If the policy
    /// commits streams, an attempt lasts until the first content.
    pub fn open<I, S, E, F>(
        &self,
        operation: Operation,
        model: Option<&str>,
        rules: Items<I, S, E>,
        start: impl FnMut() -> F,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>
    where
        I: Send + 'static,
        S: Error + Send + Sync + 'static,
        E: Failure,
        F: Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>,
    {
        let opening = async move {
            let mut call = pin!(self.call(&operation, model, start));
            call.as_mut().project().progress.commits_streams();
            loop {
                let items = call.as_mut().await?;
                let progress = call.as_mut().project().progress;
                let mut stream = Box::pin(OpenStream::new(progress, &rules, items));
                if progress.commits {
                    let outcome = progress
                        .committed(pin!(stream.as_mut().commit(&rules)))
                        .await;
                    if let Err((error, timed_out)) = outcome {
                        call.as_mut().fail(error, timed_out);
                        continue;
                    }
                    stream.as_mut().limit_idle(progress.policy.idle_limit());
                    progress.succeeded();
                }
                return Ok(stream as BoxStream<'static, _>);
            }
        };
        opening.fuse()
    }
}

pin_project! {
    /// The attempts of a call, one after the other, and the delays between them.
    ///
    /// Written by hand: an `async` block would make each call twice as large and move
    /// each answer more often.
    pub struct Call<'e, 'm, T: Timer, S, F, E> {
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

        Attempt { #[pin] attempt: Attempt<F, Wait<T, &'e SharedTimer<T>>> },

        // After an attempt, which is dropped.
        Failed { error: E, timed_out: bool },

        // Before a retry, whose cost is paid.
        Delay {
            #[pin]
            wait: Wait<T, &'e SharedTimer<T>>,
            error: E,
            payment: Option<Payment<'e>>,
        },

        // The result has been returned.
        Done,
    }
}

impl<T: Timer, S, F, E> Call<'_, '_, T, S, F, E> {
    /// Fails the attempt whose answer was not good enough; the next poll goes on.
    fn fail(self: Pin<&mut Self>, error: E, timed_out: bool) {
        self.project().step.set(Step::Failed { error, timed_out });
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
        if let StepProjection::Start = this.step.as_mut().project() {
            progress.begin();
            let attempt = Attempt::new((this.start)());
            this.step.set(Step::Attempt { attempt });
        }
        let mut failed_in_this_poll = false;
        loop {
            match this.step.as_mut().project() {
                StepProjection::Attempt { attempt } => {
                    let mut race = attempt.race(|place, cx| progress.start_timeout(place, cx));
                    // The attempt is dropped before anything else happens.
                    let (error, timed_out) = match ready!(Pin::new(&mut race).poll(cx)) {
                        Either::Left((Ok(answer), _)) => {
                            this.step.set(Step::Done);
                            if !progress.commits {
                                progress.succeeded();
                            }
                            return Poll::Ready(Ok(answer));
                        }
                        Either::Left((Err(error), _)) => (error, false),
                        Either::Right(_) => (E::timeout(), true),
                    };
                    this.step.set(Step::Failed { error, timed_out });
                }
                StepProjection::Failed { .. } => {
                    let step = this.step.as_mut().project_replace(Step::Done);
                    let TakenStep::Failed { error, timed_out } = step else {
                        return Poll::Pending;
                    };
                    let Some((delay, payment)) = progress.failed(&error, timed_out) else {
                        return Poll::Ready(Err(error));
                    };
                    let wait = Wait::new(&*progress.engine.timer, Some(delay), cx.waker());
                    this.step.set(Step::Delay {
                        wait,
                        error,
                        payment,
                    });
                    failed_in_this_poll = true;
                }
                StepProjection::Delay { wait, .. } => {
                    ready!(wait.poll(cx));
                    // Every delay yields once, however short.
                    if failed_in_this_poll {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let step = this.step.as_mut().project_replace(Step::Done);
                    if let TakenStep::Delay { error, payment, .. } = step {
                        if !progress.resume(&error, payment) {
                            return Poll::Ready(Err(error));
                        }
                        let attempt = Attempt::new((this.start)());
                        this.step.set(Step::Attempt { attempt });
                    }
                }
                StepProjection::Start | StepProjection::Done => return Poll::Pending,
            }
        }
    }
}
