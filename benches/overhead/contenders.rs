//! The ways to make a call: bare, through this crate, and through its peers.

use crate::{
    TIMEOUT,
    server::{Pace, Server, request, upstream_request},
};
use async_io::Timer;
use backon::{ExponentialBuilder, FuturesTimerSleeper, Retryable};
use crabllm_retry::crabllm_core_0_0_25 as upstream;
use crabllm_retry::{
    AsyncIoTimer, Policy, RetryBudget, Retrying,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
};
use futures::future::{Either, Ready, ready, select};
use futures_timer::Delay;
use std::{
    future::poll_fn,
    hint::black_box,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::time::{Timeout, timeout};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry, service_fn};

type Answer = Result<ChatCompletionResponse, Error>;
type Stream = Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error>;

/// The same call to the same server, in every way.
pub struct Contenders<P: Pace> {
    timeout: Duration,
    request: ChatCompletionRequest,
    upstream_request: upstream::ChatCompletionRequest,
    server: Server<P>,
    ours: Retrying<Server<P>>,
    original: upstream::Retrying<Server<P>>,
    ours_async_io: Retrying<Server<P>, AsyncIoTimer>,

    /// With an observer, a budget and a deadline: all that costs something while calls
    /// succeed.
    watched: Retrying<Server<P>>,

    /// The lock of [`Contenders::floor`].
    list: Mutex<()>,
}

impl<P: Pace> Contenders<P> {
    pub fn new(pace: P) -> Self {
        Self::with_policy(pace, Policy::default())
    }

    /// Only this crate's wrappers have the policy; the naive races and tokio have its
    /// timeout.
    pub fn with_policy(pace: P, policy: Policy) -> Self {
        let server = Server(pace);
        let watched = policy.clone().deadline(2 * TIMEOUT);
        Self {
            timeout: policy.timeout,
            request: request(),
            upstream_request: upstream_request(),
            server,
            ours: Retrying::new(server).policy(policy.clone()),
            original: upstream::Retrying::new(server),
            ours_async_io: Retrying::with_timer(server, AsyncIoTimer).policy(policy),
            watched: Retrying::new(server)
                .policy(watched)
                .budget(RetryBudget::default())
                .observe(|event| {
                    black_box(event);
                }),
            list: Mutex::new(()),
        }
    }

    pub fn bare(&self) -> impl Future<Output = Answer> + Send {
        self.server.chat_completion(&self.request)
    }

    pub fn ours(&self) -> impl Future<Output = Answer> + Send {
        self.ours.chat_completion(&self.request)
    }

    pub fn bare_stream(&self) -> impl Future<Output = Stream> {
        self.server.chat_completion_stream(&self.request)
    }

    pub fn ours_stream(&self) -> impl Future<Output = Stream> {
        self.ours.chat_completion_stream(&self.request)
    }

    pub fn ours_async_io(&self) -> impl Future<Output = Answer> {
        self.ours_async_io.chat_completion(&self.request)
    }

    pub fn watched(&self) -> impl Future<Output = Answer> {
        self.watched.chat_completion(&self.request)
    }

    /// To be called within a runtime.
    pub fn tokio(&self) -> Timeout<impl Future<Output = Answer> + Send> {
        timeout(self.timeout, self.bare())
    }

    /// A bare call of the release of [`Contenders::original`].
    pub fn bare_upstream(
        &self,
    ) -> impl Future<Output = Result<upstream::ChatCompletionResponse, upstream::Error>> {
        upstream::Provider::chat_completion(&self.server, &self.upstream_request)
    }

    pub fn original(
        &self,
    ) -> impl Future<Output = Result<upstream::ChatCompletionResponse, upstream::Error>> {
        upstream::Provider::chat_completion(&self.original, &self.upstream_request)
    }

    /// A race against a fresh `futures_timer::Delay`.
    pub async fn naive_futures_timer(&self) -> Option<Answer> {
        race(self.bare(), Delay::new(self.timeout)).await
    }

    /// A race against a fresh `async_io::Timer`.
    pub async fn naive_async_io(&self) -> Option<Answer> {
        race(self.bare(), Timer::after(self.timeout)).await
    }

    /// `backon` around a race against a fresh `futures_timer::Delay`.
    pub async fn backon(&self) -> Answer {
        let attempt = || async {
            let output = self.naive_futures_timer().await;
            output.unwrap_or(Err(Error::Timeout))
        };
        attempt
            .retry(ExponentialBuilder::default())
            .sleep(FuturesTimerSleeper)
            .when(Error::is_transient)
            .await
    }

    /// `tower`'s retry around its timeout.
    pub fn tower(&self) -> impl AsyncFnMut() -> Result<ChatCompletionResponse, BoxError> {
        let (server, request) = (self.server, Arc::new(self.request.clone()));
        let mut service = ServiceBuilder::new()
            .retry(Retries(2))
            .timeout(self.timeout)
            .service(service_fn(
                move |request: Arc<ChatCompletionRequest>| async move {
                    server.chat_completion(&request).await
                },
            ));
        async move || service.ready().await?.call(request.clone()).await
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

/// The number of retries left.
#[derive(Clone)]
struct Retries(u32);

impl<Q: Clone, R> retry::Policy<Q, R, BoxError> for Retries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Q, result: &mut Result<R, BoxError>) -> Option<Ready<()>> {
        let error = result.as_ref().err()?;
        let transient = error
            .downcast_ref::<Error>()
            .is_none_or(Error::is_transient);
        self.0 = self.0.checked_sub(1).filter(|_| transient)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }
}
