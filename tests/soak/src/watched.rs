//! A provider that writes down what the wrapper does to the one below.

use crate::{
    log::{Attempt, Hint, How, Log, Refusal, number},
    wire::UNREACHABLE,
};
use crabllm_retry::{
    Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
};
use futures::{Stream, ready};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

/// A provider under watch.
#[derive(Clone)]
pub struct Watched<P, T> {
    pub inner: P,
    pub timer: T,
    pub log: Arc<Log>,
    pub hint: Hint,
}

impl<P: Provider, T: Timer + Clone> Provider for Watched<P, T> {
    fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> impl Future<Output = Result<ChatCompletionResponse, Error>> + Send {
        let watch = self.watch(&request.model);
        WatchedCall {
            inner: self.inner.chat_completion(request),
            watch,
        }
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let watch = self.watch(&request.model);
        let call = watch.call;
        let opening = WatchedCall {
            inner: self.inner.chat_completion_stream(request),
            watch,
        };
        let inner = opening.await?;
        self.log.record(call).open = true;
        self.log.count_alive();
        Ok(Box::pin(WatchedStream {
            inner,
            log: self.log.clone(),
            over: false,
        }))
    }
}

impl<P, T: Timer + Clone> Watched<P, T> {
    /// Writes down that an attempt begins.
    fn watch(&self, model: &str) -> Watch<T> {
        let call = number(model);
        let began = self.log.time(self.timer.now());
        let ended = None;
        self.log
            .record(call)
            .attempts
            .push(Attempt { began, ended });
        self.log.count_alive();
        Watch {
            timer: self.timer.clone(),
            log: self.log.clone(),
            hint: self.hint,
            call,
            state: State::Waiting,
        }
    }
}

/// Records how an attempt ends.
struct Watch<T> {
    timer: T,
    log: Arc<Log>,
    hint: Hint,
    call: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Polled,
    Over,
}

impl<T: Timer> Watch<T> {
    fn end(&mut self, how: How) {
        self.state = State::Over;
        let now = self.log.time(self.timer.now());
        if let Some(attempt) = self.log.record(self.call).attempts.last_mut() {
            attempt.ended = Some((now, how));
        }
    }
}

pin_project! {
    struct WatchedCall<F, T: Timer> {
        #[pin]
        inner: F,
        watch: Watch<T>,
    }

    impl<F, T: Timer> PinnedDrop for WatchedCall<F, T> {
        fn drop(this: Pin<&mut Self>) {
            let watch = this.project().watch;
            match watch.state {
                State::Waiting => watch.end(How::Abandoned),
                State::Polled => watch.end(How::Panicked),
                State::Over => {}
            }
            watch.log.alive.fetch_sub(1, Relaxed);
        }
    }
}

impl<F, O, T> Future for WatchedCall<F, T>
where
    F: Future<Output = Result<O, Error>>,
    T: Timer,
{
    type Output = Result<O, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let watch = this.watch;
        if watch.state == State::Over {
            watch.log.repolled.fetch_add(1, Relaxed);
            return Poll::Pending;
        }
        watch.state = State::Polled;
        let poll = this.inner.poll(cx);
        watch.state = State::Waiting;
        let result = ready!(poll);
        watch.end(match &result {
            Ok(_) => How::Answered,
            Err(error) => {
                if error.to_string().contains(UNREACHABLE) {
                    watch.log.unreachable.fetch_add(1, Relaxed);
                }
                How::Failed(Refusal::of(error, watch.hint))
            }
        });
        Poll::Ready(result)
    }
}

struct WatchedStream {
    inner: BoxStream<'static, Result<ChatCompletionChunk, Error>>,
    log: Arc<Log>,
    over: bool,
}

impl Stream for WatchedStream {
    type Item = Result<ChatCompletionChunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            self.log.repolled.fetch_add(1, Relaxed);
            return Poll::Pending;
        }
        let item = ready!(self.inner.as_mut().poll_next(cx));
        self.over = item.is_none();
        Poll::Ready(item)
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.log.alive.fetch_sub(1, Relaxed);
    }
}
