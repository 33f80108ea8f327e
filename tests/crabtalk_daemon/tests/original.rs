//! The same random scripts through the daemon's own wrapper, on tokio with paused
//! time, and through this crate's, on the virtual timer.
//!
//! They agree on the result, the items of streams, and the number and durations of attempts; the
//! delays of both lie within the same bounds. Each intended difference is a test.
//!
//! `ORIGINAL_SEED` and `ORIGINAL_CASES` set the seed and the number of scripts.

#[path = "../../common/random.rs"]
mod random;
#[path = "../../common/scripts.rs"]
mod scripts;

use crabllm_core::{
    BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse,
    EmbeddingRequest, Error, Provider,
};
use crabllm_retry::{
    Retrying,
    test_util::{Scripted, Step, VirtualTimer},
};
use crabtalk_daemon::provider::Retrying as Original;
use futures::{StreamExt, executor::block_on};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use random::for_random_cases;
use scripts::{
    Behavior, Kind, Run, TokioTimer, attempt, describe, error, panic_message,
    tokio_with_paused_time,
};
use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Method {
    Chat,
    Stream,
    Embedding,
}

use Method::{Chat, Embedding, Stream};

/// A call, and the behavior of its attempts.
#[derive(Clone, Debug)]
struct Case {
    method: Method,
    attempts: Vec<Behavior>,
}

/// Calls that both wrappers end: the original never ends a silent stream or embedding.
fn cases() -> impl Strategy<Value = Case> {
    let method = prop::sample::select(vec![Chat, Chat, Stream, Embedding]);
    method.prop_flat_map(|method| {
        let hang = prop_oneof![3 => error(), 1 => Just(Kind::Hang)].boxed();
        let failure = match method {
            Chat | Stream => hang,
            Embedding => error().boxed(),
        };
        vec(attempt(failure, error()), 0..5).prop_map(move |attempts| Case { method, attempts })
    })
}

impl Case {
    fn script(&self) -> Vec<Step> {
        self.attempts.iter().map(Behavior::step).collect()
    }
}

async fn call(provider: &impl Provider, method: Method) -> Vec<String> {
    match method {
        Chat => vec![describe(provider.chat_completion(&request()).await)],
        Stream => match provider.chat_completion_stream(&request()).await {
            Ok(items) => items.map(describe).collect().await,
            Err(error) => vec![format!("not opened: {error:?}")],
        },
        Embedding => vec![describe(provider.embedding(&embedding()).await)],
    }
}

fn request() -> ChatCompletionRequest {
    serde_json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

fn embedding() -> EmbeddingRequest {
    serde_json::from_str(r#"{"model": "m", "input": "text"}"#).unwrap()
}

/// A call through this crate's wrapper, and the time that all of it took.
fn ours(method: Method, script: Vec<Step>) -> (Run, Duration) {
    let timer = VirtualTimer::new();
    let provider = Scripted::new(timer.clone(), script);
    let retrying = Retrying::with_timer(provider.clone(), timer.clone());
    let result = block_on(timer.task(call(&retrying, method)));
    (Run::new(result, provider.attempts()), timer.elapsed())
}

fn originals(
    tokio: &tokio::runtime::Runtime,
    method: Method,
    script: Vec<Step>,
) -> (Run, Duration) {
    let provider = Scripted::new(TokioTimer, script);
    let retrying = Original::new(provider.clone());
    let (result, elapsed) = tokio.block_on(async {
        let began = tokio::time::Instant::now();
        let result = call(&retrying, method).await;
        (result, began.elapsed())
    });
    (Run::new(result, provider.attempts()), elapsed)
}

/// The bounds of the delay after an attempt.
fn delay(attempt: usize) -> RangeInclusive<Duration> {
    let bound = 100 * MS * (1 << attempt);
    bound / 2..=bound
}

#[test]
fn random_scripts_have_the_same_results() {
    let tokio = tokio_with_paused_time();
    for_random_cases("ORIGINAL", 20_000, &cases(), |case| {
        let (original, _) = originals(&tokio, case.method, case.script());
        let (ours, _) = ours(case.method, case.script());
        ours.agrees_with(&original, delay)
            .map_err(|error| TestCaseError::fail(format!("{error}\n{ours:?}\n{original:?}")))
    });
}

/// The intended differences, as listed in the README.
mod differences {
    use super::*;

    #[test]
    fn no_sleep_after_the_last_attempt() {
        let failures = || [(); 3].map(|()| Step::status(503)).into();
        let asleep = |run: &Run| run.delays.iter().sum::<Duration>();
        let (run, elapsed) = ours(Chat, failures());
        assert_eq!(elapsed, asleep(&run));
        let (run, elapsed) = originals(&tokio_with_paused_time(), Chat, failures());
        assert!(elapsed - asleep(&run) >= 200 * MS);
    }

    #[test]
    fn a_silent_stream_ends() {
        let silent = || vec![Step::stream([Step::hang()])];
        let (run, elapsed) = ours(Stream, silent());
        assert_eq!((run.result, elapsed), (vec!["Timeout".into()], 90 * SECOND));

        let retrying = Original::new(Scripted::new(TokioTimer, silent()));
        let day = 24 * 3600 * SECOND;
        let waited = async { tokio::time::timeout(day, call(&retrying, Stream)).await };
        assert!(tokio_with_paused_time().block_on(waited).is_err());
    }

    #[test]
    fn a_method_that_is_not_implemented_is_called_once() {
        /// Implements nothing, and counts its calls.
        #[derive(Clone, Default)]
        struct Nothing(Arc<AtomicUsize>);

        impl Provider for Nothing {
            async fn chat_completion(
                &self,
                _: &ChatCompletionRequest,
            ) -> Result<ChatCompletionResponse, Error> {
                self.0.fetch_add(1, Ordering::Relaxed);
                Err(Error::not_implemented("chat_completion"))
            }

            async fn chat_completion_stream(
                &self,
                _: &ChatCompletionRequest,
            ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
                Err(Error::not_implemented("chat_completion_stream"))
            }
        }

        let inner = Nothing::default();
        let ours = block_on(call(&Retrying::new(inner.clone()), Chat));
        assert_eq!(inner.0.load(Ordering::Relaxed), 1);

        let inner = Nothing::default();
        let retrying = Original::new(inner.clone());
        let original = tokio_with_paused_time().block_on(call(&retrying, Chat));
        assert_eq!(inner.0.load(Ordering::Relaxed), 3);
        assert_eq!(ours, original);
    }

    #[test]
    fn only_the_original_needs_tokio() {
        let provider = || Scripted::new(VirtualTimer::new(), [Step::status(503)]);
        assert_eq!(block_on(call(&Retrying::new(provider()), Chat)), ["ok"]);

        let original = Original::new(provider());
        let message = panic_message(|| block_on(call(&original, Chat)));
        assert!(message.contains("no reactor running"), "{message}");
    }
}
