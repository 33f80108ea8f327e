//! The allocations of calls that are ready at once.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "futures-timer"))]

use bytes::Bytes;
use crabllm_retry::{
    Fallback, Operations, Retrying,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, ChunkChoice,
        Error, FinishReason, Provider, json,
    },
};
use futures::{FutureExt, StreamExt, stream};
use std::{mem, sync::Mutex};

type Items = BoxStream<'static, Result<ChatCompletionChunk, Error>>;

/// Answers at once. Its only allocation is the box of a stream, which opens if there are
/// items.
struct Ready(Mutex<Vec<ChatCompletionChunk>>);

impl Ready {
    /// A stream of items that are content, because they have a finish reason.
    fn with_items(number: usize) -> Self {
        let choice = ChunkChoice {
            finish_reason: Some(FinishReason::Stop),
            ..ChunkChoice::default()
        };
        let item = ChatCompletionChunk {
            choices: vec![choice],
            ..ChatCompletionChunk::default()
        };
        Self(Mutex::new(vec![item; number]))
    }
}

impl Provider for Ready {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        Ok(ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(&self, _: &ChatCompletionRequest) -> Result<Items, Error> {
        let items = mem::take(&mut *self.0.lock().unwrap());
        if items.is_empty() {
            return Err(Error::Timeout);
        }
        Ok(stream::iter(items).map(Ok).boxed())
    }

    async fn chat_completion_raw(&self, _: &str, _: Bytes) -> Result<Bytes, Error> {
        Ok(Bytes::new())
    }
}

fn request() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

#[test]
fn a_call_that_is_ready_at_once_allocates_nothing() {
    fn check(provider: &impl Provider) {
        let request = request();
        let allocated = allocation_counter::measure(|| {
            let answer = provider.chat_completion(&request).now_or_never();
            assert!(matches!(answer, Some(Ok(_))));
            let refusal = provider.chat_completion_stream(&request).now_or_never();
            assert!(matches!(refusal, Some(Err(Error::Timeout))));
        });
        assert_eq!(allocated.count_total, 0);

        let body = Bytes::from(b"{\"model\": \"m\"}".to_vec());
        let allocated = allocation_counter::measure(|| {
            let answer = provider.chat_completion_raw("m", body).now_or_never();
            assert!(matches!(answer, Some(Ok(_))));
        });
        assert!(allocated.count_total <= 1, "only the count of references");
    }

    let ready = || Ready::with_items(0);
    check(&Retrying::new(ready()));
    check(&Fallback::new(ready(), ready()).model("other", "name"));
}

#[test]
fn a_stream_that_is_ready_costs_one_box_and_its_items_nothing() {
    /// The allocations for opening a stream, and for reading it to its end.
    fn allocated(provider: &impl Provider) -> (u64, u64) {
        let request = request();
        let mut opened = None;
        let opening = allocation_counter::measure(|| {
            opened = provider.chat_completion_stream(&request).now_or_never();
        });
        let mut items = opened.unwrap().unwrap();
        let reading = allocation_counter::measure(|| {
            for _ in 0..100 {
                assert!(matches!(items.next().now_or_never(), Some(Some(Ok(_)))));
            }
            assert!(matches!(items.next().now_or_never(), Some(None)));
        });
        (opening.count_total, reading.count_total)
    }

    let ready = || Ready::with_items(100);
    assert_eq!(allocated(&ready()), (1, 0));
    let retrying = Retrying::new(ready());
    assert_eq!(allocated(&retrying), (2, 0));
    // The same if the call waits for the first content, and that comes first.
    let committing = Retrying::new(ready()).also_retry(Operations::STREAMS);
    assert_eq!(allocated(&committing), (2, 0));
    assert_eq!(allocated(&Fallback::new(ready(), ready())), (1, 0));
}
