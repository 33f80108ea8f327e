//! The policies that are compared.

use crabllm_retry::{Backoff, Policy, RetryBudget, Retrying, Timer};
use std::{ops::Range, time::Duration};

/// A policy, and what it is called.
pub struct Contender {
    pub name: &'static str,
    policy: Policy,

    /// Whether each process has a budget.
    budget: bool,

    /// How long a call sleeps after its last attempt, for nothing.
    pub last_sleep: Option<Range<Duration>>,
}

impl Contender {
    pub fn all() -> [Self; 4] {
        [
            Self::original(),
            Self::openai(),
            Self::unbudgeted(),
            Self::budgeted(),
        ]
    }

    /// The wrapper in crabllm-core 0.0.25, `src/retrying.rs`: two retries after 100 and 200 ms,
    /// of which jitter takes up to a half, and 30 seconds for each attempt.
    ///
    /// Its last failure is followed by the sleep before a retry that it does not make. That
    /// makes no attempt, but the caller waits for it.
    fn original() -> Self {
        Self {
            name: "crabllm-core",
            last_sleep: Some(Duration::from_millis(200)..Duration::from_millis(400)),
            ..Self::unbudgeted()
        }
    }

    /// OpenAI's library for Python, `src/openai/_constants.py`: two retries after delays that
    /// double from 0.5 to 8 seconds, and ten minutes for each attempt.
    ///
    /// Its jitter takes up to a quarter off each delay (`_calculate_retry_timeout` in
    /// `src/openai/_base_client.py`). Here it takes up to a half: the calls begin spread over the
    /// second, so that little depends on it.
    fn openai() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(8));
        Self {
            name: "OpenAI's library",
            policy: Policy::default()
                .timeout(Duration::from_secs(600))
                .backoff(backoff),
            ..Self::unbudgeted()
        }
    }

    /// This crate's default.
    fn unbudgeted() -> Self {
        Self {
            name: "default",
            policy: Policy::default(),
            budget: false,
            last_sleep: None,
        }
    }

    /// This crate's default, with the default budget.
    pub fn budgeted() -> Self {
        Self {
            name: "default and budget",
            budget: true,
            ..Self::unbudgeted()
        }
    }

    /// The wrapper of one process.
    pub fn wrap<P, T: Timer>(&self, provider: P, timer: T) -> Retrying<P, T> {
        let wrapper = Retrying::with_timer(provider, timer).policy(self.policy.clone());
        if self.budget {
            wrapper.budget(RetryBudget::default())
        } else {
            wrapper
        }
    }
}
