//! The settings of calls: time limits and retries.

mod backoff;
#[cfg(feature = "serde")]
mod keys;
mod operation;

pub use backoff::{Backoff, Jitter};
#[cfg(feature = "serde")]
pub use keys::{PolicyKeys, Table};
pub use operation::{NotRetryable, Operation, Operations};

use crate::timer::FOREVER;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How calls are timed and retried.
///
/// Start from [`Policy::default`] and use the setters, which have the names of the
/// fields. No value of any field makes a call panic.
///
/// ```
/// use crabllm_retry::{Backoff, Operations, Policy};
/// use std::time::Duration;
///
/// let patient = Policy::default()
///     .max_retries(5)
///     .timeout(Duration::from_secs(120))
///     .backoff(Backoff::exponential(Duration::from_secs(1), Duration::from_secs(30)))
///     .also_retry(Operations::STREAMS);
/// assert_eq!(patient.max_retries, 5);
/// ```
///
/// `Policy::from` takes the `ProviderConfig` of each enabled `crabllm-core` release.
///
/// With the feature `serde` it can be read from a file, with the keys of the table
/// `policy` of a `Config`. Missing keys have their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(from = "Table<PolicyKeys>", into = "PolicyKeys")
)]
#[non_exhaustive]
#[must_use = "a policy does nothing until a `Retrying` uses it"]
pub struct Policy {
    /// The most attempts after the first one. Default: 2, as in `crabllm-core`'s
    /// own wrapper. Zero: one attempt. A rate limiter adds at most ten free ones per call.
    pub max_retries: u32,

    /// The limit of one attempt, from the poll that found it pending; for a stream,
    /// until the provider returns it. Default: 30 seconds, as in `crabllm-core`'s own
    /// wrapper. Zero: no timeout.
    pub timeout: Duration,

    /// The limit of the whole call from its first poll, with attempts, delays and waits for
    /// a turn; for a stream, until the call returns it. An attempt gets at most the time that is left.
    /// If a delay would end at or after the deadline, the call returns its error at once,
    /// and no attempt starts at or after the deadline. It applies to every operation,
    /// including those that are not retried and have no timeout. Default: zero, no
    /// deadline.
    pub deadline: Duration,

    /// The limit of one attempt to open a stream, up to its first content, from the poll
    /// that found it pending. It replaces [`timeout`](Self::timeout) and
    /// [`stream_idle`](Self::stream_idle) until then. With it, every stream is returned at
    /// its first content, and a stream that has none in time fails with `Error::Timeout`,
    /// which is retried if the operation is. Default: zero, no limit. So is a hundred years or
    /// more.
    ///
    /// It is off by default because models that think may take minutes before their first
    /// content, and because an attempt that is given up is still billed and starts over.
    /// 30 seconds suit a chat with a model that does not think.
    pub first_content: Duration,

    /// The delays between attempts. Default: [`Backoff::default`].
    pub backoff: Backoff,

    /// The delays after an attempt that was throttled (status 429). They double with every
    /// counted retry of the call, throttled or not; a free retry of a rate limiter uses the
    /// first delay. Default: `None`, the same as [`backoff`](Self::backoff).
    pub throttle_backoff: Option<Backoff>,

    /// The longest wait that a server may ask for. An error that asks for more is
    /// returned at once. Default: 60 seconds, as in `crabllm-core`'s own wrapper.
    /// Zero: any wait is too long. With a rate limiter, a shorter one holds back all calls
    /// of the model.
    pub max_retry_after: Duration,

    /// The longest wait for the next item of an open stream, from the poll that found
    /// none. A slow consumer does not trigger it: the stream gets one more turn of the
    /// executor before it is ended. Default: 90 seconds, as in `crabllm-core`'s own
    /// wrapper. Zero: no limit.
    ///
    /// Before the first content of a stream that is retried, a longer silence fails the
    /// attempt. After it, and in any other stream, it ends the stream with
    /// `Error::Timeout`; a stream of bytes with a [`std::io::Error`] of kind
    /// [`TimedOut`](std::io::ErrorKind::TimedOut) that contains it.
    pub stream_idle: Duration,

    /// The operations that are retried. Default: [`Operations::CHAT`].
    ///
    /// A stream that is retried is returned at its first content, and a failure before
    /// that is retried. Streams are not in the default, because the server may have
    /// begun, and billed, an answer that was never received. Embeddings, images, audio
    /// and listings have a timeout only if they are in this set.
    pub retry: Operations,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_retries: 2,
            timeout: Duration::from_secs(30),
            deadline: Duration::ZERO,
            first_content: Duration::ZERO,
            backoff: Backoff::default(),
            throttle_backoff: None,
            max_retry_after: Duration::from_secs(60),
            stream_idle: Duration::from_secs(90),
            retry: Operations::CHAT,
        }
    }
}

