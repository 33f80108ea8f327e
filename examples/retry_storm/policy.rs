//! The policies that are compared, all run by the engine of this crate.

use crabllm_retry::{Backoff, Policy, RetryBudget, Retrying, Timer};
use std::time::Duration;

pub struct SimulatedPolicy {
    pub name: &'static str,
    policy: Policy,

    /// Whether each process has a budget.
    has_budget: bool,

    /// The average delay between a call's last attempt and its error.
    pub last_sleep: Duration,
}

impl SimulatedPolicy {
    pub fn all() -> [Self; 4] {
        let default = |name| Self {
            name,
            policy: Policy::default(),
            has_budget: false,
            last_sleep: Duration::ZERO,
        };
        // `src/openai/_constants.py` of OpenAI's library for Python. Its jitter takes up to a
        // quarter off each delay, here up to a half: the calls are spread over the second, so
        // little depends on it.
        let openai =
            Policy::default()
                .timeout(Duration::from_secs(600))
                .backoff(Backoff::exponential(
                    Duration::from_millis(500),
                    Duration::from_secs(8),
                ));
        [
            // `src/retrying.rs` of crabllm-core 0.0.25 has the same policy, but sleeps 200 to
            // 400 ms after its last attempt.
            Self {
                last_sleep: Duration::from_millis(300),
                ..default("crabllm-core")
            },
            Self {
                policy: openai,
                ..default("OpenAI's library")
            },
            default("default"),
            Self {
                has_budget: true,
                ..default("default and budget")
            },
        ]
    }

    /// The wrapper of one process.
    pub fn wrap<P, T: Timer>(&self, provider: P, timer: T) -> Retrying<P, T> {
        let wrapper = Retrying::with_timer(provider, timer).policy(self.policy.clone());
        if self.has_budget {
            wrapper.budget(RetryBudget::default())
        } else {
            wrapper
        }
    }
}
