//! What to do about a failed attempt: values in, a value out.

use crate::{DelaySource, GiveUpReason, Operation, Policy, timer::FOREVER};
use std::time::Duration;

/// What a policy grants to the calls of one operation.
#[derive(Debug, PartialEq)]
pub(crate) struct Grant {
    /// How many retries, or `None` where the operation is not retried at all.
    pub(crate) retries: Option<u32>,

    /// The bound of each attempt.
    pub(crate) timeout: Option<Duration>,

    /// The bound of the whole call.
    pub(crate) deadline: Option<Duration>,

    /// The longest wait that the server may ask for.
    pub(crate) max_retry_after: Duration,
}

impl Grant {
    #[inline]
    pub(crate) fn new(policy: &Policy, operation: Operation) -> Self {
        let retried = policy.retry.contains(operation);
        let timed = retried || operation.is_always_timed();
        Self {
            retries: retried.then_some(policy.max_retries),
            timeout: timed.then_some(policy.timeout).and_then(bound),
            deadline: bound(policy.deadline),
            max_retry_after: policy.max_retry_after,
        }
    }
}

/// The bound that a user means: zero is none, and so is a century or more, which
/// timer crates need not survive.
#[inline]
pub(crate) fn bound(duration: Duration) -> Option<Duration> {
    (!duration.is_zero() && duration < FOREVER).then_some(duration)
}

/// What is known when an attempt has failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// Whether the error is worth another attempt at all.
    pub(crate) transient: bool,

    /// How long the server asked to wait.
    pub(crate) retry_after: Option<Duration>,

    /// The retries already made in this call.
    pub(crate) retries: u32,

    /// The time since the call's first poll, where somebody asks for it.
    pub(crate) elapsed: Duration,

    /// Whether the deadline has struck and so ended the attempt.
    pub(crate) struck: bool,

    /// The delay that the backoff has drawn.
    pub(crate) drawn: Duration,
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    Retry { delay: Duration, why: DelaySource },
    GiveUp(GiveUpReason),
}

