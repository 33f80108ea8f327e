//! Which failures go to the second provider, and the size of a call. The model in
//! `tests/fallback_model.rs` has the rest.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "crabllm-core-0_0_25",
    feature = "test-util"
))]

mod common;

use common::{SECOND, block_on, request};
use crabllm_retry::{
    Fallback, Retrying, crabllm_core_0_0_19, crabllm_core_0_0_25,
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{StreamExt, stream};
use std::time::Duration;

/// A provider that follows a script.
fn client(script: impl IntoIterator<Item = Step>) -> Scripted<VirtualTimer> {
    Scripted::new(VirtualTimer::new(), script)
}

/// Whether a chat is answered.
fn chat(provider: &impl crabllm_core_0_0_19::Provider) -> bool {
    block_on(provider.chat_completion(&request())).is_ok()
}

#[test]
fn failures_that_another_provider_may_not_have_fall() {
    const PLAN: &str = r#"{"type": "usage_limit_reached"}"#;
    const PLAN_UNTIL: &str = r#"{"type": "usage_limit_reached", "resets_in_seconds": 9}"#;
    const PER_DAY: &str = r#"{"status": "RESOURCE_EXHAUSTED", "quotaId": "RequestsPerDay"}"#;
    let error = Step::status_with_body;
    for (failure, falls) in [
        (Step::status(429), true),
        (Step::status(529), true),
        (Step::disconnect(), true),
        (error(402, r#"{"type": "insufficient_quota"}"#), true),
        (error(429, r#"{"code": "1113"}"#), true),
        (error(429, r#"{"code": "1308"}"#), true),
        (error(403, PER_DAY), true),
        (error(403, PLAN), true),
        (error(403, PLAN_UNTIL), false),
        (error(429, PLAN_UNTIL), true),
        (error(429, r#"{"code": "context_length_exceeded"}"#), false),
        (error(429, "Limit 30000, Requested 61337"), false),
        (Step::status(400), false),
        (Step::status(401), false),
        (Step::status(404), false),
        (Step::status(501), false),
        (Step::invalid(), false),
    ] {
        // In a chain of three, the first two of which fail.
        let failing = || client([failure.clone()]);
        let chain = Fallback::new(Fallback::new(failing(), failing()), client([]));
        assert_eq!(chat(&chain), falls, "{failure:?}");
    }
}

#[test]
fn a_passthrough_has_one_side_and_neither_probes_nor_counts() {
    use crabllm_core_0_0_25::Provider;

    let script = [503, 503, 400, 503].map(Step::status);
    let fallback = Fallback::new(client(script), client([])).breaker(2, Duration::ZERO);
    let pass = || {
        let opened = fallback.chat_completion_stream_passthrough("m", stream::empty().boxed());
        block_on(opened).is_ok()
    };
    // A failure and a success between the two failures that open the breaker.
    assert!(chat(&fallback) && !pass() && !pass() && chat(&fallback));
    // With this cooldown every other call probes.
    assert!(pass() && pass());
    assert_eq!(fallback.first().attempts().len(), 4);
}

#[test]
fn a_fallback_adds_at_most_256_bytes_to_the_larger_future() {
    use crabllm_core_0_0_25::Provider;

    fn sizes(provider: &impl Provider) -> [usize; 6] {
        let chat = serde_json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();
        let gemini = serde_json::from_str(r#"{"contents": []}"#).unwrap();
        [
            size_of_val(&provider.chat_completion(&chat)),
            size_of_val(&provider.chat_completion_stream(&chat)),
            size_of_val(&provider.chat_completion_stream_raw("m", "{}".into())),
            size_of_val(&provider.anthropic_messages_raw("{}".into())),
            size_of_val(&provider.gemini_generate_content("m", &gemini)),
            size_of_val(&provider.audio_transcription("m", &[])),
        ]
    }
    let bare = || client([]);
    let retrying = || Retrying::with_timer(bare(), VirtualTimer::new());
    let pair = || Fallback::new(retrying(), retrying());
    for (side, both) in [
        (sizes(&bare()), sizes(&Fallback::new(bare(), bare()))),
        (sizes(&retrying()), sizes(&pair())),
        (sizes(&pair()), sizes(&Fallback::new(pair(), retrying()))),
        (sizes(&pair()), sizes(&Fallback::new(retrying(), pair()))),
    ] {
        let fits = side.iter().zip(both).all(|(side, both)| both <= side + 256);
        assert!(fits, "{side:?}, {both:?}");
    }
}

#[test]
fn debug_shows_both_sides_the_names_and_the_breaker() {
    let fallback = Fallback::new(1, 2).model("m", "n").breaker(7, SECOND);
    let shown = format!("{fallback:?}");
    for part in ["first: 1, second: 2", r#"{"m": "n"}"#, "failures: 7"] {
        assert!(shown.contains(part), "{shown}");
    }
}
