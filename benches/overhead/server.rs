//! The inner provider, for both releases of the trait.

use crabllm_retry::crabllm_core_0_0_19 as core;
use crabllm_retry::crabllm_core_0_0_25 as upstream;
use futures::stream::{self, BoxStream};
use std::{
    future::{pending, poll_fn},
    hint::black_box,
    task::Poll,
};

/// The length of every stream.
pub const ITEMS: usize = 10_000;

/// The time that an answer takes.
pub trait Pace: Copy + Send + Sync + 'static {
    fn pace(self) -> impl Future<Output = ()> + Send;
}

impl<F, R> Pace for F
where
    F: Fn() -> R + Copy + Send + Sync + 'static,
    R: Future<Output = ()> + Send,
{
    fn pace(self) -> impl Future<Output = ()> + Send {
        self()
    }
}

/// The same pace as a type of its own, so that a second wrapper shares no code with the first.
#[derive(Clone, Copy)]
pub struct Again<P>(pub P);

impl<P: Pace> Pace for Again<P> {
    fn pace(self) -> impl Future<Output = ()> + Send {
        self.0.pace()
    }
}

/// An answer that is ready at once.
pub async fn ready() {}

/// An answer that pends once, asks to be polled again at once, and is then ready.
pub async fn once() {
    let mut pended = false;
    poll_fn(|cx| {
        if pended {
            return Poll::Ready(());
        }
        pended = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// An answer that never comes.
pub async fn never() {
    pending().await
}

/// An answer that never comes, to a call that holds 4 KiB.
pub async fn large() {
    let kept = black_box([0_u8; 4096]);
    pending::<()>().await;
    black_box(&kept);
}

/// A provider of empty answers, without an allocation, and in the older release of streams
/// of [`ITEMS`] items that are all ready.
#[derive(Clone, Copy)]
pub struct Server<P>(pub P);

type Streamed<I, E> = Result<BoxStream<'static, Result<I, E>>, E>;

impl<P: Pace> core::Provider for Server<P> {
    async fn chat_completion(
        &self,
        _: &core::ChatCompletionRequest,
    ) -> Result<core::ChatCompletionResponse, core::Error> {
        self.0.pace().await;
        Ok(core::ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &core::ChatCompletionRequest,
    ) -> Streamed<core::ChatCompletionChunk, core::Error> {
        self.0.pace().await;
        Ok(Box::pin(stream::iter(
            (0..ITEMS).map(|_| Ok(core::ChatCompletionChunk::default())),
        )))
    }
}

impl<P: Pace> upstream::Provider for Server<P> {
    async fn chat_completion(
        &self,
        _: &upstream::ChatCompletionRequest,
    ) -> Result<upstream::ChatCompletionResponse, upstream::Error> {
        self.0.pace().await;
        Ok(upstream::ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &upstream::ChatCompletionRequest,
    ) -> Streamed<upstream::ChatCompletionChunk, upstream::Error> {
        Err(upstream::Error::not_implemented("chat_completion_stream"))
    }

    async fn anthropic_messages(
        &self,
        _: &upstream::anthropic::Request,
    ) -> Result<upstream::anthropic::Response, upstream::Error> {
        Err(upstream::Error::not_implemented("anthropic_messages"))
    }

    async fn anthropic_messages_stream(
        &self,
        _: &upstream::anthropic::Request,
    ) -> Streamed<upstream::anthropic::StreamEvent, upstream::Error> {
        Err(upstream::Error::not_implemented(
            "anthropic_messages_stream",
        ))
    }

    async fn gemini_generate_content_stream(
        &self,
        _: &str,
        _: &upstream::gemini::Request,
    ) -> Streamed<upstream::gemini::Response, upstream::Error> {
        Err(upstream::Error::not_implemented(
            "gemini_generate_content_stream",
        ))
    }
}

const REQUEST: &str = r#"{"model": "m", "messages": []}"#;

/// A request of crabllm-core 0.0.19.
pub fn request() -> core::ChatCompletionRequest {
    core::json::from_str(REQUEST).expect("a request")
}

/// The same request of crabllm-core 0.0.25.
pub fn upstream_request() -> upstream::ChatCompletionRequest {
    upstream::json::from_str(REQUEST).expect("a request")
}
