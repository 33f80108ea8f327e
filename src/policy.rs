//! What a user says about retries and timeouts.

use crate::{Backoff, Operations};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How calls are timed and retried.
///
/// A policy is made from [`Policy::default`] by setters of the fields' names.
/// No value of any field makes a call panic.
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
/// It can also be made from the `ProviderConfig` of each enabled `crabllm-core`
/// release:
///
/// ```
/// # #[cfg(feature = "crabllm-core-0_0_19")] {
/// use crabllm_retry::{Policy, crabllm_core_0_0_19::ProviderConfig};
/// use std::time::Duration;
///
/// let config = ProviderConfig { timeout: Some(45), ..ProviderConfig::default() };
/// let policy = Policy::from(&config).deadline(Duration::from_secs(100));
/// assert_eq!((policy.timeout.as_secs(), policy.max_retries), (45, 2));
/// # }
/// ```
///
/// With the feature `serde` it is read from a configuration file, by the names
/// of the fields. Durations are written as people do, or as a number of
/// seconds; what is left out has its default; unknown keys are refused.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use crabllm_retry::Policy;
/// use std::time::Duration;
///
/// let policy: Policy = toml::from_str(r#"
///     max_retries = 4
///     timeout = "1m 30s"
///     deadline = 300
///     retry = ["chat", "streams"]
///     backoff = { initial = "250ms", max = "8s", jitter = "full" }
/// "#)?;
/// assert_eq!(policy.timeout, Duration::from_secs(90));
///
/// let refused = toml::from_str::<Policy>("timeout = 'soon'").unwrap_err();
/// assert!(refused.message().starts_with("timeout: "));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a policy is for a `Retrying`"]
pub struct Policy {
    /// How many attempts may follow the first one. Default: 2, as in
    /// `crabllm-core`'s own wrapper. Zero: one attempt.
    pub max_retries: u32,

    /// How long one attempt may take; for a stream, until it is open.
    /// Default: 30 seconds, as in `crabllm-core`'s own wrapper. Zero: no
    /// timeout.
    pub timeout: Duration,

    /// How long the whole call may take from its first poll, attempts and
    /// delays together; for a stream, until it is open. An attempt gets at most
    /// what is left of it, no delay reaches it, and no attempt starts at it or
    /// after it. It bounds every operation, also one that is not retried and has
    /// no timeout. Default: zero, no deadline.
    pub deadline: Duration,

    /// The delays between attempts. Default: [`Backoff::default`].
    pub backoff: Backoff,

    /// The delays after an attempt that was throttled (status 429); they double
    /// with every retry of the call, throttled or not. Default: none, then
    /// [`backoff`](Self::backoff) serves.
    pub throttle_backoff: Option<Backoff>,

    /// The longest wait that a server may ask for: an error that asks for more
    /// is returned at once. Default: 60 seconds, as in `crabllm-core`'s own
    /// wrapper. Zero: any wait is too long.
    pub max_retry_after: Duration,

    /// How long an open stream may keep its consumer waiting for the next
    /// item, from the poll that finds none to the item, whether or not the
    /// consumer polls in between. Default: 90 seconds, as in `crabllm-core`'s
    /// own wrapper. Zero: no bound.
    ///
    /// A stream that is silent for longer ends with `Error::Timeout`; a stream
    /// of bytes, whose errors are [`std::io::Error`], with one of the kind
    /// [`TimedOut`](std::io::ErrorKind::TimedOut) around that.
    pub stream_idle: Duration,

    /// The operations that are retried. Default: [`Operations::CHAT`].
    ///
    /// Streams are not, since a server may have begun, and billed, an answer
    /// that was never seen. Embeddings, images, audio and listings have not
    /// even a timeout unless they are in this set.
    pub retry: Operations,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_retries: 2,
            timeout: Duration::from_secs(30),
            deadline: Duration::ZERO,
            backoff: Backoff::default(),
            throttle_backoff: None,
            max_retry_after: Duration::from_secs(60),
            stream_idle: Duration::from_secs(90),
            retry: Operations::CHAT,
        }
    }
}

impl Policy {
    /// The default but for what a configuration sets, in seconds.
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

    /// Sets how many attempts may follow the first one.
    pub fn max_retries(mut self, n: u32) -> Self {
        self.max_retries = n;
        self
    }

    /// Sets how long one attempt may take. Zero: no timeout.
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout = d;
        self
    }

    /// Sets how long the whole call may take. Zero: no deadline.
    ///
    /// ```
    /// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
    /// use crabllm_retry::{Policy, Retrying, Scripted, Step, VirtualTimer};
    /// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
    /// use std::time::Duration;
    ///
    /// let timer = VirtualTimer::new();
    /// let silent = Scripted::new(timer.clone(), [Step::hang(), Step::hang()]);
    /// let policy = Policy::default().deadline(Duration::from_secs(40));
    /// let provider = Retrying::with_timer(silent, timer.clone()).policy(policy);
    ///
    /// // An attempt of 30 seconds, a delay, and an attempt for what is left.
    /// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
    /// let answer = futures::executor::block_on(provider.chat_completion(&request));
    /// assert!(answer.is_err());
    /// assert_eq!(timer.elapsed(), Duration::from_secs(40));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(mut self, d: Duration) -> Self {
        self.deadline = d;
        self
    }

    /// Sets the delays between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the delays after an attempt that was throttled.
    ///
    /// ```
    /// use crabllm_retry::{Backoff, Policy};
    /// use std::time::Duration;
    ///
    /// // A server that counts by the minute is not asked again at once.
    /// let slow = Backoff::exponential(Duration::from_secs(5), Duration::from_secs(60));
    /// let policy = Policy::default().throttle_backoff(slow);
    /// assert_eq!(policy.throttle_backoff, Some(slow));
    /// assert_eq!(policy.backoff, Backoff::default());
    /// ```
    pub fn throttle_backoff(mut self, backoff: Backoff) -> Self {
        self.throttle_backoff = Some(backoff);
        self
    }

    /// Sets the longest wait that a server may ask for. Zero: any wait is too long.
    pub fn max_retry_after(mut self, d: Duration) -> Self {
        self.max_retry_after = d;
        self
    }

    /// Sets how long an open stream may stay silent. Zero: no bound.
    pub fn stream_idle(mut self, d: Duration) -> Self {
        self.stream_idle = d;
        self
    }

    /// Sets which operations are retried: exactly these.
    pub fn retry(mut self, operations: Operations) -> Self {
        self.retry = operations;
        self
    }

    /// Retries these operations too, besides those that are set.
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
}

/// The policies of one wrapper: one for every call, and those for the calls that
/// name a certain model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) general: Policy,
    pub(crate) by_model: Arc<BTreeMap<String, Policy>>,
}

impl Policies {
    /// The policy for a call that names this model, or none.
    #[inline]
    pub(crate) fn of(&self, model: Option<&str>) -> &Policy {
        if self.by_model.is_empty() {
            return &self.general;
        }
        model
            .and_then(|model| self.by_model.get(model))
            .unwrap_or(&self.general)
    }
}