impl Policy {
    /// Our choice for production; see
    /// [`Retrying::recommended`](crate::retrying::Retrying::recommended) for all of it.
    ///
    /// | field | value | source |
    /// | --- | --- | --- |
    /// | `max_retries` | 4 | ours: the four delays add up to 3.75 to 7.5 s |
    /// | `timeout` | 10 min | [OpenAI's] and [Anthropic's] libraries. 30 s cut off long answers, which then start over and are billed again |
    /// | `deadline` | 15 min | ours: leaves 5 min after an attempt that hangs |
    /// | `backoff` | 500 ms to 8 s | [OpenAI's] and [Anthropic's] libraries |
    /// | `throttle_backoff` | 1 s to 60 s | ours: most rate limits are per minute |
    /// | `max_retry_after` | 5 min | ours |
    /// | `stream_idle` | 300 s | [OpenAI's Codex]; models think before they answer |
    /// | `retry` | chats and streams | [OpenAI's] and [Anthropic's] libraries |
    ///
    /// [OpenAI's]: https://github.com/openai/openai-python/blob/main/src/openai/_constants.py
    /// [Anthropic's]: https://github.com/anthropics/anthropic-sdk-python/blob/main/src/anthropic/_constants.py
    /// [OpenAI's Codex]: https://github.com/openai/codex/blob/main/docs/config.md
    pub fn recommended() -> Self {
        let seconds = Duration::from_secs;
        Self::default()
            .max_retries(4)
            .timeout(seconds(600))
            .deadline(seconds(900))
            .backoff(Backoff::exponential(Duration::from_millis(500), seconds(8)))
            .throttle_backoff(Backoff::exponential(seconds(1), seconds(60)))
            .max_retry_after(seconds(300))
            .stream_idle(seconds(300))
            .retry(Operations::CHAT | Operations::STREAMS)
    }

    /// The defaults, overridden by the values of a configuration. `timeout` and
    /// `deadline` are in seconds.
    #[cfg(feature = "_provider")]
    pub(crate) fn configured(
        max_retries: Option<u32>,
        timeout: Option<u64>,
        deadline: Option<u64>,
    ) -> Self {
        let default = Self::default();
        Self {
            max_retries: max_retries.unwrap_or(default.max_retries),
            timeout: timeout.map_or(default.timeout, Duration::from_secs),
            deadline: deadline.map_or(default.deadline, Duration::from_secs),
            ..default
        }
    }

    /// Sets the most attempts after the first one.
    pub fn max_retries(mut self, n: u32) -> Self {
        self.max_retries = n;
        self
    }

    /// Sets the limit of one attempt. Zero: no timeout.
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout = d;
        self
    }

    /// Sets the limit of the whole call. Zero: no deadline.
    pub fn deadline(mut self, d: Duration) -> Self {
        self.deadline = d;
        self
    }

    /// Sets the limit of one attempt to open a stream, up to its first content. Zero: no
    /// limit.
    pub fn first_content(mut self, d: Duration) -> Self {
        self.first_content = d;
        self
    }

    /// Sets the delays between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the delays after an attempt that was throttled.
    pub fn throttle_backoff(mut self, backoff: Backoff) -> Self {
        self.throttle_backoff = Some(backoff);
        self
    }

    /// Sets the longest wait that a server may ask for. Zero: any wait is too long.
    pub fn max_retry_after(mut self, d: Duration) -> Self {
        self.max_retry_after = d;
        self
    }

    /// Sets how long an open stream may be silent. Zero: no limit.
    pub fn stream_idle(mut self, d: Duration) -> Self {
        self.stream_idle = d;
        self
    }

    /// Sets which operations are retried: exactly these.
    pub fn retry(mut self, operations: Operations) -> Self {
        self.retry = operations;
        self
    }

    /// Adds operations to those that are retried.
    ///
    /// ```
    /// use crabllm_retry::{Operations, Policy};
    ///
    /// let policy = Policy::default().also_retry(Operations::STREAMS);
    /// assert_eq!(policy.retry, Operations::CHAT | Operations::STREAMS);
    /// ```
    pub fn also_retry(mut self, operations: Operations) -> Self {
        self.retry |= operations;
        self
    }

    /// The most retries of a call, `None` if the operation is not retried.
    #[inline]
    pub(crate) fn retries(&self, operation: Operation) -> Option<u32> {
        self.is_retried(operation).then_some(self.max_retries)
    }

    #[inline]
    pub(crate) fn attempt_timeout(&self, operation: Operation) -> Option<Duration> {
        let timed = operation.is_always_timed() || self.is_retried(operation);
        limit(self.timeout).filter(|_| timed)
    }

    #[inline]
    fn is_retried(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Other(_)) || self.retry.contains(operation)
    }

    #[inline]
    pub(crate) fn call_deadline(&self) -> Option<Duration> {
        limit(self.deadline)
    }

    pub(crate) fn first_content_limit(&self) -> Option<Duration> {
        limit(self.first_content)
    }

    /// Whether an attempt to open a stream lasts until its first content.
    pub(crate) fn commits(&self, operation: Operation) -> bool {
        self.is_retried(operation) || self.first_content_limit().is_some()
    }

    pub(crate) fn idle_limit(&self) -> Option<Duration> {
        limit(self.stream_idle)
    }

    pub(crate) fn backoff_after(&self, throttled: bool) -> &Backoff {
        match &self.throttle_backoff {
            Some(backoff) if throttled => backoff,
            _ => &self.backoff,
        }
    }
}

/// `None` for zero and for a hundred years or more.
#[inline]
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero() && duration < FOREVER).then_some(duration)
}

/// The policies of one wrapper.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    pub general: Policy,

    /// Replace the general policy for calls that name the model.
    pub by_model: Arc<BTreeMap<String, Policy>>,
}

impl Policies {
    #[inline]
    pub fn of(&self, model: Option<&str>) -> &Policy {
        if self.by_model.is_empty() {
            return &self.general;
        }
        model
            .and_then(|model| self.by_model.get(model))
            .unwrap_or(&self.general)
    }
}
