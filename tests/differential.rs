//! Random scripts through crabllm-core's own `Retrying` and this crate's, which differs only
//! on purpose: each difference is a test.
//!
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_CASES` choose other scripts and more.

#![cfg(all(
    feature = "crabllm-core-0_0_25",
    feature = "futures-timer",
    feature = "test-util"
))]

#[path = "common/random.rs"]
mod random;
#[path = "common/scripts.rs"]
mod scripts;

use crabllm_retry::Operation::{ChatCompletion as Chat, ChatCompletionStream as Stream};
use crabllm_retry::{
    Operation, Operations, Policy, Retrying,
    crabllm_core_0_0_25::{self as upstream, ChatCompletionRequest, EmbeddingRequest, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::executor::block_on;
use proptest::{collection::vec, prelude::*, sample::select};
use scripts::{
    Case, Kind, Run, assert_agree, attempt, error, millis, panic_message, request,
    tokio_with_paused_time,
};
use std::time::Duration;

fn original<P: Provider>(provider: P, policy: &Policy) -> upstream::Retrying<P> {
    upstream::Retrying::new(provider)
        .max_retries(policy.max_retries)
        .timeout(policy.timeout)
        .max_retry_after(policy.max_retry_after)
        .stream_idle(policy.stream_idle)
}

prop_compose! {
    fn cases()(
        method in select(vec![Chat, Stream]),
        max_retries in 0u32..5,
        timeout in millis(1, 60_000),
        max_retry_after in seconds(100),
        stream_idle in millis(1, 60_000),
        attempts in vec(attempt(failure(), failure()), 0..7),
    ) -> Case {
        let policy = Policy::default()
            .max_retries(max_retries)
            .timeout(timeout)
            .max_retry_after(max_retry_after)
            .stream_idle(stream_idle)
            .also_retry(Operations::STREAMS);
        Case { method, policy, attempts }
    }
}

fn failure() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => error(),
        1 => seconds(120).prop_map(|asked| Kind::Status(429, Some(asked))),
        1 => Just(Kind::Hang),
    ]
}

fn seconds(most: u64) -> impl Strategy<Value = Duration> {
    (0..=most).prop_map(Duration::from_secs)
}

#[test]
fn random_scripts_go_the_same_way() {
    assert_agree("DIFFERENTIAL", &cases());
}

/// A call through both wrappers.
fn both(method: Operation, policy: Policy, script: &[Step]) -> [Run; 2] {
    let ours = Run::ours(method, &policy, script.to_vec());
    let originals = Run::originals(method, &policy, script.to_vec());
    [ours, originals]
}

#[test]
fn there_is_no_sleep_after_the_last_attempt_and_delays_have_a_maximum() {
    let script = vec![Step::status(503); 13];
    let [ours, originals] = both(Chat, Policy::default().max_retries(12), &script);
    assert!(ours.delays.iter().max() <= Some(&Duration::from_secs(20)));
    assert!(originals.delays.iter().max() >= Some(&Duration::from_secs(100)));
    assert!(ours.rest.is_zero() && originals.rest >= Duration::from_secs(100));
}

#[test]
fn a_requested_delay_is_spread_and_does_not_shorten_the_backoff() {
    let tick = Duration::from_millis(1);
    for (requested, least, most) in [(0, 50, 100), (8000, 8000, 10_000)] {
        let requested = tick * requested;
        let script = [Step::status(429).retry_after(requested)];
        let [ours, originals] = both(Chat, Policy::default(), &script).map(|run| run.delays[0]);
        assert!((tick * least..=tick * most).contains(&ours), "{ours:?}");
        assert_ne!(ours, requested);
        assert!(originals <= requested + tick);
    }
}

#[test]
fn streams_are_retried_only_on_request_and_until_their_first_content() {
    let late = Step::stream([Step::announcement(), Step::status(503)]);
    let with_streams = Policy::default().also_retry(Operations::STREAMS);
    for (policy, step, attempts) in [
        (Policy::default(), Step::status(503), [1, 2]),
        (with_streams, late, [2, 1]),
    ] {
        let runs = both(Stream, policy, &[step]);
        assert_eq!(runs.map(|run| run.attempts.len()), attempts);
    }
}

#[test]
fn every_method_is_the_inner_providers_own() {
    let provider = || Scripted::new(VirtualTimer::new(), []);
    let ours = Retrying::with_timer(provider(), VirtualTimer::new());
    let upstreams = upstream::Retrying::new(provider());
    assert!(ours.is_openai_compat() && !upstreams.is_openai_compat());

    let raw = || br#"{"model": "m", "messages": []}"#.as_slice().into();
    assert!(block_on(ours.chat_completion_raw("m", raw())).is_ok());
    tokio_with_paused_time()
        .block_on(upstreams.chat_completion_raw("m", raw()))
        .unwrap();
    let called = |provider: &Scripted<_>| provider.attempts()[0].operation;
    assert_eq!(called(ours.get_ref()), Operation::ChatCompletionRaw);
    assert_eq!(called(upstreams.get_ref()), Operation::ChatCompletion);
}

#[test]
fn upstreams_wrapper_panics_on_smol_and_this_one_returns() {
    let provider = || Scripted::new(VirtualTimer::new(), [Step::status(503)]);

    let ours = Retrying::new(provider());
    assert!(smol::block_on(ours.chat_completion(&request())).is_ok());

    let upstreams = upstream::Retrying::new(provider());
    let message = panic_message(|| smol::block_on(upstreams.chat_completion(&request())));
    assert!(message.contains("no reactor running"), "{message}");
}
