//! The methods of crabllm-core 0.0.25.

use super::{Calls, Opened, Release, whole};
use crabllm_retry::{
    Operation,
    crabllm_core_0_0_25::{
        BoxStream, ByteStream, ChatCompletionRequest, Error, MultipartField, Provider, anthropic,
        gemini, ir, json,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use std::io;

pub struct ThisRelease;

impl Release for ThisRelease {
    type Error = Error;

    const METHODS: &'static [Operation] = &[
        Operation::ChatCompletion,
        Operation::ChatCompletionRaw,
        Operation::AnthropicMessages,
        Operation::AnthropicMessagesRaw,
        Operation::GeminiGenerateContent,
        Operation::GeminiGenerateContentRaw,
        Operation::Complete,
        Operation::ChatCompletionStream,
        Operation::ChatCompletionStreamRaw,
        Operation::AnthropicMessagesStream,
        Operation::AnthropicMessagesStreamRaw,
        Operation::GeminiGenerateContentStream,
        Operation::GeminiGenerateContentStreamRaw,
        Operation::CompleteStream,
        Operation::ChatCompletionStreamPassthrough,
        Operation::Embedding,
        Operation::ImageGeneration,
        Operation::AudioSpeech,
        Operation::AudioTranscription,
        Operation::Models,
    ];
}

impl<P: Provider> Calls<P> for ThisRelease {
    async fn call(p: &P, method: Operation) -> Opened<Self> {
        match method {
            Operation::ChatCompletion => p.chat_completion(&chat()).await.map(whole),
            Operation::ChatCompletionRaw => p.chat_completion_raw("m", RAW.into()).await.map(whole),
            Operation::AnthropicMessages => p.anthropic_messages(&messages()).await.map(whole),
            Operation::AnthropicMessagesRaw => {
                p.anthropic_messages_raw(RAW.into()).await.map(whole)
            }
            Operation::GeminiGenerateContent => {
                let request = contents();
                p.gemini_generate_content("m", &request).await.map(whole)
            }
            Operation::GeminiGenerateContentRaw => {
                let answer = p.gemini_generate_content_raw("m", RAW.into()).await;
                answer.map(whole)
            }
            Operation::Complete => p.complete(&canonical()).await.map(whole),
            Operation::ChatCompletionStream => typed(p.chat_completion_stream(&chat()).await),
            Operation::ChatCompletionStreamRaw => {
                bytes(p.chat_completion_stream_raw("m", RAW.into()).await)
            }
            Operation::AnthropicMessagesStream => {
                typed(p.anthropic_messages_stream(&messages()).await)
            }
            Operation::AnthropicMessagesStreamRaw => {
                bytes(p.anthropic_messages_stream_raw(RAW.into()).await)
            }
            Operation::GeminiGenerateContentStream => {
                let request = contents();
                typed(p.gemini_generate_content_stream("m", &request).await)
            }
            Operation::GeminiGenerateContentStreamRaw => {
                bytes(p.gemini_generate_content_stream_raw("m", RAW.into()).await)
            }
            Operation::CompleteStream => typed(p.complete_stream(&canonical()).await),
            Operation::ChatCompletionStreamPassthrough => {
                let body = stream::iter(["one", "two"].map(|part| Ok(part.into())));
                let body = body.boxed();
                bytes(p.chat_completion_stream_passthrough("m", body).await)
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
            Operation::Models => p.models().await.map(whole),
            other => panic!("{other} is not a method of this release"),
        }
    }
}

fn typed<I: 'static>(
    opened: Result<BoxStream<'static, Result<I, Error>>, Error>,
) -> Opened<ThisRelease> {
    Ok(Some(opened?.map_ok(drop).boxed()))
}

/// The errors of such a stream are those of I/O, around the release's own.
fn bytes(opened: Result<ByteStream, Error>) -> Opened<ThisRelease> {
    let own = |error: io::Error| error.downcast().expect("an error of the release");
    Ok(Some(opened?.map_ok(drop).map_err(own).boxed()))
}

const RAW: &str = r#"{"model": "m"}"#;

fn parse<T: DeserializeOwned>(body: &str) -> T {
    json::from_str(body).unwrap()
}

pub fn chat() -> ChatCompletionRequest {
    parse(
        r#"{"model": "m", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "t"}]}
        ]}"#,
    )
}

fn messages() -> anthropic::Request {
    parse(
        r#"{"model": "m", "max_tokens": 1, "messages": [
            {"role": "user", "content": [{"type": "text", "text": "t"}]}
        ]}"#,
    )
}

fn contents() -> gemini::Request {
    parse(r#"{"contents": [{"parts": [{"text": "text"}]}]}"#)
}

fn canonical() -> ir::Request {
    ir::Request::from(messages())
}

fn sound() -> MultipartField {
    MultipartField {
        name: "file".into(),
        filename: None,
        content_type: None,
        bytes: "sound".into(),
    }
}
