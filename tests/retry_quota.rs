//! The cases by which the AWS SDKs specify the retry quota of their standard
//! mode, with the same names.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{Scene, block_on, exactly, request};
use crabllm_retry::{
    Event, Policy, RetryBudget,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::Step,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Follows the answers of the server.
#[derive(Debug, PartialEq)]
enum Then {
    /// A retry after so many seconds, which leaves so many tokens.
    Retry(u64, u32),

    /// The answer, and the tokens there are then.
    Success(u32),

    /// The error with this status, and the tokens there are then.
    Fail(u16, u32),
}
use Then::{Fail, Retry, Success};

/// Makes calls one after the other until the statuses are used up.
fn outcomes(budget: &RetryBudget, policy: Policy, statuses: &[u16]) -> Vec<Then> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let script = statuses.iter().map(|status| match status {
        200 => Step::ok(),
        status => Step::status(*status),
    });
    let scene = Scene::new(script).set(|r| {
        let (log, left) = (log.clone(), budget.clone());
        r.policy(policy)
            .budget(budget.clone())
            .observe(move |event| {
                if let Event::Retry { delay, .. } = event {
                    let then = Retry(delay.as_secs(), left.available());
                    log.lock().unwrap().push(then);
                }
            })
    });
    while scene.attempts() < statuses.len() {
        let then = match block_on(scene.retrying.chat_completion(&request())) {
            Ok(_) => Success(budget.available()),
            Err(Error::Provider { status, .. }) => Fail(status, budget.available()),
            Err(error) => panic!("{error}"),
        };
        log.lock().unwrap().push(then);
    }
    std::mem::take(&mut *log.lock().unwrap())
}

/// Three attempts, and delays of 1, 2, 4, … seconds.
fn standard() -> Policy {
    Policy::default().backoff(exactly(Duration::from_secs(1)))
}

#[test]
fn retry_eventually_succeeds() {
    assert_eq!(
        outcomes(&RetryBudget::default(), standard(), &[500, 500, 200]),
        [Retry(1, 486), Retry(2, 472), Success(486)]
    );
}

#[test]
fn fail_due_to_max_attempts_reached() {
    assert_eq!(
        outcomes(&RetryBudget::default(), standard(), &[502, 502, 502]),
        [Retry(1, 486), Retry(2, 472), Fail(502, 472)]
    );
}

#[test]
fn retry_quota_reached_after_a_single_retry() {
    assert_eq!(
        outcomes(&RetryBudget::new(14), standard(), &[500, 502]),
        [Retry(1, 0), Fail(502, 0)]
    );
}

#[test]
fn no_retries_at_all_if_the_retry_quota_is_zero() {
    assert_eq!(
        outcomes(&RetryBudget::new(0), standard(), &[500]),
        [Fail(500, 0)]
    );
}

#[test]
fn verifying_exponential_backoff_timing() {
    assert_eq!(
        outcomes(
            &RetryBudget::default(),
            standard().max_retries(4),
            &[500, 500, 500, 500, 500]
        ),
        [
            Retry(1, 486),
            Retry(2, 472),
            Retry(4, 458),
            Retry(8, 444),
            Fail(500, 444)
        ]
    );
}

#[test]
fn verify_max_backoff_time() {
    let policy = standard().max_retries(7);
    let retries = outcomes(&RetryBudget::default(), policy, &[500; 8]);
    let delays: Vec<_> = retries
        .iter()
        .filter_map(|then| match then {
            Retry(delay, _) => Some(*delay),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 20, 20]);
}

#[test]
fn retry_stops_after_retry_quota_exhaustion() {
    assert_eq!(
        outcomes(
            &RetryBudget::new(28),
            standard().max_retries(4),
            &[500, 500, 502]
        ),
        [Retry(1, 14), Retry(2, 0), Fail(502, 0)]
    );
}

#[test]
fn retry_quota_recovery_after_successful_responses() {
    assert_eq!(
        outcomes(
            &RetryBudget::new(30),
            standard().max_retries(4),
            &[500, 502, 200, 500, 200, 200]
        ),
        [
            Retry(1, 16),
            Retry(2, 2),
            Success(16),
            Retry(1, 2),
            Success(16),
            Success(17)
        ]
    );
}

#[test]
fn throttling_error_token_bucket_drains_less() {
    assert_eq!(
        outcomes(&RetryBudget::default(), standard(), &[429, 200]),
        [Retry(1, 495), Success(500)]
    );
}
