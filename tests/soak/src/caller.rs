//! Makes one call, as its script says.

use crate::{
    log::{CURRENT, Log, OnPurpose, Outcome},
    recorder::Recorder,
    wire::question,
};
use crabllm_retry::{
    Operation, Policy, Retrying, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, poll};
use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// A wrapper and the record of its calls.
#[derive(Clone)]
pub struct Caller<P, T> {
    pub wrapper: Retrying<Recorder<P>, T>,
    pub policy: Policy,
    pub timer: T,
    pub log: Arc<Log>,
}

impl<P: Provider + Clone + 'static, T: Timer + Clone> Caller<P, T> {
    pub fn new(inner: P, policy: Policy, timer: T, log: &Arc<Log>) -> Self {
        let observer = log.clone();
        let recorder = Recorder {
            inner,
            log: log.clone(),
            commits: policy.retry.contains(Operation::ChatCompletionStream)
                || !policy.first_content.is_zero(),
        };
        Self {
            wrapper: Retrying::with_timer(recorder, timer.clone())
                .policy(policy.clone())
                .observe(move |event| observer.observe(event)),
            policy,
            timer,
            log: log.clone(),
        }
    }

    /// Makes a call by a clone of the wrapper, and records its outcome.
    pub async fn call(mut self, number: usize) {
        let (log, script) = (self.log.clone(), self.log.call(number).script);
        if script.own_timer {
            self.wrapper = self.wrapper.timer(self.timer.clone());
        }
        if script.limited {
            self.wrapper = self.wrapper.rate_limiter(log.limiter.clone());
        }
        log.call(number).began = (log.now)();
        let call = async move {
            let model = (script.seed % 5).to_string();
            let request = question(&model, "", Some(script.seed.to_string()));
            let outcome = match script.streams {
                true => self.stream(&request).await,
                false => self.chat(&request).await,
            };
            outcome.unwrap_or(Outcome::Failed)
        };
        let outcome = until_cancelled(number, call.boxed(), script.cancel_at, &log.wakers).await;
        let ended = (log.now)();
        let mut call = log.call(number);
        (call.ended, call.outcome) = (ended, Some(outcome));
    }

    async fn chat(self, request: &ChatCompletionRequest) -> Result<Outcome, Error> {
        let answer = self.wrapper.chat_completion(request).await?;
        self.log.read(&answer.id, answer.content());
        Ok(Outcome::Answered)
    }

    async fn stream(self, request: &ChatCompletionRequest) -> Result<Outcome, Error> {
        let pause = self.log.current().script.pause;
        let mut items = self.wrapper.chat_completion_stream(request).await?;
        drop(self.wrapper);
        let last = loop {
            if !pause.is_zero() {
                self.timer.sleep(pause).await;
            }
            self.log.current().waits_since = (self.log.now)();
            match items.next().await {
                Some(Ok(chunk)) => self.log.read(&chunk.id, chunk.content()),
                last => break last,
            }
        };
        let after = [poll!(items.next()), poll!(items.next())];
        Ok(match last {
            _ if !matches!(after, [Poll::Ready(None), Poll::Ready(None)]) => Outcome::Unexpected,
            None => Outcome::Answered,
            Some(Err(Error::Timeout)) => Outcome::Stalled,
            Some(_) => Outcome::BrokeOff,
        })
    }
}

/// Drives a call to its end or its cancellation, and drops it.
async fn until_cancelled(
    number: usize,
    mut call: BoxFuture<'static, Outcome>,
    cancel_at: Option<usize>,
    wakers: &Arc<()>,
) -> Outcome {
    let mut half_polls = 0;
    let mut last: Option<Arc<CallWaker>> = None;
    let outcome = poll_fn(|cx| {
        if cancel_at == Some(half_polls) {
            return Poll::Ready(Outcome::Cancelled);
        }
        let reused = last.take().filter(|last| last.task.will_wake(cx.waker()));
        let waker = last.insert(reused.unwrap_or_else(|| {
            let (task, _counted) = (cx.waker().clone(), wakers.clone());
            Arc::new(CallWaker { task, _counted })
        }));
        let waker = Waker::from(waker.clone());
        CURRENT.set(number);
        let poll = || call.as_mut().poll(&mut Context::from_waker(&waker));
        let poll = catch_unwind(AssertUnwindSafe(poll));
        half_polls += 2;
        let dropped = cancel_at == Some(half_polls - 1);
        match poll {
            Ok(Poll::Pending) if dropped => Poll::Ready(Outcome::Cancelled),
            Ok(poll) => poll,
            Err(panic) if panic.is::<OnPurpose>() => Poll::Ready(Outcome::Panicked),
            Err(_) => Poll::Ready(Outcome::Unexpected),
        }
    });
    outcome.await
}

/// A waker for one call only: as long as somebody has it, the call is not forgotten.
struct CallWaker {
    task: Waker,
    _counted: Arc<()>,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.task.wake_by_ref();
    }
}
