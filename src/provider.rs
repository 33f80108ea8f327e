//! `Provider` of each enabled release of crabllm-core, for [`Retrying`].

mod fallback;
mod item;
#[cfg(feature = "test-util")]
mod scripted;
mod table;

use item::{Item, has_text, items};
use table::{methods, releases, types};

use crate::{
    call::{CallModel, Items, RawBody},
    failure::Failure,
    limits::RateLimiter,
    policy::{Operation, Policy},
    raw_body::model_in,
    retrying::Retrying,
    timer::Timer,
};
use bytes::Bytes;
use std::{io, time::Duration};

/// A module for a release, with its types. The user's macro `contents` makes the rest.
macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use super::*;

            types! { $release $types }
            contents! { $methods $errors }
        }
    };
}

/// Implements `Provider` by the user's macro `method`. A default body would hide the inner
/// provider's method, so none is used.
macro_rules! provider {
    (
        {$($header:tt)*}
        [$($flag:ident)*]
        $($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr;)*
    ) => {
        #[deny(clippy::missing_trait_methods)]
        $($header)* {
            $(method! { $kind $operation $method($($argument: $type),*) -> $answer, $model })*
            $(method! { flag $flag })*
        }
    };
}

pub(crate) use {provider, release};

/// Implements the traits for the types of a release.
macro_rules! contents {
    ($methods:ident $errors:ident) => {
        use crate::retrying::Retrying;

        failure! { $errors }
        items! { $methods }
        methods! { $methods provider {impl<P: Provider, T: Timer> Provider for Retrying<P, T>} }
    };
}

/// One method of the trait, by its kind.
macro_rules! method {
    (flag $flag:ident) => {
        fn $flag(&self) -> bool {
            self.inner.$flag()
        }
    };
    (call $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr) => {
        #[inline]
        fn $method(&self, $($argument: $type),*) -> impl Future<Output = Result<$answer, Error>> + Send {
            self.call_with(&Operation::$operation, $model, move |p| P::$method(p, $($argument),*))
        }
    };
    (open $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $item:ty, $model:expr) => {
        fn $method(
            &self, $($argument: $type),*
        ) -> impl Future<Output = Result<BoxStream<'static, Result<$item, Error>>, Error>> + Send {
            self.open_with(Operation::$operation, $model, rules(), move |p| P::$method(p, $($argument),*))
        }
    };
    (raw_call $operation:ident $method:ident($model:ident: $name:ty, $body:ident: $bytes:ty) -> $answer:ty, $named:expr) => {
        fn $method(&self, $model: $name, $body: $bytes) -> impl Future<Output = Result<$answer, Error>> + Send {
            self.call_with(&Operation::$operation, $named, move |p| P::$method(p, $model, $body.clone()))
        }
    };
    (raw_call $operation:ident $method:ident($body:ident: $bytes:ty) -> $answer:ty, $named:expr) => {
        fn $method(&self, $body: $bytes) -> impl Future<Output = Result<$answer, Error>> + Send {
            let call = async move {
                let name = self.model_in(&$body);
                let body = raw_body(&$body);
                let attempt = |p| P::$method(p, $body.clone());
                self.call_with(&Operation::$operation, call_model(&name, &body), attempt).await
            };
            futures::FutureExt::fuse(call)
        }
    };
    (raw_open $operation:ident $method:ident($model:ident: $name:ty, $body:ident: $bytes:ty) -> $item:ty, $named:expr) => {
        fn $method(&self, $model: $name, $body: $bytes) -> impl Future<Output = Result<ByteStream, Error>> + Send {
            let attempt = move |p| P::$method(p, $model, $body.clone());
            self.open_with(Operation::$operation, $named, byte_rules(), attempt)
        }
    };
    (raw_open $operation:ident $method:ident($body:ident: $bytes:ty) -> $item:ty, $named:expr) => {
        fn $method(&self, $body: $bytes) -> impl Future<Output = Result<ByteStream, Error>> + Send {
            let opening = async move {
                let name = self.model_in(&$body);
                let body = raw_body(&$body);
                let attempt = |p| P::$method(p, $body.clone());
                self.open_with(Operation::$operation, call_model(&name, &body), byte_rules(), attempt).await
            };
            futures::FutureExt::fuse(opening)
        }
    };
    // Never retried, because `Operations` cannot contain it.
    (passthrough $operation:ident $method:ident($model:ident: $name:ty, $body:ident: $stream:ty) -> $item:ty, $named:expr) => {
        fn $method(&self, $model: $name, mut $body: $stream) -> impl Future<Output = Result<ByteStream, Error>> + Send {
            let mut take = move || std::mem::replace(&mut $body, Box::pin(futures::stream::empty()));
            let attempt = move |p| P::$method(p, $model, take());
            self.open_with(Operation::$operation, $named, byte_rules(), attempt)
        }
    };
}

