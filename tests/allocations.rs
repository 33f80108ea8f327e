//! A call that is ready at once costs no allocation.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "futures-timer"))]

use crabllm_retry::{
    Retrying,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider, json,
    },
};
use futures::FutureExt;

/// Answers at once, without an allocation.
struct Ready;

impl Provider for Ready {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        Ok(ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        Err(Error::Timeout)
    }
}

#[test]
fn a_call_that_is_ready_at_once_allocates_nothing() {
    let request: ChatCompletionRequest =
        json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();
    let retrying = Retrying::new(Ready);
    let allocated = allocation_counter::measure(|| {
        let answer = retrying.chat_completion(&request).now_or_never();
        assert!(matches!(answer, Some(Ok(_))));
        let refusal = retrying.chat_completion_stream(&request).now_or_never();
        assert!(matches!(refusal, Some(Err(Error::Timeout))));
    });
    assert_eq!(allocated.count_total, 0);
}
