//! The `tracing` events of `trace`.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "test-util",
    feature = "tracing"
))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, exactly, request};
use crabllm_retry::{
    Failure, Fallback, Instant, RateLimiter, crabllm_core_0_0_19::Provider, test_util::Step, trace,
};
use futures::StreamExt;
use std::{io, sync::Mutex, time::Duration};
use tracing::Level;
use tracing_subscriber::fmt::format::debug_fn;

/// The events that are emitted within: for each a line with its level, target and message,
/// and one for each of its fields.
fn lines(level: Level, calls: impl FnOnce()) -> Vec<String> {
    let (reader, writer) = io::pipe().unwrap();
    let fields = debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, "\n{name} = {value:?}"),
    });
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(level)
        .with_writer(Mutex::new(writer))
        .fmt_fields(fields)
        .finish();
    tracing::subscriber::with_default(subscriber, calls);
    let written = io::read_to_string(reader).unwrap();
    let lines = written.lines();
    lines.map(|line| line.trim_start().to_owned()).collect()
}

/// The lines without the starts of attempts and the fields that all events have.
fn own_lines(calls: impl FnOnce()) -> Vec<String> {
    let mut lines = lines(Level::DEBUG, calls);
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    let events = count(" crabllm_retry: ");
    for field in [
        r#"gen_ai.operation.name = "chat""#,
        r#"gen_ai.request.model = "m""#,
        "crabllm_retry.call = ",
        r#"crabllm_retry.method = "chat_completion"#,
    ] {
        assert_eq!(count(field), events, "{field}: {lines:?}");
    }
    let common = ["gen_ai.", "crabllm_retry.call = 1", "crabllm_retry.method"];
    lines.retain(|line| !common.iter().any(|field| line.starts_with(field)));
    lines
}

fn traced(scene: Scene) -> Wrapper {
    scene.retrying.observe(trace)
}

fn chat(retrying: &Wrapper) {
    let _ = block_on(retrying.chat_completion(&request()));
}

#[test]
fn attempts_and_a_success_at_once_are_for_debugging() {
    let retrying = traced(Scene::new([Step::ok().after(SECOND / 4)]));
    assert_eq!(
        lines(Level::TRACE, || chat(&retrying)),
        [
            "TRACE crabllm_retry: attempt starts",
            r#"gen_ai.operation.name = "chat""#,
            r#"gen_ai.request.model = "m""#,
            "crabllm_retry.call = 1",
            r#"crabllm_retry.method = "chat_completion""#,
            "crabllm_retry.attempt = 1",
            "crabllm_retry.elapsed = 0.0",
            "DEBUG crabllm_retry: call succeeded",
            r#"gen_ai.operation.name = "chat""#,
            r#"gen_ai.request.model = "m""#,
            "crabllm_retry.call = 1",
            r#"crabllm_retry.method = "chat_completion""#,
            "crabllm_retry.attempt = 1",
            "crabllm_retry.elapsed = 0.25",
        ]
    );
}

#[test]
fn each_retry_is_a_warning_and_the_success_after_it_is_news() {
    let script = [
        Step::status_with_body(503, "busy").after(SECOND / 2),
        Step::status_with_body(429, "too fast"),
    ];
    let requested = |error: &dyn Failure| error.is_throttled().then_some(5 * SECOND);
    let retrying = traced(Scene::new(script)).retry_after(requested);
    assert_eq!(
        own_lines(|| chat(&retrying)),
        [
            "WARN crabllm_retry: attempt failed, another one follows",
            r#"error.type = "503""#,
            "exception.message = provider error (HTTP 503): busy",
            "http.response.status_code = 503",
            "crabllm_retry.attempt = 1",
            "crabllm_retry.elapsed = 0.5",
            "crabllm_retry.delay = 1.0",
            "crabllm_retry.source = backoff",
            "WARN crabllm_retry: attempt failed, another one follows",
            r#"error.type = "429""#,
            "exception.message = provider error (HTTP 429): too fast",
            "http.response.status_code = 429",
            "http.request.resend_count = 1",
            "crabllm_retry.attempt = 2",
            "crabllm_retry.elapsed = 1.5",
            "crabllm_retry.delay = 5.0",
            "crabllm_retry.source = requested by the server",
            "INFO crabllm_retry: call succeeded after retries",
            "http.request.resend_count = 2",
            "crabllm_retry.attempt = 3",
            "crabllm_retry.elapsed = 6.5",
        ]
    );
}

#[test]
fn a_wait_for_a_turn_is_for_debugging() {
    let retrying = traced(Scene::new([Step::status(429)]))
        .backoff(exactly(Duration::ZERO))
        .rate_limiter(RateLimiter::adaptive());
    let lines = own_lines(|| chat(&retrying));
    for line in [
        "DEBUG crabllm_retry: turn came after a wait",
        "crabllm_retry.wait = 0.25",
    ] {
        assert!(lines.iter().any(|it| it == line), "{lines:?}");
    }
}

