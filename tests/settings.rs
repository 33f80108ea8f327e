//! Settings and their precedence.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, exactly, request};
use crabllm_retry::{Operations, Policy, Retrying, crabllm_core_0_0_19::Provider, test_util::Step};
use std::future::pending;

#[test]
fn each_setter_of_a_policy_is_one_of_the_wrapper_too() {
    macro_rules! set {
        ($settings:expr) => {
            $settings
                .max_retries(7)
                .timeout(SECOND)
                .deadline(2 * SECOND)
                .backoff(exactly(3 * SECOND))
                .throttle_backoff(exactly(4 * SECOND))
                .max_retry_after(5 * SECOND)
                .stream_idle(6 * SECOND)
                .first_content(7 * SECOND)
                .retry(Operations::EMBEDDING)
                .also_retry(Operations::MODELS)
        };
    }
    let policy = set!(Policy::default());
    let wrapper = Retrying::with_timer((), |_| pending::<()>()).retry_if(|_| true);
    let shown = format!("{:?}", set!(wrapper));
    assert!(shown.contains(&format!("{policy:?}")), "{shown}");
    let hooks = "Hooks { retry_if: true, retry_after: false, observer: false }";
    assert!(shown.contains(hooks), "{shown}");
}

#[test]
fn the_recommended_settings_survive_what_the_defaults_do_not() {
    let statuses = |status, count| vec![Step::status(status); count];
    let exhausted = Step::status_with_body(429, r#"{"code": "insufficient_quota"}"#);
    for (script, ok, attempts, elapsed) in [
        (statuses(503, 4), true, 5, 3.75..=7.5),
        (statuses(529, 4), true, 5, 3.75..=7.5),
        // The rate limiter makes these retries free.
        (statuses(429, 8), true, 9, 4.0..=8.0),
        (vec![Step::ok().after(599 * SECOND)], true, 1, 599.0..=599.0),
        (vec![Step::hang(); 2], false, 2, 900.0..=900.0),
        (vec![exhausted], false, 1, 0.0..=0.0),
    ] {
        let scene = Scene::new(script.clone()).set(Wrapper::recommended);
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(
            (result.is_ok(), scene.attempts()),
            (ok, attempts),
            "{script:?}"
        );
        let took = scene.clock.elapsed().as_secs_f64();
        assert!(elapsed.contains(&took), "{script:?}: {took}");
    }
}

#[test]
fn recommended_settings_keep_what_they_do_not_set() {
    let wrapper = || Retrying::with_timer((), |_| pending::<()>());
    let set = |r: Retrying<_, _>| r.policy_for("m", Policy::default()).observe(|_| {});
    let [before, after] = [set(wrapper()).recommended(), set(wrapper().recommended())];
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn the_later_policy_for_a_model_counts_and_a_clone_may_have_another() {
    let [first, second, third] = [5, 1, 0].map(|retries| Policy::default().max_retries(retries));
    let scene = Scene::new(vec![Step::status(503); 9])
        .set(|r| r.policy_for("m", first).policy_for("m", second));
    let clone = scene.retrying.clone().policy_for("m", third);
    for (retrying, attempts) in [(&clone, 1), (&scene.retrying, 3)] {
        assert!(block_on(retrying.chat_completion(&request())).is_err());
        assert_eq!(scene.attempts(), attempts);
    }
}

#[cfg(feature = "crabllm-core-0_0_25")]
#[test]
fn a_configuration_sets_what_it_names() {
    use crabllm_retry::crabllm_core_0_0_25::ProviderConfig;
    use std::time::Duration;

    let default = Policy::default;
    let timeout = |seconds| default().timeout(Duration::from_secs(seconds));
    let all = timeout(45).max_retries(0).deadline(15 * SECOND);
    for (max_retries, seconds, retry_deadline, expected) in [
        (None, None, None, default()),
        (Some(0), Some(45), Some(15), all),
        (None, Some(u64::MAX), None, timeout(u64::MAX)),
    ] {
        let config = ProviderConfig {
            max_retries,
            timeout: seconds,
            retry_deadline,
            ..ProviderConfig::default()
        };
        assert_eq!(Policy::from(&config), expected);
    }
}
