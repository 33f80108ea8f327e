//! The clients of `crabllm-provider` and of the examples on smol, over real connections and in real time, against a
//! server that fails on purpose. The server counts the requests.

mod answer;
#[path = "../../../../examples/support/client.rs"]
mod client;
#[path = "../../../../examples/support/flaky_server.rs"]
mod flaky_server;
mod methods;
#[path = "../../../../examples/support/pool.rs"]
mod pool;
#[path = "../../../../examples/support/wire.rs"]
mod wire;

use answer::Answer;
use async_compat::CompatExt;
use crabllm_retry::{Backoff, Operations, Policy};
use flaky_server::{Fault, FlakyServer, REPLY};
use futures::future::join_all;
use methods::{MODEL, Method, PASSTHROUGH, STREAMS, UNARY, Wrapper};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Long enough for a good answer and each part of it, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Four retries with hardly a delay, of streams too; no timeout is near.
fn patient() -> Policy {
    let moment = Duration::from_millis(1);
    Policy::default()
        .max_retries(4)
        .backoff(Backoff::exponential(moment, moment))
        .also_retry(Operations::STREAMS)
}

/// The outcome of a call.
struct Outcome {
    method: &'static str,
    answer: Answer,
    requests: usize,
    elapsed: Duration,
}

/// Calls each method once, at a server of its own that follows the script.
fn call(methods: &[Method], policy: &Policy, script: &[Fault]) -> Vec<Outcome> {
    let calls = methods.iter().map(async |&(method, call)| {
        let scripts = [(MODEL, script.iter().copied())];
        let server = FlakyServer::start(Duration::ZERO, scripts).unwrap();
        let wrapper = Wrapper {
            policy: policy.clone(),
            attempts: Arc::default(),
        };
        let attempts = wrapper.attempts.clone();
        let begun = Instant::now();
        let answer = call(server.base_url(), wrapper).await;
        assert_eq!(
            server.requests(),
            attempts.load(Ordering::Relaxed),
            "{method}"
        );
        Outcome {
            method,
            answer,
            requests: server.requests(),
            elapsed: begun.elapsed(),
        }
    });
    smol::block_on(join_all(calls).compat())
}

fn call_all(policy: &Policy, script: &[Fault]) -> Vec<Outcome> {
    call(&[UNARY, STREAMS].concat(), policy, script)
}

impl Outcome {
    fn is_good_after(&self, requests: usize) {
        let Self { method, answer, .. } = self;
        assert_eq!(answer.error, None, "{method}");
        assert_eq!(answer.text, REPLY, "{method}");
        assert_eq!(self.requests, requests, "{method}");
    }

    fn is_the_error_after(&self, error: &str, requests: usize) {
        let Self { method, answer, .. } = self;
        let message = answer.error.as_deref().unwrap_or("none");
        assert!(message.contains(error), "{method}: {message}");
        assert_eq!(self.requests, requests, "{method}");
    }

    fn has_begun(&self) {
        let text = &*self.answer.text;
        let part = !text.is_empty() && text != REPLY && REPLY.starts_with(text);
        assert!(part, "{}: {text:?}", self.method);
    }

    fn took_at_least(&self, time: Duration) {
        assert!(self.elapsed >= time, "{}: {:?}", self.method, self.elapsed);
    }
}

#[test]
fn an_overloaded_server_is_asked_again() {
    for outcome in call_all(&patient(), &[Fault::Status(503)]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn a_retry_is_not_earlier_than_the_server_asked_for() {
    for outcome in call_all(&patient(), &[Fault::RateLimitInBody(1)]) {
        outcome.is_good_after(2);
        outcome.took_at_least(Duration::from_secs(1));
    }
}

#[test]
fn a_dropped_connection_is_made_again() {
    for outcome in call_all(&patient(), &[Fault::Drop]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn a_silent_server_is_timed_out_and_asked_again() {
    for outcome in call_all(&patient().timeout(TIMEOUT), &[Fault::Stall]) {
        outcome.is_good_after(2);
        outcome.took_at_least(TIMEOUT);
    }
}

#[test]
fn a_rejected_request_is_not_sent_again() {
    for outcome in call_all(&patient(), &[Fault::Status(400)]) {
        outcome.is_the_error_after("HTTP 400", 1);
    }
}

#[test]
fn a_request_that_is_consumed_is_not_sent_again() {
    for outcome in call(&PASSTHROUGH, &patient(), &[]) {
        outcome.is_good_after(1);
    }
    for outcome in call(&PASSTHROUGH, &patient(), &[Fault::Status(503)]) {
        outcome.is_the_error_after("HTTP 503", 1);
    }
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    for outcome in call(UNARY, &patient(), &[Fault::DropHalfway]) {
        outcome.is_good_after(2);
    }
}

#[test]
fn an_answer_that_stalls_is_timed_out_and_asked_for_again() {
    let policy = patient().timeout(TIMEOUT);
    for outcome in call(UNARY, &policy, &[Fault::StallHalfway]) {
        outcome.is_good_after(2);
        outcome.took_at_least(TIMEOUT);
    }
}

#[test]
fn a_stream_that_fails_before_its_first_content_is_asked_for_again() {
    // With isahc a stream is open only when its first bytes come.
    let policy = patient().timeout(TIMEOUT).stream_idle(TIMEOUT);
    for (methods, fault, times) in [
        (&STREAMS[2..], Fault::ErrorEvent, 4),
        (&STREAMS[2..], Fault::AnnouncedErrorEvent, 4),
        (&STREAMS[1..], Fault::ErrorChunk, 4),
        (&STREAMS[1..], Fault::ErrorFinish, 4),
        (STREAMS, Fault::Empty, 4),
        (STREAMS, Fault::DropOpened, 4),
        (STREAMS, Fault::StallOpened, 1),
    ] {
        for outcome in call(methods, &policy, &vec![fault; times]) {
            outcome.is_good_after(times + 1);
        }
    }
}

#[test]
fn an_error_that_the_client_takes_for_nonsense_is_returned_at_once() {
    for fault in [Fault::ErrorEvent, Fault::AnnouncedErrorEvent] {
        for outcome in call(&STREAMS[1..2], &patient(), &[fault]) {
            outcome.is_the_error_after("SSE parse error", 1);
        }
    }
}

#[test]
fn a_stream_whose_every_byte_comes_by_itself_is_the_same() {
    for outcome in call(STREAMS, &patient(), &[Fault::Bytewise]) {
        outcome.is_good_after(1);
    }
}

#[test]
fn a_stream_that_breaks_off_gives_its_reader_the_error() {
    for (methods, error) in [
        (&STREAMS[..4], "error reading a body from connection"),
        (&STREAMS[4..], "the answer broke off"),
    ] {
        for outcome in call(methods, &patient(), &[Fault::DropHalfway]) {
            outcome.has_begun();
            outcome.is_the_error_after(error, 1);
        }
    }
}

#[test]
fn a_stream_that_stalls_gives_its_reader_a_timeout() {
    let policy = patient().stream_idle(TIMEOUT);
    for outcome in call(STREAMS, &policy, &[Fault::StallHalfway]) {
        outcome.has_begun();
        outcome.is_the_error_after("request timed out", 1);
        outcome.took_at_least(TIMEOUT);
    }
}
