//! The loop around the attempts of one call.

mod attempt;
mod decision;
mod entropy;
mod hooks;
mod model;
mod progress;
mod stream;
mod turn;

pub use entropy::Entropy;
pub use hooks::Hooks;
pub use model::CallModel;
#[cfg(feature = "_provider")]
pub use model::RawBody;
pub use stream::Items;

use crate::{
    failure::Failure,
    limits::{Payment, Place, RateLimiter, RetryBudget},
    policy::{Operation, Policies},
    timer::{Instant, SharedTimer, Timer, Wait},
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
use turn::Turn;

/// Everything a call needs except its provider. Clones of a wrapper share the timer,
/// limits and hooks.
pub struct Engine<T> {
    pub timer: Arc<SharedTimer<T>>,
    pub policies: Policies,
    pub budget: Option<RetryBudget>,
    pub limiter: Option<RateLimiter>,
    pub hooks: Hooks,
    pub entropy: Entropy,
}

impl<T> Clone for Engine<T> {
    fn clone(&self) -> Self {
        Self {
            timer: self.timer.clone(),
            policies: self.policies.clone(),
            budget: self.budget.clone(),
            limiter: self.limiter.clone(),
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
            limiter: self.limiter,
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
            limiter: None,
            hooks: Hooks::default(),
            entropy: Entropy::default(),
        }
    }

    /// Calls `start` for each attempt, until one succeeds or the call gives up.
    #[inline]
    pub fn call<'e, 'm, S, F, O, E: Failure>(
        &'e self,
        operation: &'m Operation,
        model: CallModel<'m>,
        start: S,
    ) -> Call<'e, 'm, T, S, F, E>
    where
        S: FnMut() -> F,
        F: Future<Output = Result<O, E>>,
    {
        let policy = self.policies.of(model.name());
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
        model: CallModel<'_>,
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
            let mut pending_since = None;
            let mut call = pin!(self.call(&operation, model, start));
            let progress = call.as_mut().project().progress;
            if progress.policy.commits(operation) {
                progress.commit = Some(&mut pending_since);
            }
            loop {
                let items = call.as_mut().await?;
                let progress = call.as_mut().project().progress;
                let mut stream = Box::pin(OpenStream::new(progress, &rules, items));
                if progress.commit.is_some() {
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
            next: Next<'e, E>,
        },

        // Before an attempt that needs a turn. In a box, which keeps other calls small.
        Turn { waiting: Pin<Box<Waiting<'e, T, E>>> },

        // The result has been returned.
        Done,
    }
}

/// An attempt that has not started.
struct Next<'e, E> {
    /// The failure of the last one.
    error: Option<E>,
    payment: Option<Payment<'e>>,
}

pin_project! {
    struct Waiting<'e, T: Timer, E> {
        #[pin]
        turn: Turn<'e, T>,
        next: Option<Next<'e, E>>,
    }
}

impl<'e, T: Timer, F: Future, E: Failure> Step<'e, T, F, E> {
    /// Starts an attempt, or waits for its turn before. Fails if the deadline has passed.
    #[cold]
    fn go_on(
        mut self: Pin<&mut Self>,
        progress: &mut Progress<'e, '_, T>,
        start: impl FnMut() -> F,
        next: Next<'e, E>,
        cx: &Context<'_>,
    ) -> Result<(), E> {
        match progress.ask_for_turn(cx.waker()) {
            None => self.start(progress, start, next, None)?,
            Some(turn) => {
                let next = Some(next);
                let waiting = Box::pin(Waiting { turn, next });
                self.set(Step::Turn { waiting });
            }
        }
        Ok(())
    }

    /// Starts an attempt, in its turn if it needs one. Fails if the deadline has passed.
    #[cold]
    fn start(
        mut self: Pin<&mut Self>,
        progress: &mut Progress<'e, '_, T>,
        mut start: impl FnMut() -> F,
        Next { error, payment }: Next<'e, E>,
        turn: Option<(Box<dyn Place>, Option<Instant>)>,
    ) -> Result<(), E> {
        if progress.is_late() {
            drop((turn, payment));
            return Err(progress.gave_up_late(error));
        }
        progress.resume(payment, turn);
        let attempt = Attempt::new(start());
        self.set(Step::Attempt { attempt });
        Ok(())
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
            if progress.is_limited() {
                this.step.set(Step::Done);
                let (error, payment) = (None, None);
                let next = Next { error, payment };
                this.step
                    .as_mut()
                    .go_on(progress, &mut *this.start, next, cx)?;
            } else {
                progress.begin_attempt();
                let attempt = Attempt::new((this.start)());
                this.step.set(Step::Attempt { attempt });
            }
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
                            if progress.commit.is_none() {
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
                    let error = Some(error);
                    let next = Next { error, payment };
                    this.step.set(Step::Delay { wait, next });
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
                    if let TakenStep::Delay { next, .. } = step {
                        let step = this.step.as_mut();
                        step.go_on(progress, &mut *this.start, next, cx)?;
                    }
                }
                StepProjection::Turn { waiting } => {
                    let waiting = waiting.as_mut().project();
                    let since = waiting.turn.waits_since;
                    let place = ready!(waiting.turn.poll(cx));
                    let next = waiting.next.take();
                    this.step.set(Step::Done);
                    let Some(next) = next else {
                        return Poll::Pending;
                    };
                    let Some(place) = place else {
                        drop(next.payment);
                        return Poll::Ready(Err(progress.gave_up_late(next.error)));
                    };
                    let turn = Some((place, since));
                    let step = this.step.as_mut();
                    step.start(progress, &mut *this.start, next, turn)?;
                }
                StepProjection::Start | StepProjection::Done => return Poll::Pending,
            }
        }
    }
}
