//! An open stream: the wait for its first content, and the limit of its silence.

use super::{Engine, Hooks, progress::Progress};
use crate::{
    event::Event,
    failure::Failure,
    policy::Operation,
    timer::{Instant, SharedTimer, Timer, Wait},
};
use futures::{Stream, ready, stream::BoxStream};
use pin_project_lite::pin_project;
use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// The most announcements that are held back; an item after these commits.
const MOST_HELD: usize = 16;

/// The rules for the items `I` of a stream and their errors `S`, in a call that fails
/// with `E`.
pub struct Items<I, S, E> {
    /// Makes the item that ends a silent stream.
    pub timeout: fn() -> S,

    /// Whether an item belongs to the answer, rather than announcing it.
    pub is_content: fn(&I) -> bool,

    /// Whether an item is the last one of a complete answer. `None`: unknown.
    pub is_finish: Option<fn(&I) -> bool>,

    /// Makes the error of the call from an error item before the commit.
    pub into_failure: fn(S) -> E,
}

impl<I, E: Failure> Items<I, E, E> {
    /// The rules for a stream whose errors are those of the call.
    pub fn new(is_content: fn(&I) -> bool) -> Self {
        Self {
            timeout: E::timeout,
            is_content,
            is_finish: None,
            into_failure: |error| error,
        }
    }
}

pin_project! {
    /// Passes items through. A wait for the next one that exceeds the limit ends the
    /// stream with a timeout.
    ///
    /// The wait is measured from the poll that found no item, so it measures the
    /// stream's silence, not a slow consumer.
    pub struct OpenStream<I, S, T: Timer> {
        // Items from before the commit, which are yielded first.
        held: VecDeque<I>,

        // The item that committed; it follows those that were held.
        first_content: Option<I>,

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

        // For events, if there is an observer.
        observed: Option<Observed<I>>,
    }
}

/// The call that opened a stream, and its observers.
struct Observed<I> {
    call: u64,
    operation: Operation,
    model: Option<String>,
    attempt: u32,
    began: Option<Instant>,
    hooks: Hooks,

    /// Recognises the end of the answer; `None` if it is unknown, or not needed any more.
    is_finish: Option<fn(&I) -> bool>,

    /// Whether an error item was already reported.
    is_broken: bool,
}

impl<I, S, T: Timer> OpenStream<I, S, T> {
    pub fn new<E>(
        progress: &Progress<'_, '_, T>,
        rules: &Items<I, S, E>,
        items: BoxStream<'static, Result<I, S>>,
    ) -> Self {
        let Engine { timer, hooks, .. } = progress.engine;
        Self {
            held: VecDeque::new(),
            first_content: None,
            items: Some(items),
            wait: None,
            overdue: false,
            timer: timer.clone(),
            idle: progress.idle_limit(),
            timeout: rules.timeout,
            observed: hooks.observer.is_some().then(|| Observed {
                call: progress.call,
                operation: *progress.operation,
                model: progress.model.name().map(str::to_owned),
                attempt: progress.attempts,
                began: progress.began,
                hooks: hooks.clone(),
                is_finish: rules.is_finish.filter(|_| progress.commit.is_some()),
                is_broken: false,
            }),
        }
    }

    /// Waits for the first content. Fails if an error, too long a silence or the end of
    /// the stream comes before it.
    pub async fn commit<E: Failure>(
        mut self: Pin<&mut Self>,
        rules: &Items<I, S, E>,
    ) -> Result<(), E> {
        loop {
            match poll_fn(|cx| self.as_mut().poll_item(cx)).await {
                Some(Ok(item)) => {
                    let this = self.as_mut().project();
                    if this.held.len() == MOST_HELD || (rules.is_content)(&item) {
                        *this.first_content = Some(item);
                        return Ok(());
                    }
                    this.held.push_back(item);
                }
                Some(Err(error)) => return Err((rules.into_failure)(error)),
                None => return Err(E::empty_stream()),
            }
        }
    }

    /// Limits each wait for the next item from now on.
    pub fn limit_idle(self: Pin<&mut Self>, idle: Option<Duration>) {
        *self.project().idle = idle;
    }

    /// The next item. Too long a silence ends the stream with an error.
    #[inline(always)]
    fn poll_item(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<I, S>>> {
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
        // After a late poll, an item that came in time may need a second poll, so the
        // stream gets one more turn of the executor.
        if !mem::replace(this.overdue, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.wait.set(None);
        *this.items = None;
        Poll::Ready(Some(Err((this.timeout)())))
    }
}

impl<I, S: Error + Send + Sync + 'static, T: Timer> Stream for OpenStream<I, S, T> {
    type Item = Result<I, S>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.as_mut().project();
        if this.first_content.is_some() || this.observed.is_some() {
            return self.poll_observed(cx);
        }
        self.poll_item(cx)
    }
}

impl<I, S: Error + Send + Sync + 'static, T: Timer> OpenStream<I, S, T> {
    /// The next item, those that were held first, with the events of it.
    #[inline(never)]
    fn poll_observed(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<I, S>>> {
        let this = self.as_mut().project();
        let was_open = this.items.is_some();
        let item = match this.first_content {
            None => ready!(self.as_mut().poll_item(cx)),
            Some(_) => {
                let held = this.held.pop_front();
                held.or_else(|| this.first_content.take()).map(Ok)
            }
        };
        let this = self.project();
        if let Some(observed) = this.observed.as_mut().filter(|_| was_open) {
            let now = || this.timer.timer().now();
            match (&item, *this.idle) {
                (Some(Ok(item)), _) => observed.saw(item),
                // Only silence ends a stream with an error.
                (Some(Err(_)), Some(idle)) if this.items.is_none() => observed.stalled(idle, now),
                (Some(Err(error)), _) => observed.broke(Some(error), now),
                (None, _) if observed.is_finish.is_some() => observed.broke(None, now),
                (None, _) => {}
            }
        }
        Poll::Ready(item)
    }
}

impl<I> Observed<I> {
    fn saw(&mut self, item: &I) {
        self.is_finish = self.is_finish.filter(|is_finish| !is_finish(item));
    }

    fn stalled(&self, idle: Duration, now: impl Fn() -> Instant) {
        self.hooks.emit(|| Event::StreamStalled {
            call: self.call,
            operation: self.operation,
            model: self.model.as_deref(),
            attempt: self.attempt,
            elapsed: self.elapsed(now()),
            idle,
        });
    }

    fn broke(
        &mut self,
        error: Option<&(dyn Error + Send + Sync + 'static)>,
        now: impl Fn() -> Instant,
    ) {
        if mem::replace(&mut self.is_broken, true) {
            return;
        }
        self.hooks.emit(|| Event::StreamBroken {
            call: self.call,
            operation: self.operation,
            model: self.model.as_deref(),
            attempt: self.attempt,
            elapsed: self.elapsed(now()),
            error,
        });
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began.unwrap_or(now))
    }
}
