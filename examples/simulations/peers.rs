//! The policies that are compared. This crate's engine plays all of them.

use crate::aws::AwsLimiter;
use crabllm_retry::{Backoff, Jitter, Policy, RetryBudget};
use std::time::Duration;

/// A policy, and what its processes have besides.
#[derive(Clone, Default)]
pub struct Peer {
    pub name: &'static str,
    pub policy: Policy,

    pub has_limiter: bool,

    /// Make the budget and the limiter of a process.
    pub budget: Option<fn() -> RetryBudget>,
    pub aws_limiter: Option<fn() -> AwsLimiter>,

    /// The average delay between a call's last attempt and its error.
    pub last_sleep: Duration,
}

/// `ours`, and the policies that it is compared with.
pub fn with_others(ours: Peer) -> Vec<Peer> {
    let second = Duration::from_secs(1);
    let peer = |name, policy| Peer {
        name,
        policy,
        ..Peer::default()
    };
    // `src/retrying.rs` of crabllm-core 0.0.25 has the default policy, but sleeps 200 to 400 ms
    // after its last attempt.
    let crabllm_core = Peer {
        last_sleep: second * 3 / 10,
        ..peer("crabllm-core", Policy::default())
    };
    // `src/openai/_constants.py` of OpenAI's library for Python. Its jitter takes up to a quarter
    // off each delay, here up to a half.
    let backoff = Backoff::exponential(second / 2, 8 * second);
    let openai = Policy::default().timeout(600 * second).backoff(backoff);
    let openai = peer("OpenAI's library", openai);
    // `botocore/retries/standard.py`: delays of 0 to 1 and 0 to 2 seconds, and a quota of 500
    // from which a retry takes 5. The timeout is off: no attempt here takes 60 seconds, unless
    // the limiter of the adaptive mode makes it wait.
    let backoff = Backoff::exponential(second, 20 * second).jitter(Jitter::Full);
    let aws = Policy::default().timeout(Duration::ZERO).backoff(backoff);
    let standard = Peer {
        budget: Some(|| RetryBudget::default().cost(5)),
        ..peer("AWS standard", aws)
    };
    let adaptive = Peer {
        name: "AWS adaptive",
        aws_limiter: Some(AwsLimiter::new),
        ..standard.clone()
    };
    let default = peer("default", Policy::default());
    vec![ours, default, crabllm_core, openai, standard, adaptive]
}
