//! A provider that records the attempts that reach the one inside.

use crate::log::{Attempt, End, Log};
use crabllm_retry::crabllm_core_0_0_19::{
    BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error, Provider,
};
use futures::{StreamExt, stream};
use std::{sync::Arc, thread};

/// Its futures and streams panic if they are polled after their end, and hold the log, so that one
/// that is not dropped is noticed.
#[derive(Clone)]
pub struct Recorder<P>(pub P, pub Arc<Log>);

impl<P: Provider> Provider for Recorder<P> {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let running = self.start(request);
        let result = self.0.chat_completion(request).await;
        running.end(result)
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let running = self.start(request);
        let result = self.0.chat_completion_stream(request).await;
        let items = running.end(result)?;
        let items = stream::unfold((items, self.1.clone()), async |(mut items, log)| {
            Some((items.next().await?, (items, log)))
        });
        Ok(Box::pin(items))
    }
}

impl<P> Recorder<P> {
    fn start(&self, request: &ChatCompletionRequest) -> Running {
        let Self(_, log) = self;
        let began = (log.now)();
        log.of(&request.model).attempts.push(Attempt {
            began,
            ended: began,
            end: None,
        });
        Running {
            log: log.clone(),
            model: request.model.clone(),
            end: None,
        }
    }
}

/// An attempt, which records its end when it is dropped.
struct Running {
    log: Arc<Log>,
    model: String,
    end: Option<End>,
}

impl Running {
    fn end<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.end = Some(match result {
            Ok(_) => End::Answered,
            Err(_) => End::Failed,
        });
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let end = self.end.unwrap_or(match thread::panicking() {
            true => End::Panicked,
            false => End::Dropped,
        });
        let now = (self.log.now)();
        if let Some(attempt) = self.log.of(&self.model).attempts.last_mut() {
            (attempt.ended, attempt.end) = (now, Some(end));
        }
    }
}