/// Implements `Failure`, and `Policy` from the release's configuration.
macro_rules! failure {
    (internal) => {
        failure! { Internal, |_error| None, |error| matches!(error, Error::Internal(text) if says_not_implemented(text)), |_config| None }
    };
    (internal_and_retry_after) => {
        failure! { Internal, |error| error.retry_after(), |error| matches!(error, Error::Internal(text) if says_not_implemented(text)), |config| config.retry_deadline }
    };
    (typed) => {
        failure! { Network, |error| error.retry_after(), |error| matches!(error, Error::Unsupported(_)), |config| config.retry_deadline }
    };
    ($network:ident, |$hinting:ident| $retry_after:expr, |$missing:ident| $not_implemented:expr, |$config:ident| $deadline:expr) => {
        impl Failure for Error {
            fn timeout() -> Self {
                Self::Timeout
            }

            fn empty_stream() -> Self {
                Self::network("the stream ended before any content".into())
            }

            fn is_transient(&self) -> bool {
                self.is_transient()
            }

            fn is_timeout(&self) -> bool {
                matches!(self, Self::Timeout)
            }

            fn is_not_implemented(&self) -> bool {
                let $missing = self;
                $not_implemented
            }

            fn status(&self) -> Option<u16> {
                match self {
                    Self::Provider { status, .. } => Some(*status),
                    _ => None,
                }
            }

            fn body(&self) -> Option<&str> {
                match self {
                    Self::Provider { body, .. } => Some(body),
                    _ => None,
                }
            }

            fn retry_after(&self) -> Option<Duration> {
                let $hinting = self;
                $retry_after
            }
        }

        impl NetworkError for Error {
            fn network(text: String) -> Self {
                Self::$network(text)
            }
        }

        /// The values of the configuration, or else the defaults. Zero disables the
        /// timeout or the deadline.
        ///
        /// `retry_deadline`, in the releases that have it, becomes the
        /// [deadline](Policy::deadline), which is stricter: crabllm-core starts no
        /// attempt after it; here a running attempt ends as well. If it is not set,
        /// there is no deadline here, but one of 15 seconds there.
        impl From<&ProviderConfig> for Policy {
            fn from($config: &ProviderConfig) -> Self {
                Self::configured($config.max_retries, $config.timeout, $deadline)
            }
        }
    };
}

releases! { release }

/// Re-exports of the releases.
pub mod exports {
    use super::*;

    macro_rules! export {
        ($release:ident $feature:literal $($column:ident)*) => {
            #[cfg(feature = $feature)]
            pub use ::$release;
        };
    }

    releases! { export }
}

/// Recognises the text of `Error::not_implemented` up to 0.0.21, which has no variant
/// for it.
#[allow(dead_code, reason = "later releases have a variant")]
fn says_not_implemented(text: &str) -> bool {
    text.strip_prefix("provider method '")
        .and_then(|rest| rest.strip_suffix("' not implemented"))
        .is_some_and(|method| !method.contains('\''))
}

/// An error of a release that can say that something went wrong in the network.
trait NetworkError: Failure {
    fn network(text: String) -> Self;
}

/// The rules for a stream of items.
fn rules<I: Item, E: Failure>() -> Items<I, E, E> {
    Items {
        is_finish: I::IS_FINISH,
        ..Items::new(I::is_content)
    }
}

/// The rules for a stream of bytes, whose errors are those of I/O: the error of the
/// release is inside, or it was the network.
#[allow(dead_code, reason = "earlier releases have no such streams")]
fn byte_rules<E: NetworkError>() -> Items<Bytes, io::Error, E> {
    Items {
        timeout: || io::Error::new(io::ErrorKind::TimedOut, E::timeout()),
        is_content: Bytes::is_content,
        is_finish: None,
        into_failure: error_within,
    }
}