#[test]
fn a_call_that_fails_is_a_warning_if_the_error_is_not_transient_and_else_an_error() {
    for (script, expected) in [
        (
            vec![Step::invalid()],
            &[
                "WARN crabllm_retry: call failed",
                r#"error.type = "_OTHER""#,
                "exception.message = config error: no such thing",
                "crabllm_retry.attempt = 1",
                "crabllm_retry.elapsed = 0.0",
                "crabllm_retry.reason = not transient",
            ][..],
        ),
        (
            vec![Step::status(503), Step::hang()],
            &[
                "ERROR crabllm_retry: call failed",
                r#"error.type = "timeout""#,
                "exception.message = request timed out",
                "http.request.resend_count = 1",
                "crabllm_retry.attempt = 2",
                "crabllm_retry.elapsed = 31.0",
                "crabllm_retry.reason = no retry left",
            ],
        ),
    ] {
        let retrying = traced(Scene::new(script)).max_retries(1);
        let lines = own_lines(|| chat(&retrying));
        let failed = lines.len() - expected.len();
        assert_eq!(lines[failed..], *expected);
    }
}

#[test]
fn a_stream_that_stalls_or_breaks_is_a_warning() {
    for (item, warning) in [
        (
            Step::hang(),
            [
                "WARN crabllm_retry: stream went silent and was ended",
                r#"error.type = "timeout""#,
                "crabllm_retry.attempt = 1",
                "crabllm_retry.elapsed = 90.0",
                "crabllm_retry.idle = 90.0",
            ],
        ),
        (
            Step::disconnect().after(SECOND),
            [
                "WARN crabllm_retry: stream broke",
                r#"error.type = "_OTHER""#,
                "exception.message = internal error: connection lost",
                "crabllm_retry.attempt = 1",
                "crabllm_retry.elapsed = 1.0",
            ],
        ),
    ] {
        let retrying = traced(Scene::new([Step::stream([Step::ok(), item])]));
        let items = block_on(retrying.chat_completion_stream(&request())).unwrap();
        assert_eq!(
            own_lines(|| assert_eq!(block_on(items.count()), 2)),
            warning
        );
    }
}

#[test]
fn the_events_of_a_fallback_name_no_attempt() {
    let [first, second] = [vec![Step::status(503)], vec![]].map(|it| Scene::new(it).scripted);
    let now = Instant::now();
    let fallback = Fallback::new(first, second)
        .breaker(1, Duration::ZERO)
        .clock(move || now)
        .observe(trace);
    let calls = || {
        for _ in 0..2 {
            block_on(fallback.chat_completion(&request())).unwrap();
        }
    };
    assert_eq!(
        own_lines(calls),
        [
            "WARN crabllm_retry: breaker opened, calls skip the first provider",
            "crabllm_retry.attempt = 0",
            "crabllm_retry.elapsed = 0.0",
            "WARN crabllm_retry: first provider failed, the call goes to the second",
            r#"error.type = "503""#,
            "exception.message = provider error (HTTP 503): ",
            "http.response.status_code = 503",
            "crabllm_retry.attempt = 0",
            "crabllm_retry.elapsed = 0.0",
            "INFO crabllm_retry: breaker closed, the first provider is back",
            "crabllm_retry.call = 2",
            "crabllm_retry.attempt = 0",
            "crabllm_retry.elapsed = 0.0",
        ]
    );
}

#[cfg(feature = "crabllm-core-0_0_25")]
#[test]
fn a_call_without_a_model_has_no_field_for_it() {
    use crabllm_retry::crabllm_core_0_0_25::Provider;

    let retrying = traced(Scene::new([]));
    let call = || _ = block_on(Provider::models(&retrying)).unwrap();
    assert_eq!(
        lines(Level::DEBUG, call),
        [
            "DEBUG crabllm_retry: call succeeded",
            r#"gen_ai.operation.name = "models""#,
            "crabllm_retry.call = 1",
            r#"crabllm_retry.method = "models""#,
            "crabllm_retry.attempt = 1",
            "crabllm_retry.elapsed = 0.0",
        ]
    );
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let message = |crabs: usize| {
        let body = "\u{1f980}".repeat(crabs);
        let retrying = traced(Scene::new([Step::status_with_body(400, body)]));
        let mut lines = own_lines(|| chat(&retrying)).into_iter();
        let message = lines.find(|line| line.starts_with("exception.message"));
        message.unwrap()
    };
    let short = message(225);
    assert!(short.ends_with("\u{1f980}"), "{short}");

    let long = message(45_000);
    let (text, rest) = long.rsplit_once("… and ").unwrap();
    let rest: usize = rest.strip_suffix(" bytes more").unwrap().parse().unwrap();
    let crabs = text.matches('\u{1f980}').count();
    assert_eq!(4 * crabs + rest, 180_000);
    assert!((950..1100).contains(&text.len()), "{}", text.len());
}
