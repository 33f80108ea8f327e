//! The methods of crabllm-core 0.0.19.

use super::{Calls, Opened, Release, whole};
use crabllm_retry::{
    Operation,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, MultipartField, Provider, json},
};
use futures::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;

pub struct ThisRelease;

impl Release for ThisRelease {
    type Error = Error;

    const METHODS: &'static [Operation] = &[
        Operation::ChatCompletion,
        Operation::ChatCompletionRaw,
        Operation::AnthropicMessagesRaw,
        Operation::ChatCompletionStream,
        Operation::Embedding,
        Operation::ImageGeneration,
        Operation::AudioSpeech,
        Operation::AudioTranscription,
    ];
}

impl<P: Provider> Calls<P> for ThisRelease {
    async fn call(p: &P, method: Operation) -> Opened<Self> {
        match method {
            Operation::ChatCompletion => p.chat_completion(&chat()).await.map(whole),
            Operation::ChatCompletionRaw => p.chat_completion_raw("m", RAW.into()).await.map(whole),
            Operation::AnthropicMessagesRaw => {
                p.anthropic_messages_raw(RAW.into()).await.map(whole)
            }
            Operation::ChatCompletionStream => {
                let items = p.chat_completion_stream(&chat()).await?;
                Ok(Some(items.map_ok(drop).boxed()))
            }
            Operation::Embedding => {
                let request = parse(r#"{"model": "m", "input": "text"}"#);
                p.embedding(&request).await.map(whole)
            }
            Operation::ImageGeneration => {
                let request = parse(r#"{"model": "m", "prompt": "p"}"#);
                p.image_generation(&request).await.map(whole)
            }
            Operation::AudioSpeech => {
                let request = parse(r#"{"model": "m", "input": "i", "voice": "v"}"#);
                p.audio_speech(&request).await.map(whole)
            }
            Operation::AudioTranscription => {
                p.audio_transcription("m", &[sound()]).await.map(whole)
            }
            other => panic!("{other} is not a method of this release"),
        }
    }
}

const RAW: &str = r#"{"model": "m"}"#;

fn parse<T: DeserializeOwned>(body: &str) -> T {
    json::from_str(body).unwrap()
}

fn chat() -> ChatCompletionRequest {
    parse(
        r#"{"model": "m", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "t"}]}
        ]}"#,
    )
}

fn sound() -> MultipartField {
    MultipartField {
        name: "file".into(),
        filename: None,
        content_type: None,
        bytes: "sound".into(),
    }
}