/// The release's error within one of I/O, or else one of the network with its text.
#[allow(dead_code, reason = "earlier releases have no such streams")]
fn error_within<E: NetworkError>(error: io::Error) -> E {
    match error
        .downcast::<E>()
        .or_else(|error| error.downcast::<io::Error>().map(error_within))
    {
        Ok(error) => error,
        Err(error) => E::network(error.to_string()),
    }
}

impl<P, T: Timer> Retrying<P, T> {
    /// The model that a raw body names, if the call needs it from its start.
    #[allow(dead_code, reason = "0.0.15 has no raw bodies")]
    fn model_in(&self, raw_body: &[u8]) -> Option<String> {
        let engine = &self.engine;
        let needed = engine.hooks.observer.is_some()
            || !engine.policies.by_model.is_empty()
            || engine.limiter.as_ref().is_some_and(RateLimiter::is_awake);
        needed.then(|| model_in(raw_body)).flatten()
    }
}

#[allow(dead_code, reason = "0.0.15 has no raw bodies")]
fn raw_body(bytes: &[u8]) -> RawBody<'_> {
    let parse = model_in;
    RawBody { bytes, parse }
}

#[allow(dead_code, reason = "0.0.15 has no raw bodies")]
fn call_model<'m>(name: &'m Option<String>, body: &'m RawBody<'m>) -> CallModel<'m> {
    match name {
        Some(name) => CallModel::Named(name),
        None => CallModel::Unnamed(Some(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claims about the errors of a release.
    macro_rules! contents {
        ($methods:ident $errors:ident) => {
            #[test]
            fn only_not_implemented_errors_are_recognised() {
                assert!(Error::not_implemented("embedding").is_not_implemented());
                for text in [
                    "not implemented",
                    "provider method 'x' not implemented yet",
                    "provider method 'x' failed: 'y' not implemented",
                ] {
                    assert!(!Error::Internal(text.into()).is_not_implemented(), "{text}");
                }
                let text = || "provider method 'x' not implemented".to_owned();
                let server = server_error!($errors 501, text());
                for other in [Error::Timeout, Error::Config(text()), server] {
                    assert!(!other.is_not_implemented(), "{other}");
                }
                missing!($errors);
            }

            #[test]
            fn the_error_of_a_stream_of_bytes_is_the_release_s_or_of_the_network() {
                let rules = byte_rules::<Error>();
                let server = || server_error!($errors 429, "slow down".to_owned());
                for error in [
                    io::Error::other(server()),
                    io::Error::other(io::Error::other(server())),
                ] {
                    assert_eq!((rules.into_failure)(error).status(), Some(429));
                }
                let timeout = (rules.timeout)();
                assert_eq!(timeout.kind(), io::ErrorKind::TimedOut);
                assert!((rules.into_failure)(timeout).is_timeout());
                let lost = (rules.into_failure)(io::Error::other("lost"));
                let empty = Error::empty_stream();
                for (error, text) in [(lost, "lost"), (empty, "ended before any content")] {
                    assert!(error.to_string().ends_with(text), "{error}");
                    assert!(Failure::is_transient(&error) && !error.is_timeout());
                }
            }
        };
    }

    macro_rules! server_error {
        (internal $status:expr, $body:expr) => {
            Error::Provider {
                status: $status,
                body: $body,
            }
        };
        ($hinting:ident $status:expr, $body:expr) => {
            Error::Provider {
                status: $status,
                body: $body,
                retry_after: Some(Duration::from_secs(7)),
            }
        };
    }

    /// The variant for missing methods, in releases that have one.
    macro_rules! missing {
        (typed) => {
            let text = || "provider method 'x' not implemented".to_owned();
            assert!(Error::Unsupported("images".into()).is_not_implemented());
            for other in [
                Error::Network(text()),
                Error::Decode(text()),
                Error::Encode(text()),
                Error::Invalid(text()),
                Error::Routing(text()),
                Error::Internal(text()),
            ] {
                assert!(!other.is_not_implemented(), "{other}");
            }
        };
        ($untyped:ident) => {};
    }

    releases! { release }
}
