//! User callbacks.

use crate::{event::Event, failure::Failure, hints};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

type RetryIf = dyn Fn(&dyn Failure) -> bool + Send + Sync;
type RetryAfter = dyn Fn(&dyn Failure) -> Option<Duration> + Send + Sync;
type Observer = dyn Fn(&Event<'_>) + Send + Sync;

#[derive(Clone, Default)]
pub struct Hooks {
    pub retry_if: Option<Arc<RetryIf>>,
    pub retry_after: Option<Arc<RetryAfter>>,
    pub observer: Option<Arc<Observer>>,

    /// The calls that were observed, of this wrapper and its clones.
    calls: Arc<AtomicU64>,
}

impl Hooks {
    /// Whether another attempt may succeed, by the user's callback, or else by the
    /// error. An operation that is not implemented is never transient.
    pub fn is_transient(&self, error: &dyn Failure) -> bool {
        !error.is_not_implemented()
            && match &self.retry_if {
                Some(retry_if) => retry_if(error),
                None => error.is_transient(),
            }
    }

    /// How long the server asked to wait, by the user's callback, or else by the error
    /// and its body.
    pub fn requested_delay(&self, error: &dyn Failure) -> Option<Duration> {
        self.retry_after
            .as_ref()
            .and_then(|retry_after| retry_after(error))
            .or_else(|| hints::retry_after(error))
    }

    /// The number of a new call; 0 without an observer.
    #[inline]
    pub fn number_call(&self) -> u64 {
        match self.observer {
            Some(_) => self.calls.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        }
    }

    /// Adds an observer, which is called after the earlier ones.
    pub fn observe(&mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.observer = Some(match self.observer.take() {
            Some(earlier) => Arc::new(move |event: &Event<'_>| {
                earlier(event);
                observer(event);
            }),
            None => Arc::new(observer),
        });
    }

    /// Calls the observer, if any. Without one, no event is made.
    #[inline]
    pub fn emit<'e>(&self, event: impl FnOnce() -> Event<'e>) {
        if let Some(observer) = &self.observer {
            observer(&event());
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("retry_if", &self.retry_if.is_some())
            .field("retry_after", &self.retry_after.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}
