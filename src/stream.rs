//! An open stream whose silence is bounded.

use crate::{
    Event, Failure, Operation, Timer, call::Engine, deadlines::Deadlines, decision::bound,
    hooks::Hooks, timeout::Wait,
};
use futures::{Stream, ready};
use pin_project_lite::pin_project;
use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// The boxed stream of the `Provider` trait.
pub(crate) type BoxStream<I> = Pin<Box<dyn Stream<Item = I> + Send>>;

impl<T: Timer> Engine<T> {
    /// Opens a stream as [`call`](Self::call) does, and bounds its silence;
    /// `stalled` makes the error of a stream that was silent for too long.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice"
    )]
    pub(crate) fn open<I, S, E, F>(
        &self,
        operation: Operation,
        model: Option<&str>,
        stalled: fn() -> S,
        start: impl FnMut() -> F,
    ) -> impl Future<Output = Result<BoxStream<Result<I, S>>, E>>
    where
        I: Send + 'static,
        S: Send + 'static,
        E: Failure,
        F: Future<Output = Result<BoxStream<Result<I, S>>, E>>,
    {
        async move {
            let items = self.call(operation, model, start).await?;
            let observed = self.hooks.observer.is_some();
            Ok(Box::pin(IdleBounded {
                items: Some(items),
                wait: None,
                overdue: false,
                deadlines: self.deadlines.clone(),
                idle: bound(self.policies.of(model).stream_idle),
                stalled,
                operation,
                model: model.filter(|_| observed).map(str::to_owned),
                hooks: self.hooks.clone(),
            }) as BoxStream<_>)
        }
    }
}

pin_project! {
    /// The same items, but a wait for the next one that lasts longer than
    /// allowed ends the stream with a timeout.
    ///
    /// The wait is measured from the poll that found no item ready, so it is
    /// the stream's own silence and never the slowness of its consumer.
    struct IdleBounded<I, S, T: Timer> {
        // `None` once it has ended.
        items: Option<BoxStream<Result<I, S>>>,

        // The wait for the next item, from the poll that found none.
        #[pin]
        wait: Option<Wait<T, Arc<Deadlines<T>>>>,

        // Whether the wait was already found to be over.
        overdue: bool,

        deadlines: Arc<Deadlines<T>>,
        idle: Option<Duration>,
        stalled: fn() -> S,

        // What a stall is told with; the model only where somebody is told.
        operation: Operation,
        model: Option<String>,
        hooks: Hooks,
    }
}

impl<I, S, T: Timer> Stream for IdleBounded<I, S, T> {
    type Item = Result<I, S>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(items) = this.items else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(item) = items.as_mut().poll_next(cx) {
            this.wait.set(None);
            *this.overdue = false;
            if item.is_none() {
                *this.items = None;
            }
            return Poll::Ready(item);
        }
        let Some(idle) = *this.idle else {
            return Poll::Pending;
        };
        if this.wait.is_none() {
            this.wait
                .set(Some(Wait::new(this.deadlines.clone(), Some(idle))));
        }
        if let Some(wait) = this.wait.as_mut().as_pin_mut() {
            ready!(wait.poll(cx));
        }
        // A consumer that was away may have to poll twice for an item that came in
        // time, so the stream gets one more turn of the executor.
        if !mem::replace(this.overdue, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.wait.set(None);
        *this.items = None;
        this.hooks.tell(|| Event::StreamStalled {
            operation: *this.operation,
            model: this.model.as_deref(),
            idle,
        });
        Poll::Ready(Some(Err((this.stalled)())))
    }
}

#[cfg(all(test, feature = "crabllm-core-0_0_19", feature = "test-util"))]
mod tests {
    use super::*;
    use crate::VirtualTimer;
    use crabllm_core_0_0_19::Error;
    use futures::{FutureExt, StreamExt, stream};

    fn bounded(
        items: impl Stream<Item = Result<u32, Error>> + Send + 'static,
        idle: Option<Duration>,
    ) -> IdleBounded<u32, Error, VirtualTimer> {
        IdleBounded {
            items: Some(Box::pin(items)),
            wait: None,
            overdue: false,
            deadlines: Deadlines::new(VirtualTimer::manual()),
            idle,
            stalled: || Error::Timeout,
            operation: Operation::ChatCompletionStream,
            model: None,
            hooks: Hooks::default(),
        }
    }

    #[test]
    fn a_stream_that_may_not_be_polled_after_its_end_is_not() {
        for idle in [None, Some(Duration::from_secs(1))] {
            let once = stream::unfold(1, |left: u32| async move {
                left.checked_sub(1).map(|left| (Ok(left), left))
            });
            let mut items = std::pin::pin!(bounded(once, idle));
            assert!(matches!(items.next().now_or_never(), Some(Some(Ok(0)))));
            for _ in 0..3 {
                assert!(matches!(items.next().now_or_never(), Some(None)));
            }
        }
    }
}
