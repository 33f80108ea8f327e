//! The methods of crabllm-core 0.0.25.

use super::whole;
use crabllm_retry::{
    Operation,
    crabllm_core_0_0_25::{
        AudioSpeechRequest, BoxStream, ByteStream, ChatCompletionRequest, EmbeddingInput,
        EmbeddingRequest, Error, ImageRequest, Provider, anthropic, gemini, ir, json,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use std::io;

pub const METHODS: [Operation; 20] = [
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

/// An opened stream: what becomes of its items.
pub type Items = BoxStream<'static, Result<(), Error>>;

/// Calls one method, and returns what it opens, if it opens a stream.
pub async fn call(p: &impl Provider, method: Operation) -> Result<Option<Items>, Error> {
    let body = || r#"{"model": "m"}"#.into();
    match method {
        Operation::ChatCompletion => p.chat_completion(&chat()).await.map(whole),
        Operation::ChatCompletionRaw => p.chat_completion_raw("m", body()).await.map(whole),
        Operation::AnthropicMessages => p.anthropic_messages(&messages()).await.map(whole),
        Operation::AnthropicMessagesRaw => p.anthropic_messages_raw(body()).await.map(whole),
        Operation::GeminiGenerateContent => {
            let request = contents();
            p.gemini_generate_content("m", &request).await.map(whole)
        }
        Operation::GeminiGenerateContentRaw => {
            p.gemini_generate_content_raw("m", body()).await.map(whole)
        }
        Operation::Complete => p.complete(&canonical()).await.map(whole),
        Operation::ChatCompletionStream => typed(p.chat_completion_stream(&chat()).await),
        Operation::ChatCompletionStreamRaw => {
            bytes(p.chat_completion_stream_raw("m", body()).await)
        }
        Operation::AnthropicMessagesStream => typed(p.anthropic_messages_stream(&messages()).await),
        Operation::AnthropicMessagesStreamRaw => {
            bytes(p.anthropic_messages_stream_raw(body()).await)
        }
        Operation::GeminiGenerateContentStream => {
            let request = contents();
            typed(p.gemini_generate_content_stream("m", &request).await)
        }
        Operation::GeminiGenerateContentStreamRaw => {
            bytes(p.gemini_generate_content_stream_raw("m", body()).await)
        }
        Operation::CompleteStream => typed(p.complete_stream(&canonical()).await),
        Operation::ChatCompletionStreamPassthrough => {
            let body = stream::iter([Ok("{}".into())]).boxed();
            bytes(p.chat_completion_stream_passthrough("m", body).await)
        }
        Operation::Embedding => {
            let request = EmbeddingRequest {
                model: "m".into(),
                input: EmbeddingInput::Single("text".into()),
            };
            p.embedding(&request).await.map(whole)
        }
        Operation::ImageGeneration => {
            let request: ImageRequest = parse(r#"{"model": "m", "prompt": "p"}"#);
            p.image_generation(&request).await.map(whole)
        }
        Operation::AudioSpeech => {
            let request: AudioSpeechRequest =
                parse(r#"{"model": "m", "input": "i", "voice": "v"}"#);
            p.audio_speech(&request).await.map(whole)
        }
        Operation::AudioTranscription => p.audio_transcription("m", &[]).await.map(whole),
        Operation::Models => p.models().await.map(whole),
        other => panic!("{other} is not a method of this release"),
    }
}

fn typed<I: 'static>(
    opened: Result<BoxStream<'static, Result<I, Error>>, Error>,
) -> Result<Option<Items>, Error> {
    Ok(Some(opened?.map_ok(drop).boxed()))
}

/// The errors of such a stream are those of I/O, around the release's own.
fn bytes(opened: Result<ByteStream, Error>) -> Result<Option<Items>, Error> {
    let own = |error: io::Error| error.downcast().expect("an error of the release");
    Ok(Some(opened?.map_ok(drop).map_err(own).boxed()))
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> T {
    json::from_str(body).unwrap()
}

pub fn chat() -> ChatCompletionRequest {
    parse(r#"{"model": "m", "messages": []}"#)
}

fn messages() -> anthropic::Request {
    parse(r#"{"model": "m", "messages": [], "max_tokens": 1}"#)
}

fn contents() -> gemini::Request {
    parse(r#"{"contents": []}"#)
}

pub fn canonical() -> ir::Request {
    ir::Request::from(messages())
}
