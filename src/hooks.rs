//! The closures that a user may hang into the calls.

use crate::{Event, Failure};
use std::{fmt, sync::Arc, time::Duration};

type RetryIf = dyn Fn(&dyn Failure) -> bool + Send + Sync;
type RetryAfter = dyn Fn(&dyn Failure) -> Option<Duration> + Send + Sync;
type Observer = dyn Fn(&Event<'_>) + Send + Sync;

#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) retry_if: Option<Arc<RetryIf>>,
    pub(crate) retry_after: Option<Arc<RetryAfter>>,
    pub(crate) observer: Option<Arc<Observer>>,
}

impl Hooks {
    /// Whether an error is worth another attempt: the user's word, else the
    /// error's own. What is not implemented will not be at the next attempt.
    pub(crate) fn is_transient(&self, error: &dyn Failure) -> bool {
        !error.is_not_implemented()
            && match &self.retry_if {
                Some(retry_if) => retry_if(error),
                None => error.is_transient(),
            }
    }

    /// How long the server asked to wait: the user's word, else the error's.
    pub(crate) fn retry_after(&self, error: &dyn Failure) -> Option<Duration> {
        self.retry_after
            .as_ref()
            .and_then(|retry_after| retry_after(error))
            .or_else(|| error.retry_after())
    }

    /// Adds an observer behind those that are there.
    pub(crate) fn observe(&mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.observer = Some(match self.observer.take() {
            Some(earlier) => Arc::new(move |event: &Event<'_>| {
                earlier(event);
                observer(event);
            }),
            None => Arc::new(observer),
        });
    }

    /// Tells the observer, if there is one, of an event made for it.
    #[inline]
    pub(crate) fn tell<'e>(&self, event: impl FnOnce() -> Event<'e>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::tests::Fake;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_users_word_on_what_is_transient_replaces_the_errors() {
        let transient = Fake {
            transient: true,
            ..Fake::default()
        };
        let permanent = Fake::default();
        let plain = Hooks::default();
        assert!(plain.is_transient(&transient));
        assert!(!plain.is_transient(&permanent));

        let reversed = Hooks {
            retry_if: Some(Arc::new(|error| !error.is_transient())),
            ..Hooks::default()
        };
        assert!(!reversed.is_transient(&transient));
        assert!(reversed.is_transient(&permanent));

        let missing = Fake {
            unimplemented: true,
            ..permanent
        };
        assert!(!reversed.is_transient(&missing));
    }

    #[test]
    fn the_users_word_on_the_wait_goes_before_the_errors() {
        let asking = |retry_after| Fake {
            retry_after,
            ..Fake::default()
        };
        let told = |word: Option<Duration>| Hooks {
            retry_after: Some(Arc::new(move |_| word)),
            ..Hooks::default()
        };
        let own = asking(Some(SECOND));
        assert_eq!(Hooks::default().retry_after(&own), Some(SECOND));
        assert_eq!(told(None).retry_after(&own), Some(SECOND));
        assert_eq!(told(Some(2 * SECOND)).retry_after(&own), Some(2 * SECOND));
        assert_eq!(told(None).retry_after(&asking(None)), None);
    }

    #[test]
    fn hooks_are_shown_by_whether_they_are_there() {
        let mut hooks = Hooks {
            retry_if: Some(Arc::new(|_| true)),
            ..Hooks::default()
        };
        hooks.observe(|_| {});
        assert_eq!(
            format!("{hooks:?}"),
            "Hooks { retry_if: true, retry_after: false, observer: true }"
        );
    }
}
