//! The cases by which the AWS SDKs specify the retry quota of their standard mode, with
//! the same names, and delays of 1, 2, 4, … seconds.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{Scene, block_on, request};
use crabllm_retry::{
    Event, RetryBudget,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::Step,
};
use std::sync::{Arc, Mutex};

/// The consequence of the server's answers.
#[derive(Debug, PartialEq)]
enum Then {
    /// A retry after so many seconds, which leaves so many tokens.
    Retry(u64, u32),

    /// The answer, and the tokens that are left.
    Success(u32),

    /// The error with this status, and the tokens that are left.
    Fail(u16, u32),
}
use Then::{Fail, Retry, Success};

/// Makes calls one after the other until the statuses are used up.
fn outcomes(capacity: u32, retries: u32, statuses: &[u16]) -> Vec<Then> {
    let budget = RetryBudget::new(capacity);
    let log = Arc::new(Mutex::new(Vec::new()));
    let script = statuses.iter().map(|status| match status {
        200 => Step::ok(),
        status => Step::status(*status),
    });
    let scene = Scene::new(script).set(|r| {
        let (log, left) = (log.clone(), budget.clone());
        r.max_retries(retries)
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

#[test]
#[rustfmt::skip]
fn the_budget_behaves_as_specified() {
    for (case, capacity, retries, statuses, expected) in [
        ("retry eventually succeeds", 500, 2,
            &[500, 500, 200][..], &[Retry(1, 486), Retry(2, 472), Success(486)][..]),
        ("fail due to max attempts reached", 500, 2,
            &[502, 502, 502], &[Retry(1, 486), Retry(2, 472), Fail(502, 472)]),
        ("retry quota reached after a single retry", 14, 2,
            &[500, 502], &[Retry(1, 0), Fail(502, 0)]),
        ("no retries at all if retry quota is 0", 0, 2,
            &[500], &[Fail(500, 0)]),
        ("verifying exponential backoff timing", 500, 4,
            &[500; 5], &[Retry(1, 486), Retry(2, 472), Retry(4, 458), Retry(8, 444), Fail(500, 444)]),
        ("verify max backoff time", 500, 6,
            &[500; 7], &[Retry(1, 486), Retry(2, 472), Retry(4, 458), Retry(8, 444), Retry(16, 430), Retry(20, 416), Fail(500, 416)]),
        ("retry stops after retry quota exhaustion", 28, 4,
            &[500, 500, 502], &[Retry(1, 14), Retry(2, 0), Fail(502, 0)]),
        ("retry quota recovery after successful responses", 30, 4,
            &[500, 502, 200, 500, 200, 200],
            &[Retry(1, 16), Retry(2, 2), Success(16), Retry(1, 2), Success(16), Success(17)]),
        ("throttling error token bucket drains less", 500, 2,
            &[429, 200], &[Retry(1, 495), Success(500)]),
    ] {
        assert_eq!(outcomes(capacity, retries, statuses), expected, "{case}");
    }
    assert_eq!(RetryBudget::default().available(), 500);
}
