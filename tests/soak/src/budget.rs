//! The balance of a budget, by the events of the calls that it paid for.

use crate::log::{Record, Told};
use crabllm_retry::RetryBudget;

/// The costs of a retry, and of one of a throttled attempt.
const COST: u32 = 14;
const THROTTLE_COST: u32 = 5;

/// The cost of a retry.
fn cost(throttled: bool) -> u32 {
    if throttled { THROTTLE_COST } else { COST }
}

/// A budget of so many tokens, with the costs that are counted on here.
pub fn budget(capacity: u32) -> RetryBudget {
    RetryBudget::new(capacity)
        .cost(COST)
        .throttle_cost(THROTTLE_COST)
}

/// By how much a call has changed a budget that was never full nor dry.
pub fn balance(record: &Record) -> i64 {
    let change = |(number, told): (usize, &Told)| match *told {
        Told::Retry { throttled } => -i64::from(cost(throttled)),
        Told::Success => i64::from(given_back(&record.told[..number])),
        Told::GaveUp(_) | Told::Stalled => 0,
    };
    let changes: i64 = record.told.iter().enumerate().map(change).sum();
    changes + i64::from(never_started(record))
}

/// The cost of a retry that was announced and never started, or nothing.
fn never_started(record: &Record) -> u32 {
    let mut retries = record.told.iter().filter_map(|told| match *told {
        Told::Retry { throttled } => Some(cost(throttled)),
        _ => None,
    });
    retries
        .nth(record.attempts.len().saturating_sub(1))
        .unwrap_or(0)
}

/// The refund of a call that succeeds after these events.
fn given_back(earlier: &[Told]) -> u32 {
    match earlier.last() {
        Some(&Told::Retry { throttled }) => cost(throttled),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Attempt;
    use std::time::Duration;

    const RETRY: Told = Told::Retry { throttled: false };
    const THROTTLED: Told = Told::Retry { throttled: true };

    /// A call of so many attempts.
    fn record(attempts: usize, told: &[Told]) -> Record {
        let attempt = Attempt {
            began: Duration::ZERO,
            ended: None,
        };
        Record {
            attempts: vec![attempt; attempts],
            told: told.to_vec(),
            ..Record::default()
        }
    }

    #[test]
    fn a_success_gives_back_the_last_retry_or_one() {
        for (attempts, told, change) in [
            (1, &[Told::Success][..], 1),
            (3, &[RETRY, THROTTLED, Told::Success], -14),
            (3, &[THROTTLED, RETRY, Told::Success], -5),
            (2, &[RETRY], -14),
            (1, &[RETRY], 0),
            (2, &[RETRY, THROTTLED], -14),
            (2, &[RETRY, Told::Success, Told::Stalled], 0),
        ] {
            let record = record(attempts, told);
            assert_eq!(balance(&record), change, "{told:?}");
        }
    }
}
