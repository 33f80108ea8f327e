//! What the engine asks of an error.

use std::{error::Error, time::Duration};

/// What a retry layer needs to know about an error.
///
/// The error of every supported `crabllm-core` release implements it. Hooks
/// such as [`Retrying::retry_if`](crate::Retrying::retry_if) receive errors as
/// `&dyn Failure`, so one hook serves all releases. Since it is also a
/// [`std::error::Error`], a hook that must see more can downcast:
///
/// ```
/// # #[cfg(feature = "crabllm-core-0_0_19")] {
/// use crabllm_retry::{Failure, crabllm_core_0_0_19::Error};
///
/// fn is_config_error(failure: &dyn Failure) -> bool {
///     let error: &dyn std::error::Error = failure;
///     matches!(error.downcast_ref(), Some(Error::Config(_)))
/// }
/// assert!(is_config_error(&Error::Config("no key".into())));
/// # }
/// ```
pub trait Failure: Error + Send + Sync + 'static {
    /// The error of an attempt that ran into its timeout, or of a stream that
    /// went silent.
    fn timeout() -> Self
    where
        Self: Sized;

    /// Whether the error's own type calls it transient: worth another attempt.
    fn is_transient(&self) -> bool;

    /// Whether this is the error that [`timeout`](Self::timeout) makes.
    fn timed_out(&self) -> bool;

    /// Whether the provider does not have the operation at all. Such an error
    /// is never retried, whatever else it says of itself.
    fn is_not_implemented(&self) -> bool;

    /// The HTTP status that the server answered with, if it did answer.
    fn status(&self) -> Option<u16> {
        None
    }

    /// The body of the server's error answer: untrusted text, of any length.
    fn body(&self) -> Option<&str> {
        None
    }

    /// How long the server asked to wait before the next attempt.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl dyn Failure {
    /// Whether the server turned the request away for its rate: status 429.
    pub fn is_throttling(&self) -> bool {
        self.status() == Some(429)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fmt;

    /// A failure that says of itself what it is told to.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Fake {
        pub(crate) transient: bool,
        pub(crate) unimplemented: bool,
        pub(crate) status: Option<u16>,
        pub(crate) body: Option<String>,
        pub(crate) retry_after: Option<Duration>,
    }

    impl fmt::Display for Fake {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fake")
        }
    }

    impl Error for Fake {}

    impl Failure for Fake {
        fn timeout() -> Self {
            Self::default()
        }

        fn is_transient(&self) -> bool {
            self.transient
        }

        fn timed_out(&self) -> bool {
            false
        }

        fn is_not_implemented(&self) -> bool {
            self.unimplemented
        }

        fn status(&self) -> Option<u16> {
            self.status
        }

        fn body(&self) -> Option<&str> {
            self.body.as_deref()
        }

        fn retry_after(&self) -> Option<Duration> {
            self.retry_after
        }
    }

    /// A failure that says no more than it must.
    #[derive(Debug)]
    struct Terse;

    impl fmt::Display for Terse {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("terse")
        }
    }

    impl Error for Terse {}

    impl Failure for Terse {
        fn timeout() -> Self {
            Self
        }

        fn is_transient(&self) -> bool {
            false
        }

        fn timed_out(&self) -> bool {
            false
        }

        fn is_not_implemented(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_a_failure_does_not_say_is_not_known() {
        let failure: &dyn Failure = &Terse::timeout();
        assert_eq!(failure.status(), None);
        assert_eq!(failure.body(), None);
        assert_eq!(failure.retry_after(), None);
        assert!(!failure.is_throttling());
    }
}
