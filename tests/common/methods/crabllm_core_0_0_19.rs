//! The methods of crabllm-core 0.0.19.

use super::whole;
use crabllm_retry::{
    Operation,
    crabllm_core_0_0_19::{
        AudioSpeechRequest, BoxStream, ChatCompletionRequest, EmbeddingInput, EmbeddingRequest,
        Error, ImageRequest, Provider, json,
    },
};
use futures::StreamExt;

pub const METHODS: [Operation; 8] = [
    Operation::ChatCompletion,
    Operation::ChatCompletionRaw,
    Operation::AnthropicMessagesRaw,
    Operation::ChatCompletionStream,
    Operation::Embedding,
    Operation::ImageGeneration,
    Operation::AudioSpeech,
    Operation::AudioTranscription,
];

/// An opened stream: what becomes of its items.
pub type Items = BoxStream<'static, Result<(), Error>>;

/// Calls one method, and returns what it opens, if it opens a stream.
pub async fn call(p: &impl Provider, method: Operation) -> Result<Option<Items>, Error> {
    let body = || r#"{"model": "m"}"#.into();
    match method {
        Operation::ChatCompletion => p.chat_completion(&chat()).await.map(whole),
        Operation::ChatCompletionRaw => p.chat_completion_raw("m", body()).await.map(whole),
        Operation::AnthropicMessagesRaw => p.anthropic_messages_raw(body()).await.map(whole),
        Operation::ChatCompletionStream => {
            let items = p.chat_completion_stream(&chat()).await?;
            Ok(Some(items.map(|item| item.map(drop)).boxed()))
        }
        Operation::Embedding => {
            let request = EmbeddingRequest {
                model: "m".into(),
                input: EmbeddingInput::Single("text".into()),
            };
            p.embedding(&request).await.map(whole)
        }
        Operation::ImageGeneration => {
            let request: ImageRequest = json::from_str(r#"{"model": "m", "prompt": "p"}"#)?;
            p.image_generation(&request).await.map(whole)
        }
        Operation::AudioSpeech => {
            let body = r#"{"model": "m", "input": "i", "voice": "v"}"#;
            let request: AudioSpeechRequest = json::from_str(body)?;
            p.audio_speech(&request).await.map(whole)
        }
        Operation::AudioTranscription => p.audio_transcription("m", &[]).await.map(whole),
        other => panic!("{other} is not a method of this release"),
    }
}

fn chat() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}
