//! An open stream whose silence is limited.

use super::{Engine, Hooks, progress::Progress};
use crate::{
    event::Event,
    policy::Operation,
    timer::{Instant, SharedTimer, Timer, Wait},
};
use futures::{Stream, ready, stream::BoxStream};
use pin_project_lite::pin_project;
use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pin_project! {
    /// Passes items through. A wait for the next one that exceeds the limit ends the
    /// stream with a timeout.
    ///
    /// The wait is measured from the poll that found no item, so it is the silence
    /// of the stream and never the slowness of its consumer.
    pub struct IdleLimited<I, S, T: Timer> {
        // `None` once the stream has ended.
        items: Option<BoxStream<'static, Result<I, S>>>,

        // The wait for the next item, from the poll that found none.
        #[pin]
        wait: Option<Wait<T, Arc<SharedTimer<T>>>>,

        // Whether the wait was already found to be over.
        overdue: bool,

        timer: Arc<SharedTimer<T>>,
        idle: Option<Duration>,
        timeout: fn() -> S,

        // For the event of a stall, if somebody observes.
        observed: Option<Observed>,
    }
}

/// The call that opened a stream, and its observers.
struct Observed {
    call: u64,
    operation: Operation,
    model: Option<String>,
    attempt: u32,
    began: Option<Instant>,
    hooks: Hooks,
}

impl<I, S, T: Timer> IdleLimited<I, S, T> {
    pub fn new(
        progress: &Progress<'_, '_, T>,
        timeout: fn() -> S,
        items: BoxStream<'static, Result<I, S>>,
    ) -> Self {
        let Engine { timer, hooks, .. } = progress.engine;
        Self {
            items: Some(items),
            wait: None,
            overdue: false,
            timer: timer.clone(),
            idle: progress.policy.idle_limit(),
            timeout,
            observed: hooks.observer.is_some().then(|| Observed {
                call: progress.call,
                operation: *progress.operation,
                model: progress.model.map(str::to_owned),
                attempt: progress.attempt(),
                began: progress.began,
                hooks: hooks.clone(),
            }),
        }
    }
}

impl Observed {
    fn stalled(&self, idle: Duration, now: Instant) {
        let began = self.began.unwrap_or(now);
        self.hooks.tell(|| Event::StreamStalled {
            call: self.call,
            operation: self.operation,
            model: self.model.as_deref(),
            attempt: self.attempt,
            elapsed: now.saturating_duration_since(began),
            idle,
        });
    }
}

impl<I, S, T: Timer> Stream for IdleLimited<I, S, T> {
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
        ready!(match this.wait.as_mut().as_pin_mut() {
            Some(wait) => wait.poll(cx),
            None => Wait::start(this.wait.as_mut(), this.timer.clone(), Some(idle), cx),
        });
        // A consumer that was away may have to poll twice for an item that came in
        // time, so the stream gets one more turn of the executor.
        if !mem::replace(this.overdue, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.wait.set(None);
        *this.items = None;
        if let Some(observed) = this.observed {
            observed.stalled(idle, this.timer.timer().now());
        }
        Poll::Ready(Some(Err((this.timeout)())))
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{
        failure::{Failure, tests::Fake},
        policy::Policy,
        test_util::VirtualTimer,
    };
    use futures::{FutureExt, StreamExt, stream};

    #[test]
    fn a_stream_is_not_polled_after_its_end() {
        let engine = Engine::new(VirtualTimer::manual());
        for idle in [Duration::ZERO, Duration::from_secs(1)] {
            // Panics if it is polled after its end.
            let once = stream::unfold(1, |left: u32| async move {
                left.checked_sub(1).map(|left| (Ok(left), left))
            });
            let policy = Policy::default().stream_idle(idle);
            let operation = &Operation::ChatCompletionStream;
            let progress = Progress::new(&engine, &policy, operation, None);
            let mut items = IdleLimited::new(&progress, Fake::timeout, once.boxed());
            assert!(matches!(items.next().now_or_never(), Some(Some(Ok(0)))));
            for _ in 0..3 {
                assert!(matches!(items.next().now_or_never(), Some(None)));
            }
        }
    }
}
