//! Events for observers.

mod observers;
#[cfg(feature = "tracing")]
mod trace;

pub use observers::Observers;
#[cfg(feature = "tracing")]
pub use trace::trace;

use crate::{failure::Failure, policy::Operation};
use std::{error::Error, fmt, time::Duration};

/// Something that happened in a call, for the observers of
/// [`Retrying::observe`](crate::retrying::Retrying::observe), or of
/// [`Fallback::observe`](struct.Fallback.html#method.observe), which has the last three.
///
/// Every call ends with one `Success` or `GaveUp`, unless it is dropped or its provider
/// panics. Each retry is announced by one `Retry`. If its delay or its wait for a turn ends
/// at or after the deadline, the retry does not start and the call ends with `GaveUp`.
/// Attempts are counted from 1; 0 is before the first. `elapsed` is the time since the call's first
/// poll, by the wrapper's timer. `model` is named by the request or its raw body, `None` if
/// by neither. The methods return these values for every event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt starts.
    #[non_exhaustive]
    Attempt {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that starts.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
    },

    /// An attempt failed, and another one follows after `delay`, and in its turn if a
    /// [rate limiter](crate::limits::RateLimiter) is awake.
    #[non_exhaustive]
    Retry {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that failed.
        attempt: u32,
        /// The wait before the next attempt.
        delay: Duration,
        /// The time since the call began.
        elapsed: Duration,
        /// Why the attempt failed.
        error: &'a dyn Failure,
        /// Where the delay comes from.
        source: DelaySource,
    },

    /// The turn of an attempt has come, for which the call had to wait because of the
    /// [rate limiter](crate::limits::RateLimiter). The attempt starts next.
    #[non_exhaustive]
    Waiting {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that failed last; 0 before the first.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
        /// How long the call waited for its turn.
        wait: Duration,
    },

    /// The call succeeded. A stream that is held until its first content, because it is
    /// retried or has a [`first_content`](crate::policy::Policy::first_content), has it now,
    /// so `elapsed` is the time to the first content. Any other stream is open.
    #[non_exhaustive]
    Success {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that succeeded.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
    },

    /// The call failed with `error`.
    #[non_exhaustive]
    GaveUp {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that failed last; 0 if the deadline passed before the first.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
        /// The error that the caller gets.
        error: &'a dyn Failure,
        /// Why no further attempt is made.
        reason: GiveUpReason,
    },

    /// An open stream was silent for too long and was ended with a timeout.
    #[non_exhaustive]
    StreamStalled {
        /// The number of the call.
        call: u64,
        /// The method that opened the stream.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that opened the stream.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
        /// The limit that the silence exceeded.
        idle: Duration,
    },

    /// A stream broke after the call had returned it.
    #[non_exhaustive]
    StreamBroken {
        /// The number of the call.
        call: u64,
        /// The method that opened the stream.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The attempt that opened the stream.
        attempt: u32,
        /// The time since the call began.
        elapsed: Duration,
        /// The first error that the stream yielded. `None`: a stream of
        /// `chat_completion_stream`, held until its first content, ended without a finish
        /// reason, so its reader has a part of an answer and no error.
        error: Option<&'a (dyn Error + Send + Sync + 'static)>,
    },

    /// A call of a [`Fallback`](struct.Fallback.html) goes to the second provider, because
    /// the first one failed.
    #[non_exhaustive]
    FellBack {
        /// The number of the call.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The time since the call began.
        elapsed: Duration,
        /// The failure of the first provider.
        error: &'a dyn Failure,
    },

    /// The breaker of a [`Fallback`](struct.Fallback.html) opens: calls go straight to the
    /// second provider.
    #[non_exhaustive]
    BreakerOpened {
        /// The number of the call whose failure opened it.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The time since the call began.
        elapsed: Duration,
    },

    /// The first provider of a [`Fallback`](struct.Fallback.html) has answered a probe, so
    /// that calls go to it again.
    #[non_exhaustive]
    BreakerClosed {
        /// The number of the call that probed.
        call: u64,
        /// The method that was called.
        operation: Operation,
        /// The requested model, `None` if the call names none.
        model: Option<&'a str>,
        /// The time since the call began.
        elapsed: Duration,
    },
}

/// Reads a field of any event. The events of a fallback may have another value.
macro_rules! field {
    ($event:expr, $field:ident) => {
        field!($event, $field, { $field, .. } => *$field)
    };
    ($event:expr, $field:ident, $pattern:tt => $of_fallback:expr) => {
        match $event {
            Event::Attempt { $field, .. }
            | Event::Retry { $field, .. }
            | Event::Waiting { $field, .. }
            | Event::Success { $field, .. }
            | Event::GaveUp { $field, .. }
            | Event::StreamStalled { $field, .. }
            | Event::StreamBroken { $field, .. } => *$field,
            Event::FellBack $pattern
            | Event::BreakerOpened $pattern
            | Event::BreakerClosed $pattern => $of_fallback,
        }
    };
}

impl<'a> Event<'a> {
    /// The number of the call, unique among the calls of one wrapper and its clones.
    /// Calls are counted only if the wrapper has an observer.
    pub fn call(&self) -> u64 {
        field!(self, call)
    }

    /// The method that was called.
    pub fn operation(&self) -> Operation {
        field!(self, operation)
    }

    /// The model that was asked, `None` if the call names none.
    pub fn model(&self) -> Option<&'a str> {
        field!(self, model)
    }

    /// The attempt that the event is about, counted from 1; 0 before the first, and for the
    /// events of a [`Fallback`](struct.Fallback.html).
    pub fn attempt(&self) -> u32 {
        field!(self, attempt, { .. } => 0)
    }

    /// The time since the call's first poll, by the wrapper's timer or clock.
    pub fn elapsed(&self) -> Duration {
        field!(self, elapsed)
    }
}

/// Where the delay before a retry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DelaySource {
    /// The policy's backoff.
    Backoff,

    /// The server, which requested more than the backoff's delay.
    RetryAfter,
}

impl fmt::Display for DelaySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backoff => "backoff",
            Self::RetryAfter => "requested by the server",
        })
    }
}

/// Why a failed call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The error is not transient.
    NotTransient,

    /// The operation is not among those that the policy retries.
    NotRetried,

    /// All retries are used up.
    Exhausted,

    /// The server requested a longer delay than the policy allows.
    RetryAfterTooLong,

    /// The deadline passed, or would pass during the next delay, or while the rate limiter
    /// holds the call back.
    Deadline,

    /// The retry budget has too few tokens.
    Budget,
}

impl fmt::Display for GiveUpReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTransient => "not transient",
            Self::NotRetried => "the operation is not retried",
            Self::Exhausted => "no retry left",
            Self::RetryAfterTooLong => "asked to wait too long",
            Self::Deadline => "no time left before the deadline",
            Self::Budget => "no retry left in the budget",
        })
    }
}
