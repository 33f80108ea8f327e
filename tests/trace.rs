//! The `tracing` events of `trace`.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "test-util",
    feature = "tracing"
))]

mod common;

use common::{SECOND, Scene, block_on, given_up, request};
use crabllm_retry::{GiveUpReason, crabllm_core_0_0_19::Provider, test_util::Step, trace};
use futures::StreamExt;
use std::{
    fmt,
    sync::{Arc, Mutex},
};
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry,
};

/// Writes down each event: a line for its level, target and message, and one
/// for each of its fields.
#[derive(Clone)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    most_verbose: Level,
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        if *metadata.level() > self.most_verbose {
            return;
        }
        let mut lines = self.lines.lock().unwrap();
        lines.push(format!(
            "{} {}: {}",
            metadata.level(),
            metadata.target(),
            fields.message
        ));
        lines.append(&mut fields.lines);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    lines: Vec<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.lines.push(format!("  {field} = {value:?}"));
        }
    }
}

/// The traces of the calls that are made within, up to a level.
fn traced_up_to(
    most_verbose: Level,
    scene: Scene,
    calls: impl FnOnce(&common::Wrapper),
) -> Vec<String> {
    let lines = Lines {
        lines: Arc::default(),
        most_verbose,
    };
    let scene = scene.set(|r| r.observe(trace));
    tracing::subscriber::with_default(registry().with(lines.clone()), || calls(&scene.retrying));
    let lines = lines.lines.lock().unwrap();
    lines.clone()
}

/// The traces of calls, but for the starts of attempts.
fn traced(scene: Scene, calls: impl FnOnce(&common::Wrapper)) -> Vec<String> {
    traced_up_to(Level::DEBUG, scene, calls)
}

/// The traces of one call, but for the starts of attempts.
fn traced_chat(scene: Scene) -> Vec<String> {
    traced(scene, |retrying| {
        let _ = block_on(retrying.chat_completion(&request()));
    })
}

#[test]
fn the_start_of_an_attempt_is_traced() {
    let traced = traced_up_to(Level::TRACE, Scene::new([]), |retrying| {
        let _ = block_on(retrying.chat_completion(&request()));
    });
    assert_eq!(
        traced[..6],
        [
            "TRACE crabllm_retry: attempt starts",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.0",
        ]
    );
    assert_eq!(traced[6], "DEBUG crabllm_retry: call succeeded");
}

#[test]
fn a_success_at_once_is_for_debugging() {
    assert_eq!(
        traced_chat(Scene::new([Step::ok().after(SECOND / 4)])),
        [
            "DEBUG crabllm_retry: call succeeded",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.25",
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
        traced_chat(scene),
        [
            "WARN crabllm_retry: attempt failed, another one follows",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  error.type = "503""#,
            "  exception.message = provider error (HTTP 503): busy",
            "  http.response.status_code = 503",
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.5",
            "  crabllm_retry.delay = 1.0",
            "  crabllm_retry.source = backoff",
            "WARN crabllm_retry: attempt failed, another one follows",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  error.type = "429""#,
            "  exception.message = provider error (HTTP 429): too fast",
            "  http.response.status_code = 429",
            "  http.request.resend_count = 1",
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 2",
            "  crabllm_retry.elapsed = 1.5",
            "  crabllm_retry.delay = 5.0",
            "  crabllm_retry.source = requested by the server",
            "INFO crabllm_retry: call succeeded after retries",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            "  http.request.resend_count = 2",
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 3",
            "  crabllm_retry.elapsed = 6.5",
        ]
    );
}

#[test]
fn an_error_that_is_not_transient_is_a_warning() {
    assert_eq!(
        traced_chat(Scene::new([Step::invalid()])),
        [
            "WARN crabllm_retry: call failed",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  error.type = "_OTHER""#,
            "  exception.message = config error: no such thing",
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.0",
            "  crabllm_retry.reason = not transient",
        ]
    );
}

#[test]
fn a_call_that_runs_out_of_retries_is_an_error() {
    let scene = Scene::new([Step::status(503), Step::hang()]).set(|r| r.max_retries(1));
    assert_eq!(
        traced_chat(scene)[11..],
        [
            "ERROR crabllm_retry: call failed",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  error.type = "timeout""#,
            "  exception.message = request timed out",
            "  http.request.resend_count = 1",
            r#"  crabllm_retry.method = "chat_completion""#,
            "  crabllm_retry.attempt = 2",
            "  crabllm_retry.elapsed = 31.0",
            "  crabllm_retry.reason = no retry left",
        ]
    );
}

#[test]
fn giving_up_is_an_error_but_on_what_is_not_transient() {
    for (scene, reason) in given_up() {
        let traced = traced_chat(scene);
        let level = match reason {
            GiveUpReason::NotTransient => "WARN",
            _ => "ERROR",
        };
        assert_eq!(traced[0], format!("{level} crabllm_retry: call failed"));
        assert_eq!(traced[9..], [format!("  crabllm_retry.reason = {reason}")]);
    }
}

#[test]
fn a_stalled_stream_is_a_warning() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::hang()])]);
    let traced = traced(scene, |retrying| {
        block_on(async {
            let stream = retrying.chat_completion_stream(&request()).await.unwrap();
            assert_eq!(stream.count().await, 2);
        });
    });
    assert_eq!(
        traced,
        [
            "DEBUG crabllm_retry: call succeeded",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  crabllm_retry.method = "chat_completion_stream""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.0",
            "WARN crabllm_retry: stream went silent and was ended",
            r#"  gen_ai.operation.name = "chat""#,
            r#"  gen_ai.request.model = "m""#,
            r#"  error.type = "timeout""#,
            r#"  crabllm_retry.method = "chat_completion_stream""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 90.0",
            "  crabllm_retry.idle = 90.0",
        ]
    );
}

#[cfg(feature = "crabllm-core-0_0_25")]
#[test]
fn a_call_without_a_model_has_no_field_for_it() {
    use crabllm_retry::crabllm_core_0_0_25::Provider;

    let traced = traced(Scene::new([]), |retrying| {
        block_on(Provider::models(retrying)).unwrap();
    });
    assert_eq!(
        traced,
        [
            "DEBUG crabllm_retry: call succeeded",
            r#"  gen_ai.operation.name = "models""#,
            r#"  crabllm_retry.method = "models""#,
            "  crabllm_retry.attempt = 1",
            "  crabllm_retry.elapsed = 0.0",
        ]
    );
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let page = |length: usize| "\u{1f980}".repeat(length / 4);
    for (body, more) in [(page(900), None), (page(180_000), Some(179_000))] {
        let length = body.len();
        let lines = traced_chat(Scene::new([Step::status_with_body(400, body)]));
        let message = lines
            .iter()
            .find(|line| line.contains("exception.message"))
            .unwrap();
        let (text, rest) = match message.rsplit_once("\u{1f980}… and ") {
            Some((text, rest)) => (text, rest.strip_suffix(" bytes more")),
            None => (&**message, None),
        };
        let rest: Option<usize> = rest.map(|rest| rest.parse().unwrap());
        assert!(
            rest.is_none_or(|rest| rest.abs_diff(more.unwrap()) < 100),
            "{rest:?}"
        );
        assert_eq!(rest.is_some(), more.is_some());
        let shown = length - rest.unwrap_or_default();
        assert!(
            text.len() < 1100 && text.len() + 100 > shown,
            "{}",
            text.len()
        );
    }
}
