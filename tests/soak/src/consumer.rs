//! Reads an open stream to its end.

use crabllm_retry::crabllm_core_0_0_19::{BoxStream, ChatCompletionChunk, Error};
use futures::{StreamExt, poll};
use std::{task::Poll, time::Duration};

/// The outcome of an open stream.
#[derive(Debug, PartialEq)]
pub struct Consumed {
    pub items: usize,
    pub text: String,
    pub finish: Finish,
    /// How long the consumer had waited when it finished.
    pub waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finish {
    Ended,
    Stalled,
    Failed,
    /// Dropped by its consumer, which had all that it wanted.
    Cancelled,
}

/// Reads until the end or until there are as many items as `wanted`, with a pause before each; or
/// says what is wrong with the stream.
pub async fn read<W: Future<Output = ()>>(
    mut stream: BoxStream<'static, Result<ChatCompletionChunk, Error>>,
    model: &str,
    numbered: bool,
    wanted: usize,
    now: impl Fn() -> Duration,
    pause: impl Fn() -> W,
) -> Result<Consumed, String> {
    let (mut items, mut text) = (0, String::new());
    loop {
        if items >= wanted {
            // Some are dropped while they wait for an item.
            _ = poll!(stream.next());
            return Ok(Consumed {
                items,
                text,
                finish: Finish::Cancelled,
                waited: Duration::ZERO,
            });
        }
        pause().await;
        let began = now();
        let item = stream.next().await;
        let waited = now().saturating_sub(began);
        let finish = match item {
            None => Finish::Ended,
            Some(Err(Error::Timeout)) => Finish::Stalled,
            Some(Err(_)) => Finish::Failed,
            Some(Ok(chunk)) if chunk.model != model => {
                return Err(format!("an item for call {}", chunk.model));
            }
            Some(Ok(chunk)) if numbered && chunk.created != items as u64 => {
                return Err(format!("item {} in place of {items}", chunk.created));
            }
            Some(Ok(chunk)) => {
                text.push_str(chunk.content().unwrap_or_default());
                items += 1;
                continue;
            }
        };
        for _ in 0..2 {
            if !matches!(poll!(stream.next()), Poll::Ready(None)) {
                return Err("something after the end of a stream".into());
            }
        }
        return Ok(Consumed {
            items,
            text,
            finish,
            waited,
        });
    }
}
