//! User callbacks.

use crate::{
    event::{Event, Observers},
    failure::Failure,
    hints,
};
use std::{fmt, sync::Arc, time::Duration};

type RetryIf = dyn Fn(&dyn Failure) -> bool + Send + Sync;
type RetryAfter = dyn Fn(&dyn Failure) -> Option<Duration> + Send + Sync;

#[derive(Clone, Default)]
pub struct Hooks {
    pub retry_if: Option<Arc<RetryIf>>,
    pub retry_after: Option<Arc<RetryAfter>>,
    pub observer: Observers,
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

    #[inline]
    pub fn emit<'e>(&self, event: impl FnOnce() -> Event<'e>) {
        self.observer.emit(event);
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
