//! Makes one call, as its script says.

use crate::{
    consumer::{self, Consumed},
    log::{Hint, Log, OnPurpose, Refusal},
    script::{Cancel, SLOW, Script},
    waker::CallWakers,
    wire::question,
};
use crabllm_retry::{
    Failure, Retrying, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider},
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Somebody who makes one call.
pub struct Caller<P, T> {
    pub wrapper: Arc<Retrying<P, T>>,
    pub timer: T,
    pub log: Arc<Log>,
    pub script: Script,
    pub call: usize,
    pub signs: Signs,
}

/// Identifies the attempt that an answer or an error comes from.
#[derive(Clone, Copy)]
pub struct Signs {
    /// Whether answers and items carry their numbers.
    pub numbered: bool,
    /// The user that requests name.
    pub user: fn(&Script) -> Option<String>,
    /// From which call and attempt an error comes.
    pub origin: fn(&dyn Failure) -> Option<(usize, usize)>,
    pub hint: Hint,
}

/// The outcome of a call.
#[derive(Debug)]
pub struct Ended {
    pub began: Duration,
    pub ended: Duration,
    pub end: End,
}

#[derive(Debug, PartialEq)]
pub enum End {
    /// Answered; by this attempt, where answers are numbered.
    Answered(Option<usize>),
    Failed(Refusal),
    Streamed(Consumed),
    /// Dropped by its caller.
    Cancelled,
    Panicked,
    /// Got something that was never meant for it, or panicked on no purpose.
    Wrong(String),
}

impl<P: Provider + 'static, T: Timer + Clone> Caller<P, T> {
    pub async fn run(self) -> Ended {
        let (log, timer, call) = (self.log.clone(), self.timer.clone(), self.call);
        log.record(call).observer_panics_at = self.script.observer_panics_at;
        let now = || log.time(timer.now());
        let began = now();
        let end = match self.script.cancel {
            Some(Cancel::Unpolled) => {
                drop(self.wrapper.chat_completion(&self.request()));
                End::Cancelled
            }
            Some(Cancel::After(time)) => {
                let limit = sleep(timer.clone(), time).boxed();
                guarded(self.make().boxed(), Some(limit), &log, call).await
            }
            _ => guarded(self.make().boxed(), None, &log, call).await,
        };
        let ended = now();
        Ended { began, ended, end }
    }

    async fn make(self) -> End {
        let request = self.request();
        if self.script.streams {
            return self.stream(&request).await;
        }
        match self.wrapper.chat_completion(&request).await {
            Ok(answer) if answer.model != request.model => {
                End::Wrong(format!("the answer to call {}", answer.model))
            }
            Ok(answer) => End::Answered(self.signs.numbered.then_some(answer.created as usize)),
            Err(error) => self.refused(&error),
        }
    }

    async fn stream(self, request: &ChatCompletionRequest) -> End {
        let items = match self.wrapper.chat_completion_stream(request).await {
            Ok(items) => items,
            Err(error) => return self.refused(&error),
        };
        let Self {
            wrapper,
            timer,
            log,
            script,
            signs,
            ..
        } = self;
        // Where it was the only one, the stream outlives its wrapper.
        drop(wrapper);
        let now = || log.time(timer.now());
        let pause = || match script.slow {
            true => timer.sleep(SLOW).boxed(),
            false => async {}.boxed(),
        };
        let wanted = match script.cancel {
            Some(Cancel::Items(wanted)) => wanted,
            _ => usize::MAX,
        };
        let reading = consumer::read(items, &request.model, signs.numbered, wanted, now, pause);
        match reading.await {
            Ok(consumed) => End::Streamed(consumed),
            Err(wrong) => End::Wrong(wrong),
        }
    }

    /// The end of a call with an error, which must be from its own last attempt.
    fn refused(&self, error: &Error) -> End {
        let last = self.log.record(self.call).attempts.len() - 1;
        match (self.signs.origin)(error) {
            Some(origin) if origin != (self.call, last) => {
                End::Wrong(format!("the error of attempt {origin:?}"))
            }
            _ => End::Failed(Refusal::of(error, self.signs.hint)),
        }
    }

    fn request(&self) -> ChatCompletionRequest {
        let user = (self.signs.user)(&self.script);
        question(&self.call.to_string(), "", user)
    }
}

/// Drives a call to its end, or until `limit`; whatever ends it, it is dropped by then.
async fn guarded(
    mut call: BoxFuture<'static, End>,
    mut limit: Option<BoxFuture<'static, ()>>,
    log: &Log,
    number: usize,
) -> End {
    let mut wakers = CallWakers::default();
    let end = poll_fn(|cx| {
        let (waker, new) = wakers.waker(cx.waker());
        log.record(number).wakers.extend(new);
        let cx = &mut Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
            Ok(Poll::Ready(end)) => Poll::Ready(end),
            Err(panic) => Poll::Ready(panicked(&*panic)),
            Ok(Poll::Pending) => match &mut limit {
                Some(limit) => limit.as_mut().poll(cx).map(|()| End::Cancelled),
                None => Poll::Pending,
            },
        }
    });
    end.await
}

fn panicked(panic: &(dyn Any + Send)) -> End {
    if panic.is::<OnPurpose>() {
        return End::Panicked;
    }
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    End::Wrong(format!("a panic: {}", text.unwrap_or_default()))
}

async fn sleep(timer: impl Timer, duration: Duration) {
    if !duration.is_zero() {
        timer.sleep(duration).await;
    }
}
