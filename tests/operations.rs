//! Every method of the trait: forwarded, and classed as the contract says.

#![cfg(feature = "crabllm-core-0_0_19")]

mod common;

use common::{Scene, block_on, plain, request};
use crabllm_retry::{
    Event, Operation, Operations, Retrying, Step, VirtualTimer,
    crabllm_core_0_0_19::{
        AudioSpeechRequest, BoxStream, ChatCompletionChunk, ChatCompletionRequest,
        ChatCompletionResponse, EmbeddingInput, EmbeddingRequest, Error, ImageRequest, Provider,
        json,
    },
};
use futures::future::FutureExt;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The asynchronous methods of crabllm-core 0.0.19.
const METHODS: [Operation; 8] = [
    Operation::ChatCompletion,
    Operation::ChatCompletionRaw,
    Operation::AnthropicMessagesRaw,
    Operation::ChatCompletionStream,
    Operation::Embedding,
    Operation::ImageGeneration,
    Operation::AudioSpeech,
    Operation::AudioTranscription,
];

/// Calls one method, and drops what it answers.
async fn call(provider: &impl Provider, method: Operation) -> Result<(), Error> {
    match method {
        Operation::ChatCompletion => provider.chat_completion(&request()).await.map(drop),
        Operation::ChatCompletionRaw => provider
            .chat_completion_raw("m", "{}".into())
            .await
            .map(drop),
        Operation::AnthropicMessagesRaw => {
            provider.anthropic_messages_raw("{}".into()).await.map(drop)
        }
        Operation::ChatCompletionStream => {
            provider.chat_completion_stream(&request()).await.map(drop)
        }
        Operation::Embedding => {
            let request = EmbeddingRequest {
                model: "m".into(),
                input: EmbeddingInput::Single("text".into()),
            };
            provider.embedding(&request).await.map(drop)
        }
        Operation::ImageGeneration => {
            let request: ImageRequest = json::from_str(r#"{"model": "m", "prompt": "p"}"#)?;
            provider.image_generation(&request).await.map(drop)
        }
        Operation::AudioSpeech => {
            let request: AudioSpeechRequest =
                json::from_str(r#"{"model": "m", "input": "i", "voice": "v"}"#)?;
            provider.audio_speech(&request).await.map(drop)
        }
        Operation::AudioTranscription => provider.audio_transcription("m", &[]).await.map(drop),
        other => panic!("{other} is not a method of this release"),
    }
}

#[test]
fn every_method_reaches_the_inner_providers_own() {
    for method in METHODS {
        let scene = Scene::new([]);
        block_on(call(&scene.retrying, method)).unwrap();
        let called: Vec<_> = scene
            .scripted
            .attempts()
            .iter()
            .map(|a| a.operation)
            .collect();
        assert_eq!(called, [method]);
    }
}

#[test]
fn the_inner_providers_dialects_show_through() {
    struct Speaks {
        openai: bool,
        anthropic: bool,
    }

    impl Provider for Speaks {
        async fn chat_completion(
            &self,
            _: &ChatCompletionRequest,
        ) -> Result<ChatCompletionResponse, Error> {
            Err(Error::Timeout)
        }

        async fn chat_completion_stream(
            &self,
            _: &ChatCompletionRequest,
        ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
            Err(Error::Timeout)
        }

        fn is_openai_compat(&self) -> bool {
            self.openai
        }

        fn is_anthropic_compat(&self) -> bool {
            self.anthropic
        }
    }

    for (openai, anthropic) in [(false, false), (true, false), (false, true)] {
        let retrying = Retrying::with_timer(Speaks { openai, anthropic }, VirtualTimer::new());
        assert_eq!(retrying.is_openai_compat(), openai);
        assert_eq!(retrying.is_anthropic_compat(), anthropic);
    }
}

/// How many attempts a method makes at a failing provider, and whether it has
/// a timeout.
fn treatment(method: Operation, retry: Operations) -> (usize, bool) {
    let scene =
        Scene::new((0..9).map(|_| Step::status(503))).set(|r| r.policy(plain().retry(retry)));
    block_on(call(&scene.retrying, method)).unwrap_err();

    let hanging = Scene::by_hand([Step::hang()]).set(|r| r.policy(plain().retry(retry)));
    assert!(call(&hanging.retrying, method).now_or_never().is_none());
    (scene.attempts(), !hanging.sleeps.asked().is_empty())
}

#[test]
fn by_default_chats_are_retried_and_streams_only_timed() {
    for method in METHODS {
        let expected = match method {
            Operation::ChatCompletion
            | Operation::ChatCompletionRaw
            | Operation::AnthropicMessagesRaw => (3, true),
            Operation::ChatCompletionStream => (1, true),
            _ => (1, false),
        };
        assert_eq!(treatment(method, Operations::CHAT), expected, "{method}");
    }
}

#[test]
fn what_is_asked_for_is_retried_and_timed() {
    for method in METHODS {
        let only = Operations::try_from(method).unwrap();
        assert_eq!(treatment(method, only), (3, true), "{method}");
        assert_eq!(treatment(method, Operations::ALL), (3, true), "{method}");
    }
}

#[test]
fn what_is_not_asked_for_is_not_retried() {
    for method in METHODS {
        assert_eq!(treatment(method, Operations::NONE).0, 1, "{method}");
    }
}

#[test]
fn every_event_names_the_method_and_its_model() {
    for method in METHODS {
        // The body of this one is not looked into.
        let model = (method != Operation::AnthropicMessagesRaw).then_some("m");
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let script = [Step::status(503), Step::ok(), Step::invalid()];
        let scene = Scene::new(script).set(|r| {
            r.policy(plain().retry(Operations::ALL))
                .observe(move |event| {
                    let (Event::Retry {
                        operation,
                        model: named,
                        ..
                    }
                    | Event::Success {
                        operation,
                        model: named,
                        ..
                    }
                    | Event::GaveUp {
                        operation,
                        model: named,
                        ..
                    }) = *event
                    else {
                        panic!("{event:?}");
                    };
                    assert_eq!((operation, named), (method, model));
                    count.fetch_add(1, Ordering::Relaxed);
                })
        });
        block_on(call(&scene.retrying, method)).unwrap();
        block_on(call(&scene.retrying, method)).unwrap_err();
        assert_eq!(
            told.load(Ordering::Relaxed),
            3,
            "a retry, a success, a surrender"
        );
    }
}
