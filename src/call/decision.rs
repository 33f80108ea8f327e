//! The decision about a failed attempt, as a pure function.

use crate::{
    event::{DelaySource, GiveUpReason},
    policy::{Operation, Policy},
};
use std::time::Duration;

/// A failed attempt.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Whether another attempt may succeed.
    pub transient: bool,

    /// How long the server asked to wait.
    pub requested: Option<Duration>,

    /// The counted retries of the call so far.
    pub retries: u32,

    /// Whether the next retry is free.
    pub free: bool,

    /// The time left before the deadline; `None` without one, zero if it ended the
    /// attempt.
    pub left: Option<Duration>,

    /// The delay drawn from the backoff.
    pub drawn: Duration,

    /// The random fraction of a requested delay's spread, from 0 to 1; 0 without jitter,
    /// or if turns spread the calls.
    pub spread: f64,
}

#[derive(Debug, PartialEq)]
pub enum Decision {
    Retry {
        delay: Duration,
        source: DelaySource,
    },
    GiveUp(GiveUpReason),
}

impl Failed {
    /// At least `requested`, spread so that callers do not return together, and by at
    /// most half of the time left.
    fn spread(&self, requested: Duration) -> Duration {
        const MOST: Duration = Duration::from_secs(5);
        let left = self.left.unwrap_or(Duration::MAX);
        let most = MOST.min(left.saturating_sub(requested) / 2);
        requested.saturating_add((requested / 4).min(most).mul_f64(self.spread))
    }
}

/// The most free retries of a call. In simulations no call needed more than eight.
const MOST_FREE: u8 = 10;

/// Whether a throttled failure whose model is awake earns a free retry.
pub fn earns_free_retry(policy: &Policy, operation: Operation, free_so_far: u8) -> bool {
    policy.retries(operation).is_some_and(|max| max > 0) && free_so_far < MOST_FREE
}

pub fn decide(policy: &Policy, operation: Operation, failed: &Failed) -> Decision {
    if !failed.transient {
        return Decision::GiveUp(GiveUpReason::NotTransient);
    }
    let Some(max_retries) = policy.retries(operation) else {
        return Decision::GiveUp(GiveUpReason::NotRetried);
    };
    if !failed.free && failed.retries >= max_retries {
        return Decision::GiveUp(GiveUpReason::Exhausted);
    }
    let (delay, source) = match failed.requested {
        Some(requested) if requested > policy.max_retry_after => {
            return Decision::GiveUp(GiveUpReason::RetryAfterTooLong);
        }
        Some(requested) if requested > failed.drawn => {
            (failed.spread(requested), DelaySource::RetryAfter)
        }
        _ => (failed.drawn, DelaySource::Backoff),
    };
    if failed.left.is_some_and(|left| delay >= left) {
        return Decision::GiveUp(GiveUpReason::Deadline);
    }
    Decision::Retry { delay, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const FAILED: Failed = Failed {
        transient: true,
        requested: None,
        retries: 0,
        free: false,
        left: Some(secs(90)),
        drawn: secs(1),
        spread: 0.0,
    };

    #[test]
    #[rustfmt::skip]
    fn a_failure_is_retried_or_given_up_by_the_contract() {
        use Decision::{GiveUp, Retry};
        use GiveUpReason::*;
        let backoff = |delay| Retry { delay, source: DelaySource::Backoff };
        let requested = |delay| Retry { delay, source: DelaySource::RetryAfter };
        let policy = Policy::default().max_retries(2).max_retry_after(secs(60));
        for (case, failed, expected) in [
            ("transient", FAILED, backoff(secs(1))),
            ("last retry left", Failed { retries: 1, ..FAILED }, backoff(secs(1))),
            ("no retry left", Failed { retries: 2, ..FAILED }, GiveUp(Exhausted)),
            ("no retry left, free", Failed { retries: 2, free: true, ..FAILED }, backoff(secs(1))),
            ("free, asked for too much", Failed { free: true, requested: Some(secs(61)), ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("free, up to the deadline", Failed { free: true, left: Some(secs(1)), ..FAILED }, GiveUp(Deadline)),
            ("not transient", Failed { transient: false, ..FAILED }, GiveUp(NotTransient)),
            ("not transient, none left", Failed { transient: false, retries: 2, ..FAILED }, GiveUp(NotTransient)),
            ("zero delay", Failed { drawn: secs(0), ..FAILED }, backoff(secs(0))),
            ("asked for more than drawn", Failed { requested: Some(secs(5)), ..FAILED }, requested(secs(5))),
            ("asked for as much as drawn", Failed { requested: Some(secs(1)), ..FAILED }, backoff(secs(1))),
            ("asked for less than drawn", Failed { requested: Some(secs(0)), ..FAILED }, backoff(secs(1))),
            ("asked for the most", Failed { requested: Some(secs(60)), ..FAILED }, requested(secs(60))),
            ("asked for too much", Failed { requested: Some(secs(61)), ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("asked for ever", Failed { requested: Some(Duration::MAX), ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("asked, but not transient", Failed { requested: Some(secs(5)), transient: false, ..FAILED }, GiveUp(NotTransient)),
            ("spread by a quarter", Failed { requested: Some(secs(8)), spread: 0.5, ..FAILED }, requested(secs(9))),
            ("spread by 5 s", Failed { requested: Some(secs(60)), spread: 1.0, ..FAILED }, requested(secs(65))),
            ("spread half way to the deadline", Failed { requested: Some(secs(60)), spread: 1.0, left: Some(secs(62)), ..FAILED }, requested(secs(61))),
            ("too much before it is spread", Failed { requested: Some(secs(61)), spread: 0.0, ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("the backoff is not spread", Failed { requested: Some(secs(1)), spread: 1.0, ..FAILED }, backoff(secs(1))),
            ("short of the deadline", Failed { left: Some(secs(2)), ..FAILED }, backoff(secs(1))),
            ("up to the deadline", Failed { left: Some(secs(1)), ..FAILED }, GiveUp(Deadline)),
            ("no delay, at the deadline", Failed { left: Some(secs(0)), drawn: secs(0), ..FAILED }, GiveUp(Deadline)),
            ("asked past the deadline", Failed { left: Some(secs(5)), requested: Some(secs(6)), ..FAILED }, GiveUp(Deadline)),
            ("drawn for ever", Failed { drawn: Duration::MAX, ..FAILED }, GiveUp(Deadline)),
            ("no deadline", Failed { left: None, drawn: Duration::MAX, ..FAILED }, backoff(Duration::MAX)),
        ] {
            assert_eq!(decide(&policy, Operation::ChatCompletion, &failed), expected, "{case}");
        }
        let outside = decide(&policy, Operation::Embedding, &FAILED);
        assert_eq!(outside, GiveUp(NotRetried));
    }
}