pub(crate) fn decide(grant: &Grant, failed: &Failed) -> Decision {
    if !failed.transient {
        return Decision::GiveUp(GiveUpReason::NotTransient);
    }
    match grant.retries {
        None => return Decision::GiveUp(GiveUpReason::NotRetried),
        Some(allowed) if failed.retries >= allowed => {
            return Decision::GiveUp(GiveUpReason::Exhausted);
        }
        Some(_) => {}
    }
    let (delay, why) = match failed.retry_after {
        Some(asked) if asked > grant.max_retry_after => {
            return Decision::GiveUp(GiveUpReason::RetryAfterTooLong);
        }
        Some(asked) if asked > failed.drawn => (asked, DelaySource::RetryAfter),
        _ => (failed.drawn, DelaySource::Backoff),
    };
    let end = failed.elapsed.saturating_add(delay);
    if failed.struck || grant.deadline.is_some_and(|deadline| end >= deadline) {
        return Decision::GiveUp(GiveUpReason::Deadline);
    }
    Decision::Retry { delay, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operations;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A grant in which each bound is different, and a failure well within.
    const GRANT: Grant = Grant {
        retries: Some(2),
        timeout: Some(secs(30)),
        deadline: Some(secs(100)),
        max_retry_after: secs(60),
    };
    const FAILED: Failed = Failed {
        transient: true,
        retry_after: None,
        retries: 0,
        elapsed: secs(10),
        struck: false,
        drawn: secs(1),
    };

    #[test]
    #[rustfmt::skip]
    fn a_failure_is_retried_or_given_up_by_the_contract() {
        use Decision::{GiveUp, Retry};
        use GiveUpReason::*;
        let backoff = |delay| Retry { delay, why: DelaySource::Backoff };
        let asked = |delay| Retry { delay, why: DelaySource::RetryAfter };
        let ra = Some;
        for (case, failed, expected) in [
            ("transient", FAILED, backoff(secs(1))),
            ("last retry left", Failed { retries: 1, ..FAILED }, backoff(secs(1))),
            ("no retry left", Failed { retries: 2, ..FAILED }, GiveUp(Exhausted)),
            ("not transient", Failed { transient: false, ..FAILED }, GiveUp(NotTransient)),
            ("not transient, none left", Failed { transient: false, retries: 2, ..FAILED }, GiveUp(NotTransient)),
            ("zero delay", Failed { drawn: secs(0), ..FAILED }, backoff(secs(0))),
            ("asked for more than drawn", Failed { retry_after: ra(secs(5)), ..FAILED }, asked(secs(5))),
            ("asked for as much as drawn", Failed { retry_after: ra(secs(1)), ..FAILED }, backoff(secs(1))),
            ("asked for less than drawn", Failed { retry_after: ra(secs(0)), ..FAILED }, backoff(secs(1))),
            ("asked for the most", Failed { retry_after: ra(secs(60)), ..FAILED }, asked(secs(60))),
            ("asked for too much", Failed { retry_after: ra(secs(61)), ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("asked for ever", Failed { retry_after: ra(Duration::MAX), ..FAILED }, GiveUp(RetryAfterTooLong)),
            ("asked, but not transient", Failed { retry_after: ra(secs(5)), transient: false, ..FAILED }, GiveUp(NotTransient)),
            ("short of the deadline", Failed { elapsed: secs(98), ..FAILED }, backoff(secs(1))),
            ("up to the deadline", Failed { elapsed: secs(99), ..FAILED }, GiveUp(Deadline)),
            ("no delay, at the deadline", Failed { elapsed: secs(100), drawn: secs(0), ..FAILED }, GiveUp(Deadline)),
            ("past the deadline", Failed { elapsed: secs(100), ..FAILED }, GiveUp(Deadline)),
            ("no delay, the deadline struck", Failed { struck: true, drawn: secs(0), ..FAILED }, GiveUp(Deadline)),
            ("asked past the deadline", Failed { elapsed: secs(50), retry_after: ra(secs(51)), ..FAILED }, GiveUp(Deadline)),
            ("drawn for ever", Failed { drawn: Duration::MAX, ..FAILED }, GiveUp(Deadline)),
        ] {
            assert_eq!(decide(&GRANT, &failed), expected, "{case}");
        }
    }

    #[test]
    fn a_grant_without_bounds_retries_whatever_is_transient() {
        let endless = Grant {
            retries: Some(u32::MAX),
            deadline: None,
            max_retry_after: Duration::MAX,
            ..GRANT
        };
        for failed in [
            Failed {
                retries: u32::MAX - 1,
                ..FAILED
            },
            Failed {
                retry_after: Some(Duration::MAX),
                ..FAILED
            },
            Failed {
                drawn: Duration::MAX,
                ..FAILED
            },
        ] {
            assert!(
                matches!(decide(&endless, &failed), Decision::Retry { .. }),
                "{failed:?}"
            );
        }
    }

    #[test]
    fn an_operation_outside_the_set_is_given_up_as_not_retried() {
        let once = Grant {
            retries: None,
            ..GRANT
        };
        assert_eq!(
            decide(&once, &FAILED),
            Decision::GiveUp(GiveUpReason::NotRetried)
        );
    }

    #[test]
    fn the_policy_grants_by_operation() {
        let policy = Policy::default().max_retries(7);
        let granted = |policy: &Policy, operation| {
            let grant = Grant::new(policy, operation);
            (grant.retries, grant.timeout)
        };
        for (operation, expected) in [
            (Operation::ChatCompletion, (Some(7), Some(secs(30)))),
            (Operation::ChatCompletionStream, (None, Some(secs(30)))),
            (
                Operation::ChatCompletionStreamPassthrough,
                (None, Some(secs(30))),
            ),
            (Operation::Embedding, (None, None)),
        ] {
            assert_eq!(granted(&policy, operation), expected, "{operation}");
        }
        let all = policy.retry(Operations::ALL);
        for (operation, expected) in [
            (Operation::ChatCompletionStream, (Some(7), Some(secs(30)))),
            (
                Operation::ChatCompletionStreamPassthrough,
                (None, Some(secs(30))),
            ),
            (Operation::Embedding, (Some(7), Some(secs(30)))),
        ] {
            assert_eq!(granted(&all, operation), expected, "{operation}");
        }
    }

    #[test]
    fn a_zero_bound_is_none_and_so_is_one_of_a_century() {
        for none in [Duration::ZERO, FOREVER, Duration::MAX] {
            let policy = Policy::default().timeout(none).deadline(none);
            let grant = Grant::new(&policy, Operation::ChatCompletion);
            assert_eq!((grant.timeout, grant.deadline), (None, None));
        }
    }
}
