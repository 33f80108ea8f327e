//! Other ways to limit the time of a call, and to retry it.

use crate::TIMEOUT;
use async_io::Timer;
use backon::{ExponentialBuilder, FuturesTimerSleeper, Retryable};
use crabllm_retry::crabllm_core_0_0_19::{
    ChatCompletionRequest, ChatCompletionResponse, Error, Provider,
};
use futures::future::{Either, Ready, ready, select};
use futures_timer::Delay;
use std::{pin::pin, sync::Arc, time::Duration};
use tower::{BoxError, Service, ServiceBuilder, retry::Policy, service_fn};

/// A race against a fresh `futures_timer::Delay`.
pub async fn naive_futures_timer<F: Future>(call: F, timeout: Duration) -> Option<F::Output> {
    race(call, Delay::new(timeout)).await
}

/// A race against a fresh `async_io::Timer`.
pub async fn naive_async_io<F: Future>(call: F, timeout: Duration) -> Option<F::Output> {
    race(call, Timer::after(timeout)).await
}

async fn race<F: Future>(call: F, expiry: impl Future + Unpin) -> Option<F::Output> {
    match select(pin!(call), expiry).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// `backon` around a race against a fresh `futures_timer::Delay`.
pub async fn backon(
    provider: &impl Provider,
    request: &ChatCompletionRequest,
) -> Result<ChatCompletionResponse, Error> {
    let attempt = || async {
        let call = provider.chat_completion(request);
        let output = naive_futures_timer(call, TIMEOUT).await;
        output.unwrap_or(Err(Error::Timeout))
    };
    attempt
        .retry(ExponentialBuilder::default())
        .sleep(FuturesTimerSleeper)
        .when(Error::is_transient)
        .await
}

/// `tower`'s retry around its timeout.
pub fn tower<P: Provider + 'static>(
    provider: P,
) -> impl Service<Arc<ChatCompletionRequest>, Response = ChatCompletionResponse, Error = BoxError> {
    let provider = Arc::new(provider);
    ServiceBuilder::new()
        .retry(Retries(2))
        .timeout(TIMEOUT)
        .service(service_fn(move |request: Arc<ChatCompletionRequest>| {
            let provider = provider.clone();
            async move { provider.chat_completion(&request).await }
        }))
}

/// How many retries are left.
#[derive(Clone)]
struct Retries(u32);

impl<Q: Clone, R> Policy<Q, R, BoxError> for Retries {
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
