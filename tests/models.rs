//! Policies for single models, and policies from a configuration.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, request};
use crabllm_retry::{
    Policy,
    crabllm_core_0_0_19::{Provider, ProviderConfig},
    test_util::Step,
};
use std::time::Duration;

fn failing() -> Scene {
    Scene::new((0..9).map(|_| Step::status(503)))
}

#[test]
fn the_later_policy_for_a_model_counts_and_a_clone_may_have_another() {
    let [first, second, third] = [5, 1, 0].map(|retries| Policy::default().max_retries(retries));
    let scene = failing().set(|r| r.policy_for("m", first).policy_for("m", second));
    let clone = scene.retrying.clone().policy_for("m", third);
    for (retrying, attempts) in [(&clone, 1), (&scene.retrying, 3)] {
        assert!(block_on(retrying.chat_completion(&request())).is_err());
        assert_eq!(scene.attempts(), attempts);
    }
}

#[test]
fn a_raw_body_that_names_no_model_has_the_general_policy() {
    let bodies = [
        "",
        "{}",
        "[]",
        "not JSON",
        r#"{"model": 7}"#,
        r#"{"model": "m"#,
    ];
    for body in bodies {
        let scene = failing().set(|r| {
            r.policy_for("m", Policy::default().max_retries(0))
                .observe(|event| assert_eq!(event.model(), None))
        });
        let call = scene.retrying.anthropic_messages_raw(body.into());
        assert!(block_on(call).is_err());
        assert_eq!(scene.attempts(), 3, "{body}");
    }
}

#[test]
fn a_configuration_sets_what_it_names() {
    let default = Policy::default;
    for (max_retries, timeout, expected) in [
        (None, None, default()),
        (Some(7), None, default().max_retries(7)),
        (
            Some(0),
            Some(45),
            default().max_retries(0).timeout(45 * SECOND),
        ),
        (None, Some(0), default().timeout(Duration::ZERO)),
        (
            None,
            Some(u64::MAX),
            default().timeout(Duration::from_secs(u64::MAX)),
        ),
    ] {
        let config = ProviderConfig {
            max_retries,
            timeout,
            ..ProviderConfig::default()
        };
        assert_eq!(Policy::from(&config), expected);
    }
}

#[cfg(feature = "crabllm-core-0_0_25")]
#[test]
fn the_newer_configuration_sets_a_deadline_too() {
    use crabllm_retry::crabllm_core_0_0_25::ProviderConfig;
    let config = |retry_deadline| ProviderConfig {
        max_retries: Some(1),
        timeout: Some(2),
        retry_deadline,
        ..ProviderConfig::default()
    };
    let policy = Policy::default().max_retries(1).timeout(2 * SECOND);
    assert_eq!(Policy::from(&config(None)), policy);
    assert_eq!(
        Policy::from(&config(Some(15))),
        policy.deadline(15 * SECOND)
    );
}
