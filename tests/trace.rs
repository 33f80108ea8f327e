//! The `tracing` events of `trace`.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "test-util",
    feature = "tracing"
))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, request};
use crabllm_retry::{Fallback, crabllm_core_0_0_19::Provider, test_util::Step, trace};
use futures::StreamExt;
use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry,
};

/// An event: a line for its level, target and message, and one for each of its fields.
type Lines = Vec<String>;

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Lines>>>);

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields(vec![format!("{} {}", metadata.level(), metadata.target())]);
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

struct Fields(Lines);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0[0] += &format!(": {value:?}");
        } else {
            self.0.push(format!("{field} = {value:?}"));
        }
    }
}

/// The events of the calls that are made within.
fn traced(scene: Scene, calls: impl FnOnce(&Wrapper)) -> Vec<Lines> {
    let scene = scene.set(|r| r.observe(trace));
    events(|| calls(&scene.retrying))
}

fn events(calls: impl FnOnce()) -> Vec<Lines> {
    let events = Events::default();
    tracing::subscriber::with_default(registry().with(events.clone()), calls);
    events.0.lock().unwrap().clone()
}

fn chat(retrying: &Wrapper) {
    let _ = block_on(retrying.chat_completion(&request()));
}

/// The fields that all events of a chat have, streamed or not.
const COMMON: [&str; 3] = [
    r#"gen_ai.operation.name = "chat""#,
    r#"gen_ai.request.model = "m""#,
    "crabllm_retry.call = 1",
];

fn traced_chat(scene: Scene) -> Vec<Lines> {
    own_lines(traced(scene, chat), "chat_completion")
}

/// The events without the starts of attempts and the fields that all of them have.
fn own_lines(mut events: Vec<Lines>, method: &str) -> Vec<Lines> {
    events.retain(|lines| !lines[0].starts_with("TRACE"));
    let method = format!("crabllm_retry.method = {method:?}");
    for lines in &mut events {
        for field in COMMON.into_iter().chain([&*method]) {
            let position = lines.iter().position(|line| line == field);
            lines.remove(position.unwrap_or_else(|| panic!("no {field} in {lines:?}")));
        }
    }
    events
}

#[test]
fn attempts_and_a_success_at_once_are_for_debugging() {
    assert_eq!(
        traced(Scene::new([Step::ok().after(SECOND / 4)]), chat).concat(),
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
    let scene = Scene::new(script)
        .set(|r| r.retry_after(|error| error.is_throttled().then_some(5 * SECOND)));
    assert_eq!(
        traced_chat(scene).concat(),
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
fn an_error_that_is_not_transient_is_a_warning() {
    assert_eq!(
        traced_chat(Scene::new([Step::invalid()])).concat(),
        [
            "WARN crabllm_retry: call failed",
            r#"error.type = "_OTHER""#,
            "exception.message = config error: no such thing",
            "crabllm_retry.attempt = 1",
            "crabllm_retry.elapsed = 0.0",
            "crabllm_retry.reason = not transient",
        ]
    );
}

#[test]
fn a_call_that_runs_out_of_retries_is_an_error() {
    let scene = Scene::new([Step::status(503), Step::hang()]).set(|r| r.max_retries(1));
    assert_eq!(
        traced_chat(scene)[1],
        [
            "ERROR crabllm_retry: call failed",
            r#"error.type = "timeout""#,
            "exception.message = request timed out",
            "http.request.resend_count = 1",
            "crabllm_retry.attempt = 2",
            "crabllm_retry.elapsed = 31.0",
            "crabllm_retry.reason = no retry left",
        ]
    );
}

#[test]
fn a_stream_that_stalls_or_breaks_is_a_warning() {
    for (item, warning) in [
        (
            Step::hang(),
            &[
                "WARN crabllm_retry: stream went silent and was ended",
                r#"error.type = "timeout""#,
                "crabllm_retry.attempt = 1",
                "crabllm_retry.elapsed = 90.0",
                "crabllm_retry.idle = 90.0",
            ][..],
        ),
        (
            Step::disconnect().after(SECOND),
            &[
                "WARN crabllm_retry: stream broke",
                r#"error.type = "_OTHER""#,
                "exception.message = internal error: connection lost",
                "crabllm_retry.attempt = 1",
                "crabllm_retry.elapsed = 1.0",
            ],
        ),
    ] {
        let scene = Scene::new([Step::stream([Step::ok(), item])]);
        let events = traced(scene, |retrying| {
            block_on(async {
                let stream = retrying.chat_completion_stream(&request()).await.unwrap();
                assert_eq!(stream.count().await, 2);
            });
        });
        let events = own_lines(events, "chat_completion_stream");
        assert_eq!(events.last().unwrap(), warning);
    }
}

#[test]
fn the_events_of_a_fallback_name_no_attempt() {
    let [first, second] = [vec![Step::status(503)], vec![]].map(|it| Scene::new(it).scripted);
    let fallback = Fallback::new(first, second)
        .breaker(1, Duration::ZERO)
        .observe(trace);
    let lines = events(|| {
        for _ in 0..2 {
            block_on(fallback.chat_completion(&request())).unwrap();
        }
    })
    .concat();
    let common = ["gen_ai", "retry.method", "retry.elapsed", "attempt = 0"];
    let is_own = |line: &&String| !common.iter().any(|field| line.contains(field));
    assert!(lines.iter().filter(is_own).eq([
        "WARN crabllm_retry: breaker opened, calls skip the first provider",
        "crabllm_retry.call = 1",
        "WARN crabllm_retry: first provider failed, the call goes to the second",
        r#"error.type = "503""#,
        "exception.message = provider error (HTTP 503): ",
        "http.response.status_code = 503",
        "crabllm_retry.call = 1",
        "INFO crabllm_retry: breaker closed, the first provider is back",
        "crabllm_retry.call = 2",
    ]));
}

#[cfg(feature = "crabllm-core-0_0_25")]
#[test]
fn a_call_without_a_model_has_no_field_for_it() {
    use crabllm_retry::crabllm_core_0_0_25::Provider;

    let events = traced(Scene::new([]), |retrying| {
        block_on(Provider::models(retrying)).unwrap();
    });
    assert_eq!(
        events.last().unwrap()[..],
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
        let events = traced_chat(Scene::new([Step::status_with_body(400, body)]));
        let message = |line: &&String| line.starts_with("exception.message");
        events[0].iter().find(message).unwrap().clone()
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
