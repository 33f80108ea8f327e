//! Random scripts through the daemon's own wrapper and this crate's, which differs only on
//! purpose: each difference is a test.
//!
//! `ORIGINAL_SEED` and `ORIGINAL_CASES` choose other scripts and more.

#[path = "../../common/random.rs"]
mod random;
#[path = "../../common/scripts.rs"]
mod scripts;

use crabllm_core::{
    BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse,
    EmbeddingRequest, Error, Provider,
};
use crabllm_retry::{
    Operation::{ChatCompletion as Chat, ChatCompletionStream as Stream, Embedding},
    Policy, Retrying,
    test_util::{Scripted, Step, VirtualTimer},
};
use crabtalk_daemon::provider::Retrying as Original;
use futures::executor::block_on;
use proptest::{collection::vec, prelude::*, sample::select};
use scripts::{
    Case, Kind, Run, TokioTimer, assert_agree, attempt, call, error, panic_message,
    tokio_with_paused_time,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

/// Its settings are fixed, and are this crate's defaults.
fn original<P: Provider>(provider: P, _: &Policy) -> Original<P> {
    Original::new(provider)
}

/// Calls that end with both: the original never ends a silent stream or embedding.
fn cases() -> impl Strategy<Value = Case> {
    let method = select(vec![Chat, Chat, Stream, Embedding]);
    method.prop_flat_map(|method| {
        let failure = match method {
            Chat | Stream => prop_oneof![3 => error(), 1 => Just(Kind::Hang)].boxed(),
            _ => error().boxed(),
        };
        vec(attempt(failure, error()), 0..5).prop_map(move |attempts| Case {
            method,
            policy: Policy::default(),
            attempts,
        })
    })
}

#[test]
fn random_scripts_go_the_same_way() {
    assert_agree("ORIGINAL", &cases());
}

#[test]
fn the_original_sleeps_after_the_last_attempt() {
    let failures = [(); 3].map(|()| Step::status(503)).into();
    let run = Run::originals(Chat, &Policy::default(), failures);
    assert!(run.rest >= SECOND / 5);
}

#[test]
fn the_original_never_ends_a_silent_stream() {
    let script = [Step::stream([Step::hang()])];
    let retrying = Original::new(Scripted::new(TokioTimer, script));
    let day = 24 * 3600 * SECOND;
    let waited = async { tokio::time::timeout(day, call(&retrying, Stream)).await };
    assert!(tokio_with_paused_time().block_on(waited).is_err());
}

#[test]
fn the_original_needs_tokio() {
    let original = Original::new(Scripted::new(VirtualTimer::new(), [Step::status(503)]));
    let message = panic_message(|| block_on(call(&original, Chat)));
    assert!(message.contains("no reactor running"), "{message}");
}

/// Implements nothing, and counts its calls.
#[derive(Clone, Default)]
struct Nothing(Arc<AtomicUsize>);

impl Provider for Nothing {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        self.0.fetch_add(1, Relaxed);
        Err(Error::not_implemented("chat_completion"))
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        Err(Error::not_implemented("chat_completion_stream"))
    }
}

#[test]
fn only_the_original_retries_a_method_that_is_not_implemented() {
    let inner = Nothing::default();
    block_on(call(&Retrying::new(inner.clone()), Chat));
    assert_eq!(inner.0.swap(0, Relaxed), 1);
    tokio_with_paused_time().block_on(call(&Original::new(inner.clone()), Chat));
    assert_eq!(inner.0.load(Relaxed), 3);
}
