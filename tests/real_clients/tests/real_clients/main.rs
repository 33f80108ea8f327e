//! Clients that nobody wrote for this crate, over real connections and in real time: those of
//! `crabllm-provider`, on smol, against a server that fails on purpose.
//!
//! Each claim is checked for every method of every client, all at once. What the server counts
//! is the proof of what was sent.

mod answer;
mod crabllm_provider_0_0_19;
mod crabllm_provider_0_0_25;
#[path = "../../../../examples/support/flaky_server.rs"]
mod flaky_server;

use answer::Answer;
use async_compat::CompatExt;
use crabllm_retry::{Backoff, Operations, Policy};
use flaky_server::{Fault, FlakyServer, REPLY};
use futures::future::{LocalBoxFuture, join_all};
use std::{
    sync::Once,
    time::{Duration, Instant},
};

/// The model that every request asks for, and by which the server knows it.
const MODEL: &str = "flaky-1";

/// A request that OpenAI's dialect and Anthropic's have in common.
fn request(stream: bool) -> String {
    format!(
        r#"{{"model": "{MODEL}", "max_tokens": 64, "stream": {stream}, "messages": [
            {{"role": "user", "content": [{{"type": "text", "text": "What is patience?"}}]}}
        ]}}"#
    )
}

/// One method of one client, wrapped with retries.
struct Method {
    name: String,
    call: Box<dyn Fn(String, Policy) -> LocalBoxFuture<'static, Answer>>,
}

/// The methods that answer in one piece.
fn unary() -> Vec<Method> {
    let mut all = Vec::new();
    all.extend(crabllm_provider_0_0_19::unary());
    all.extend(crabllm_provider_0_0_25::unary());
    all
}

/// The methods that open a stream.
fn streams() -> Vec<Method> {
    let mut all = Vec::new();
    all.extend(crabllm_provider_0_0_19::streams());
    all.extend(crabllm_provider_0_0_25::streams());
    all
}

fn every_method() -> Vec<Method> {
    unary().into_iter().chain(streams()).collect()
}

/// Two retries without much of a delay, of streams too; no timeout is near.
fn patient() -> Policy {
    Policy::default()
        .backoff(Backoff::exponential(
            Duration::from_millis(1),
            Duration::from_millis(1),
        ))
        .also_retry(Operations::STREAMS)
}

/// Long enough for a good answer and each part of it, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The outcome of a call.
struct Observed {
    method: String,
    answer: Answer,
    requests: usize,
    elapsed: Duration,
}

/// Calls each method once, each at a server of its own that follows the script.
fn call(methods: Vec<Method>, policy: &Policy, script: &[Fault]) -> Vec<Observed> {
    let calls = methods.into_iter().map(async |method| {
        let scripts = [(MODEL, script.iter().copied())];
        let server = FlakyServer::start(Duration::ZERO, scripts).unwrap();
        let begun = Instant::now();
        let answer = (method.call)(server.base_url(), policy.clone()).await;
        Observed {
            method: method.name,
            answer,
            requests: server.requests(),
            elapsed: begun.elapsed(),
        }
    });
    smol::block_on(join_all(calls).compat())
}

impl Observed {
    fn is_good_after(&self, requests: usize) {
        let Self { method, answer, .. } = self;
        assert_eq!(answer.error, None, "{method}");
        assert_eq!(answer.text, REPLY, "{method}");
        assert_eq!(self.requests, requests, "{method}");
    }

    fn is_the_error_after(&self, error: &str, requests: usize) {
        let Self { method, answer, .. } = self;
        let told = answer.error.as_deref().unwrap_or("none");
        assert!(told.contains(error), "{method}: {told}");
        assert_eq!(self.requests, requests, "{method}");
    }

    fn has_begun(&self) {
        let Self { method, answer, .. } = self;
        let text = &*answer.text;
        let part = !text.is_empty() && text != REPLY && REPLY.starts_with(text);
        assert!(part, "{method}: {text:?}");
    }

    fn took_at_least(&self, bound: Duration) {
        assert!(self.elapsed >= bound, "{}: {:?}", self.method, self.elapsed);
    }
}

/// Two crates in this tree have different providers of cryptography built in, and every client
/// has TLS even if no test does: one must be chosen before the first client is made.
fn choose_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
}

#[test]
fn a_healthy_server_is_asked_once() {
    for outcome in call(every_method(), &patient(), &[]) {
        outcome.is_good_after(1);
    }
}

#[test]
fn an_overloaded_server_is_asked_again() {
    for outcome in call(every_method(), &patient(), &[Fault::Status(503)]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn a_retry_is_not_earlier_than_the_server_asked_for() {
    for outcome in call(every_method(), &patient(), &[Fault::RateLimitInBody(1)]) {
        outcome.is_good_after(2);
        outcome.took_at_least(Duration::from_secs(1));
    }
}

#[test]
fn a_dropped_connection_is_made_again() {
    for outcome in call(every_method(), &patient(), &[Fault::Drop]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn a_silent_server_is_timed_out_and_asked_again() {
    let policy = patient().timeout(TIMEOUT);
    for outcome in call(every_method(), &policy, &[Fault::Stall]) {
        outcome.is_good_after(2);
        outcome.took_at_least(TIMEOUT);
    }
}

#[test]
fn a_rejected_request_is_not_sent_again() {
    for outcome in call(every_method(), &patient(), &[Fault::Status(400)]) {
        outcome.is_the_error_after("HTTP 400", 1);
    }
}

#[test]
fn an_outage_is_told_after_the_last_retry() {
    for outcome in call(every_method(), &patient(), &[Fault::Status(503); 4]) {
        outcome.is_the_error_after("HTTP 503", 3);
    }
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    for outcome in call(unary(), &patient(), &[Fault::DropHalfway]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn an_answer_that_stalls_is_timed_out_and_asked_for_again() {
    let policy = patient().timeout(TIMEOUT);
    for outcome in call(unary(), &policy, &[Fault::StallHalfway]) {
        outcome.is_good_after(2);
        outcome.took_at_least(TIMEOUT);
    }
}

#[test]
fn a_stream_that_breaks_off_gives_its_reader_the_error() {
    for outcome in call(streams(), &patient(), &[Fault::DropHalfway]) {
        outcome.has_begun();
        outcome.is_the_error_after("error reading a body from connection", 1);
    }
}

#[test]
fn a_stream_that_stalls_gives_its_reader_a_timeout() {
    let policy = patient().stream_idle(TIMEOUT);
    for outcome in call(streams(), &policy, &[Fault::StallHalfway]) {
        outcome.has_begun();
        outcome.is_the_error_after("request timed out", 1);
        outcome.took_at_least(TIMEOUT);
    }
}
