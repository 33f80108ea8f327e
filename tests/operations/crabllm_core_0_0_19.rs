//! The methods of crabllm-core 0.0.19.

use crate::common::request;
use crabllm_retry::crabllm_core_0_0_19::{
    AudioSpeechRequest, BoxStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingInput, EmbeddingRequest, Error, ImageRequest, Provider, json,
};

crate::claims!();

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
        Operation::ChatCompletionRaw => {
            let body = r#"{"model": "m"}"#.into();
            provider.chat_completion_raw("m", body).await.map(drop)
        }
        Operation::AnthropicMessagesRaw => {
            let body = r#"{"model": "m"}"#.into();
            provider.anthropic_messages_raw(body).await.map(drop)
        }
        Operation::ChatCompletionStream => {
            let request = request();
            provider.chat_completion_stream(&request).await.map(drop)
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
            let body = r#"{"model": "m", "input": "i", "voice": "v"}"#;
            let request: AudioSpeechRequest = json::from_str(body)?;
            provider.audio_speech(&request).await.map(drop)
        }
        Operation::AudioTranscription => provider.audio_transcription("m", &[]).await.map(drop),
        other => panic!("{other} is not a method of this release"),
    }
}

/// Says yes to the dialect of this number.
struct Speaks(usize);

fn dialects(provider: &impl Provider) -> [bool; 2] {
    [provider.is_openai_compat(), provider.is_anthropic_compat()]
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
        self.0 == 0
    }

    fn is_anthropic_compat(&self) -> bool {
        self.0 == 1
    }
}
