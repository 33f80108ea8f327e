//! The ways to make a call: bare, through this crate, and through its peers.

use crate::{
    TIMEOUT,
    server::{Again, Pace, Server, request, upstream_request},
};
use async_io::Timer;
use crabllm_retry::{
    AsyncIoTimer, RateLimiter, RetryBudget, Retrying,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    crabllm_core_0_0_25 as upstream,
};
use futures::future::{Either, select};
use futures_timer::Delay;
use std::{future::poll_fn, hint::black_box, pin::pin, sync::Mutex, time::Instant};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Timeout, timeout},
};

type Answer = Result<ChatCompletionResponse, Error>;
type UpstreamAnswer = Result<upstream::ChatCompletionResponse, upstream::Error>;
type Stream = Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error>;

/// A current-thread runtime of tokio with its timer enabled.
pub fn tokio() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// The same call to the same server, in every way.
pub struct Contenders<P: Pace> {
    request: ChatCompletionRequest,
    upstream_request: upstream::ChatCompletionRequest,
    server: Server<P>,
    ours: Retrying<Server<P>>,
    everything: Retrying<Server<Again<P>>>,
    ours_async_io: Retrying<Server<P>, AsyncIoTimer>,
    original: upstream::Retrying<Server<P>>,

    /// The lock of [`Contenders::floor`].
    list: Mutex<()>,
}

impl<P: Pace> Contenders<P> {
    pub fn new(pace: P) -> Self {
        let server = Server(pace);
        Self {
            request: request(),
            upstream_request: upstream_request(),
            server,
            ours: Retrying::new(server),
            everything: Retrying::new(Server(Again(pace)))
                .deadline(2 * TIMEOUT)
                .budget(RetryBudget::default())
                .rate_limiter(RateLimiter::adaptive())
                .observe(|event| _ = black_box(event)),
            ours_async_io: Retrying::with_timer(server, AsyncIoTimer),
            original: upstream::Retrying::new(server),
            list: Mutex::new(()),
        }
    }

    pub fn bare(&self) -> impl Future<Output = Answer> + Send {
        self.server.chat_completion(&self.request)
    }

    pub fn ours(&self) -> impl Future<Output = Answer> + Send {
        self.ours.chat_completion(&self.request)
    }

    /// With a dormant rate limiter, a budget, a deadline and an observer.
    pub fn everything(&self) -> impl Future<Output = Answer> {
        self.everything.chat_completion(&self.request)
    }

    pub fn ours_async_io(&self) -> impl Future<Output = Answer> {
        self.ours_async_io.chat_completion(&self.request)
    }

    pub fn bare_stream(&self) -> impl Future<Output = Stream> {
        self.server.chat_completion_stream(&self.request)
    }

    pub fn ours_stream(&self) -> impl Future<Output = Stream> {
        self.ours.chat_completion_stream(&self.request)
    }

    /// To be called within a runtime.
    pub fn tokio(&self) -> Timeout<impl Future<Output = Answer> + Send> {
        timeout(TIMEOUT, self.bare())
    }

    /// A bare call of the release of [`Contenders::original`].
    pub fn bare_upstream(&self) -> impl Future<Output = UpstreamAnswer> {
        upstream::Provider::chat_completion(&self.server, &self.upstream_request)
    }

    pub fn original(&self) -> impl Future<Output = UpstreamAnswer> {
        upstream::Provider::chat_completion(&self.original, &self.upstream_request)
    }

    pub async fn naive_futures_timer(&self) -> Option<Answer> {
        race(self.bare(), Delay::new(TIMEOUT)).await
    }

    pub async fn naive_async_io(&self) -> Option<Answer> {
        race(self.bare(), Timer::after(TIMEOUT)).await
    }

    /// The least that a shared list of timeouts adds to a call that pends: the clock, the
    /// list's lock to add an entry and to remove it, and a waker in between.
    pub async fn floor(&self) -> Answer {
        let mut call = pin!(self.bare());
        let mut waker = None;
        poll_fn(|cx| {
            let poll = call.as_mut().poll(cx);
            if poll.is_pending() {
                black_box(Instant::now());
                waker = black_box(Some(cx.waker().clone()));
            } else {
                drop(waker.take());
            }
            drop(black_box(self.list.lock()));
            poll
        })
        .await
    }
}

async fn race<F: Future>(call: F, expiry: impl Future + Unpin) -> Option<F::Output> {
    match select(pin!(call), expiry).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
