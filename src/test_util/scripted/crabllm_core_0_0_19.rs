//! The scripted provider for `crabllm-core` 0.0.19.

use super::{Scripted, ScriptedError};
use crate::{policy::Operation::*, timer::Timer};
use bytes::Bytes;
use crabllm_core_0_0_19::{
    AudioSpeechRequest, BoxStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, EmbeddingUsage, Error,
    ImageRequest, MultipartField, Provider,
};

impl From<ScriptedError> for Error {
    fn from(error: ScriptedError) -> Self {
        match error {
            ScriptedError::Status { status, body, .. } => Self::Provider { status, body },
            ScriptedError::Disconnected => Self::Internal("connection lost".into()),
            ScriptedError::Invalid => Self::Config("no such thing".into()),
        }
    }
}

const RAW: Bytes = Bytes::from_static(b"{}");

#[deny(clippy::missing_trait_methods)]
impl<T: Timer> Provider for Scripted<T> {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        self.attempt(ChatCompletion).await?;
        Ok(ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let item = ChatCompletionChunk::default;
        self.open(ChatCompletionStream, item).await
    }

    async fn embedding(&self, request: &EmbeddingRequest) -> Result<EmbeddingResponse, Error> {
        self.attempt(Embedding).await?;
        Ok(EmbeddingResponse {
            object: "list".into(),
            data: Vec::new(),
            model: request.model.clone(),
            usage: EmbeddingUsage {
                prompt_tokens: 0,
                total_tokens: 0,
            },
        })
    }

    async fn image_generation(&self, _: &ImageRequest) -> Result<(Bytes, String), Error> {
        self.attempt(ImageGeneration).await?;
        Ok(Default::default())
    }

    async fn audio_speech(&self, _: &AudioSpeechRequest) -> Result<(Bytes, String), Error> {
        self.attempt(AudioSpeech).await?;
        Ok(Default::default())
    }

    async fn audio_transcription(
        &self,
        _: &str,
        _: &[MultipartField],
    ) -> Result<(Bytes, String), Error> {
        self.attempt(AudioTranscription).await?;
        Ok(Default::default())
    }

    /// True, unlike the trait's default.
    fn is_openai_compat(&self) -> bool {
        true
    }

    /// True, unlike the trait's default.
    fn is_anthropic_compat(&self) -> bool {
        true
    }

    async fn chat_completion_raw(&self, _: &str, _: Bytes) -> Result<Bytes, Error> {
        self.attempt(ChatCompletionRaw).await?;
        Ok(RAW)
    }

    async fn anthropic_messages_raw(&self, _: Bytes) -> Result<Bytes, Error> {
        self.attempt(AnthropicMessagesRaw).await?;
        Ok(RAW)
    }
}
