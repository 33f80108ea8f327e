//! A provider that records the attempts that reach the one inside, and numbers their items.

use crate::log::{Attempt, CURRENT, End, Log};
use crabllm_retry::{
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    hints,
};
use futures::{StreamExt, stream};
use std::{sync::Arc, thread, time::Duration};

/// An item after so many announcements commits, whatever it is.
const MOST_HELD: usize = 16;

/// Its futures and streams panic if they are polled after their end, and hold the log, so that one
/// that is not dropped is noticed.
#[derive(Clone)]
pub struct Recorder<P> {
    pub inner: P,
    pub log: Arc<Log>,

    /// Whether an attempt lasts until the first content of its stream.
    pub commits: bool,
}

impl<P: Provider> Provider for Recorder<P> {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let running = self.start();
        let result = self.inner.chat_completion(request).await;
        let mut answer = result.inspect_err(|error| running.fail(error))?;
        answer.id = running.name_item();
        running.end(End::Answered);
        Ok(answer)
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let running = self.start();
        let result = self.inner.chat_completion_stream(request).await;
        let items = result.inspect_err(|error| running.fail(error))?;
        running.record(|attempt, now| attempt.last_sign = Some(now));
        if !self.commits {
            running.end(End::Answered);
        }
        let items = stream::unfold((items, running), async |(mut items, running)| {
            let mut item = items.next().await;
            running.pass(item.as_mut());
            Some((item?, (items, running)))
        });
        Ok(Box::pin(items))
    }
}

impl<P> Recorder<P> {
    fn start(&self) -> Running {
        let began = (self.log.now)();
        let mut call = self.log.current();
        call.attempts.push(Attempt {
            began,
            ..Attempt::default()
        });
        Running {
            log: self.log.clone(),
            call: CURRENT.get(),
            number: call.attempts.len() - 1,
        }
    }
}

/// An attempt and its stream, which record their end when they are dropped.
struct Running {
    log: Arc<Log>,
    call: usize,
    number: usize,
}

impl Running {
    fn record<R>(&self, change: impl FnOnce(&mut Attempt, Duration) -> R) -> R {
        let now = (self.log.now)();
        change(&mut self.log.call(self.call).attempts[self.number], now)
    }

    /// Records the end of the attempt, unless it has ended before.
    fn end(&self, end: End) {
        self.record(|attempt, now| {
            if attempt.end.is_none() {
                (attempt.end, attempt.ended) = (Some(end), now);
            }
        });
    }

    fn fail(&self, error: &Error) {
        let asked = match error.is_transient() {
            true => hints::retry_after(error).unwrap_or_default(),
            false => Duration::MAX,
        };
        let earns_free = matches!(error, Error::Provider { status: 429, .. })
            && self.log.call(self.call).script.limited;
        self.record(|attempt, _| (attempt.asked, attempt.earns_free) = (asked, earns_free));
        self.end(End::Failed);
    }

    /// Counts an item, and names it by its call, its attempt and its place.
    fn name_item(&self) -> String {
        self.record(|attempt, _| {
            attempt.items += 1;
            format!("{}.{}.{}", self.call, self.number, attempt.items - 1)
        })
    }

    /// Records an item, or the end of the stream.
    fn pass(&self, item: Option<&mut Result<ChatCompletionChunk, Error>>) {
        let end = match item {
            Some(Ok(_)) => None,
            Some(Err(_)) => Some(End::Failed),
            None => Some(End::Answered),
        };
        self.record(|attempt, now| {
            attempt.last_sign = Some(now);
            attempt.stream_end = attempt.stream_end.or(end);
        });
        match item {
            Some(Ok(chunk)) => {
                chunk.id = self.name_item();
                let is_content = chunk.content().is_some() || chunk.finish_reason().is_some();
                if is_content || self.record(|attempt, _| attempt.items > MOST_HELD) {
                    self.end(End::Answered);
                }
            }
            Some(Err(error)) => self.fail(error),
            None => self.end(End::Failed),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(match thread::panicking() {
            true => End::Panicked,
            false => End::Dropped,
        });
    }
}
