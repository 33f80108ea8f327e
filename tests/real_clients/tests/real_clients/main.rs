//! The clients of `crabllm-provider` and of the examples on smol, over real connections and in real time, against a
//! server that fails on purpose. The server counts the requests.

mod answer;
#[path = "../../../../examples/support/client.rs"]
mod client;
mod fallback;
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
use methods::{MODEL, Method, STREAMS, UNARY, Wrapper};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Long enough for a good answer and each part of it, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);

const NOW: Duration = Duration::ZERO;

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
    method: Method,
    answer: Answer,
    requests: usize,
    elapsed: Duration,
}

/// Calls each method once, at a server of its own that follows the script.
fn call(methods: &[Method], policy: &Policy, script: &[Fault]) -> Vec<Outcome> {
    let calls = methods.iter().map(async |&method| {
        let server = FlakyServer::start([(MODEL, script)]).unwrap();
        let wrapper = Wrapper {
            policy: policy.clone(),
            attempts: Arc::default(),
        };
        let attempts = wrapper.attempts.clone();
        let begun = Instant::now();
        let answer = method.call(server.base_url(), wrapper).await;
        let requests = server.requests();
        assert_eq!(requests, attempts.load(Relaxed), "{method:?}");
        Outcome {
            method,
            answer,
            requests,
            elapsed: begun.elapsed(),
        }
    });
    smol::block_on(join_all(calls).compat())
}

impl Outcome {
    fn is_good_after(&self, requests: usize) {
        let Self { method, answer, .. } = self;
        assert_eq!(answer.error, None, "{method:?}");
        assert_eq!(answer.text, REPLY, "{method:?}");
        assert_eq!(self.requests, requests, "{method:?}");
    }

    fn is_the_error_after(&self, error: &str, requests: usize) {
        let Self { method, answer, .. } = self;
        let message = answer.error.as_deref().unwrap_or("none");
        assert!(message.contains(error), "{method:?}: {message}");
        assert_eq!(self.requests, requests, "{method:?}");
    }

    fn took_at_least(&self, time: Duration) {
        let Self {
            method, elapsed, ..
        } = self;
        assert!(*elapsed >= time, "{method:?}: {elapsed:?}");
    }
}

#[test]
fn a_call_that_fails_before_its_answer_is_made_again() {
    use Fault::*;
    let all = &[UNARY, STREAMS].concat()[..];
    // With isahc a stream is open only when its first bytes come.
    let policy = patient().timeout(TIMEOUT).stream_idle(TIMEOUT);
    let second = Duration::from_secs(1);
    for (methods, fault, times, time) in [
        (all, Status(503), 4, NOW),
        (all, RateLimitInBody(1), 1, second),
        (all, Drop, 4, NOW),
        (all, Stall, 1, TIMEOUT),
        (UNARY, DropHalfway, 4, NOW),
        (UNARY, StallHalfway, 1, TIMEOUT),
        (&STREAMS[2..], ErrorEvent, 4, NOW),
        (&STREAMS[2..], AnnouncedErrorEvent, 4, NOW),
        (&STREAMS[1..], ErrorChunk, 4, NOW),
        (&STREAMS[1..], ErrorFinish, 4, NOW),
        (STREAMS, Empty, 4, NOW),
        (STREAMS, DropOpened, 4, NOW),
        (STREAMS, StallOpened, 1, TIMEOUT),
    ] {
        for outcome in call(methods, &policy, &vec![fault; times]) {
            outcome.is_good_after(times + 1);
            outcome.took_at_least(time);
        }
    }
}

#[test]
fn a_failure_that_no_retry_may_mend_is_returned_at_once() {
    use Fault::*;
    for (methods, fault, error) in [
        (UNARY, Status(400), "HTTP 400"),
        (STREAMS, Status(400), "HTTP 400"),
        (&STREAMS[1..2], ErrorEvent, "SSE parse error"),
        (&STREAMS[1..2], AnnouncedErrorEvent, "SSE parse error"),
    ] {
        for outcome in call(methods, &patient(), &[fault]) {
            outcome.is_the_error_after(error, 1);
        }
    }
}

#[test]
fn a_stream_that_fails_halfway_gives_its_reader_the_error() {
    use Fault::*;
    let policy = patient().stream_idle(TIMEOUT);
    let broken = "error reading a body from connection";
    for (methods, fault, error, time) in [
        (&STREAMS[..3], DropHalfway, broken, NOW),
        (&STREAMS[3..], DropHalfway, "the answer broke off", NOW),
        (STREAMS, StallHalfway, "request timed out", TIMEOUT),
    ] {
        for outcome in call(methods, &policy, &[fault]) {
            let text = &*outcome.answer.text;
            let is_part = !text.is_empty() && text != REPLY && REPLY.starts_with(text);
            assert!(is_part, "{:?}: {text:?}", outcome.method);
            outcome.is_the_error_after(error, 1);
            outcome.took_at_least(time);
        }
    }
}

#[test]
fn a_stream_whose_every_byte_comes_by_itself_is_the_same() {
    for outcome in call(STREAMS, &patient(), &[Fault::Bytewise]) {
        outcome.is_good_after(1);
    }
}
