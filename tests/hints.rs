//! What the hooks of `vendor` change about a call.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{Bare, SECOND, Scene, block_on, request, status};
use crabllm_retry::{
    Retrying,
    crabllm_core_0_0_19::Provider,
    hints,
    test_util::{Step, VirtualTimer},
};
use std::{sync::atomic::Ordering, time::Duration};

fn throttled(wait: &str) -> Step {
    let message = format!("Rate limit reached. Please try again in {wait}. Visit us.");
    let body = format!(r#"{{"error": {{"message": "{message}", "code": "rate_limit_exceeded"}}}}"#);
    Step::status_with_body(429, body)
}

/// The sleeps between the attempts of a call that succeeds in the end.
fn delays(scene: &Scene) -> Vec<Duration> {
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    scene.sleeps.asked()
}

#[test]
fn a_wait_in_the_body_is_kept_exactly() {
    let scene = Scene::new([throttled("7s")]).set(|r| r.retry_after(hints::retry_after));
    assert_eq!(delays(&scene), [7 * SECOND]);
}

#[test]
fn a_wait_shorter_than_the_backoff_changes_nothing() {
    let scene = Scene::new([throttled("6ms"), throttled("1.5s")])
        .set(|r| r.retry_after(hints::retry_after));
    assert_eq!(delays(&scene), [SECOND, 2 * SECOND]);
}

#[test]
fn without_the_hook_a_body_is_not_read() {
    assert_eq!(delays(&Scene::new([throttled("7s")])), [SECOND]);
}

#[test]
fn a_body_without_a_wait_leaves_the_backoff() {
    let scene = Scene::new([throttled("-7s"), Step::status(429)])
        .set(|r| r.retry_after(hints::retry_after));
    assert_eq!(delays(&scene), [SECOND, 2 * SECOND]);
}

#[test]
fn a_body_that_asks_for_more_than_the_most_ends_the_call() {
    for (wait, attempts) in [("1m", 2), ("1m0.000000001s", 1), ("7m31.2s", 1)] {
        let scene = Scene::new([throttled(wait)]).set(|r| r.retry_after(hints::retry_after));
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(status(result), (attempts == 1).then_some(429), "{wait}");
        assert_eq!(scene.attempts(), attempts, "{wait}");
        assert_eq!(scene.sleeps.asked().len(), attempts - 1, "{wait}");
    }
}

#[test]
fn the_statuses_of_the_sdks_are_retried_if_asked_for() {
    for code in [408, 409, 529] {
        let scene = Scene::new([Step::status(code)]).set(|r| r.retry_if(hints::is_transient));
        assert_eq!(delays(&scene), [SECOND], "{code}");

        let plain = Scene::new([Step::status(code)]);
        let result = block_on(plain.retrying.chat_completion(&request()));
        assert_eq!(status(result), Some(code));
        assert_eq!(plain.attempts(), 1, "{code}");
    }
}

#[test]
fn other_statuses_are_retried_as_before() {
    for (code, attempts) in [(400, 1), (401, 1), (404, 1), (429, 2), (501, 1), (503, 2)] {
        let scene = Scene::new([Step::status(code)]).set(|r| r.retry_if(hints::is_transient));
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(result.is_ok(), attempts == 2, "{code}");
        assert_eq!(scene.attempts(), attempts, "{code}");
    }
}

#[test]
fn what_is_not_implemented_is_not_retried_even_so() {
    let bare = Bare::default();
    let retrying = Retrying::with_timer(bare.clone(), VirtualTimer::new())
        .retry_if(hints::is_transient)
        .retry_after(hints::retry_after);
    assert!(block_on(retrying.chat_completion(&request())).is_err());
    assert_eq!(bare.0.load(Ordering::Relaxed), 1);
}
