//! The engine's view of an error.

use std::{error::Error, time::Duration};

/// An error, as the wrapper sees it.
///
/// The error of every supported `crabllm-core` release implements it. An error of
/// your own needs two methods; the others have defaults. Hooks such as
/// [`Retrying::retry_if`](crate::retrying::Retrying::retry_if) receive errors as
/// `&dyn Failure`, so one hook serves all releases. A hook that needs more can
/// downcast, because every `Failure` is a [`std::error::Error`]:
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
    /// The error of an attempt or a call that took too long, or of a stream that was
    /// silent for too long.
    fn timeout() -> Self
    where
        Self: Sized;

    /// The error of a stream that ended before any content. Default:
    /// [`timeout`](Self::timeout).
    fn empty_stream() -> Self
    where
        Self: Sized,
    {
        Self::timeout()
    }

    /// Whether another attempt may succeed, as far as the error's own type knows.
    fn is_transient(&self) -> bool;

    /// Whether this is the error that [`timeout`](Self::timeout) returns. Default:
    /// false.
    fn is_timeout(&self) -> bool {
        false
    }

    /// Whether the server refused the request because of a rate limit. Default:
    /// whether the [`status`](Self::status) is 429.
    fn is_throttled(&self) -> bool {
        self.status() == Some(429)
    }

    /// Whether the provider does not implement the operation. Such an error is never
    /// retried, even if it claims to be transient. Default: false.
    fn is_not_implemented(&self) -> bool {
        false
    }

    /// The HTTP status of the server's answer. Default: `None`, there was no
    /// answer.
    fn status(&self) -> Option<u16> {
        None
    }

    /// The body of the server's error answer: untrusted text of any length.
    /// Default: `None`.
    fn body(&self) -> Option<&str> {
        None
    }

    /// How long the server asked to wait before the next attempt. Default: `None`, it
    /// did not ask.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::fmt;

    /// A failure with the given properties.
    #[derive(Clone, Debug, Default)]
    pub struct Fake {
        pub transient: bool,
        pub unimplemented: bool,
        pub status: Option<u16>,
        pub body: Option<String>,
        pub retry_after: Option<Duration>,
    }

    impl fmt::Display for Fake {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fake")
        }
    }

    impl Error for Fake {}

    impl Failure for Fake {
        fn timeout() -> Self {
            Self {
                transient: true,
                ..Self::default()
            }
        }

        fn is_transient(&self) -> bool {
            self.transient
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
}
