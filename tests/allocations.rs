//! The allocations of calls that are ready at once.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "futures-timer"))]

use crabllm_retry::{
    Retrying,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider, json,
    },
};
use futures::{FutureExt, StreamExt, stream};

type Items = BoxStream<'static, Result<ChatCompletionChunk, Error>>;

/// Answers at once. Its only allocation is the box of a stream, which opens if it has
/// items.
struct Ready {
    items: usize,
}

impl Provider for Ready {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        Ok(ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(&self, _: &ChatCompletionRequest) -> Result<Items, Error> {
        if self.items == 0 {
            return Err(Error::Timeout);
        }
        let items = stream::repeat_with(|| Ok(ChatCompletionChunk::default()));
        Ok(items.take(self.items).boxed())
    }
}

const REQUEST: &str = r#"{"model": "m", "messages": []}"#;

fn request() -> ChatCompletionRequest {
    json::from_str(REQUEST).unwrap()
}

#[test]
fn a_call_that_is_ready_at_once_allocates_nothing() {
    let request = request();
    let retrying = Retrying::new(Ready { items: 0 });
    let allocated = allocation_counter::measure(|| {
        let answer = retrying.chat_completion(&request).now_or_never();
        assert!(matches!(answer, Some(Ok(_))));
        let refusal = retrying.chat_completion_stream(&request).now_or_never();
        assert!(matches!(refusal, Some(Err(Error::Timeout))));
    });
    assert_eq!(allocated.count_total, 0);
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

    let ready = || Ready { items: 100 };
    assert_eq!(allocated(&ready()), (1, 0));
    assert_eq!(allocated(&Retrying::new(ready())), (2, 0));
}
