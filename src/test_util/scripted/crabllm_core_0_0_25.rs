//! The scripted provider for `crabllm-core` 0.0.25.

use super::{Scripted, ScriptedError};
use crate::{policy::Operation::*, timer::Timer};
use bytes::Bytes;
use crabllm_core_0_0_25::{
    AudioSpeechRequest, BoxStream, ByteStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, EmbeddingUsage, Error,
    ImageRequest, ModelList, MultipartField, Provider, anthropic, gemini, ir,
};
use std::io;

impl From<ScriptedError> for Error {
    fn from(error: ScriptedError) -> Self {
        match error {
            ScriptedError::Status {
                status,
                body,
                retry_after,
            } => Self::Provider {
                status,
                body,
                retry_after,
            },
            ScriptedError::Disconnected => Self::Network("connection lost".into()),
            ScriptedError::Invalid => Self::Config("no such thing".into()),
        }
    }
}

/// For the items of streams of bytes.
impl From<ScriptedError> for io::Error {
    fn from(error: ScriptedError) -> Self {
        Self::other(Error::from(error))
    }
}

const RAW: Bytes = Bytes::from_static(b"{}");

fn gemini_response() -> gemini::Response {
    gemini::Response {
        candidates: Vec::new(),
        usage_metadata: None,
    }
}

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

    async fn anthropic_messages(
        &self,
        request: &anthropic::Request,
    ) -> Result<anthropic::Response, Error> {
        self.attempt(AnthropicMessages).await?;
        Ok(anthropic::Response {
            id: String::new(),
            r#type: "message".into(),
            role: "assistant".into(),
            model: request.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: anthropic::Usage {
                input_tokens: 0,
                output_tokens: 0,
                cache_read_input_tokens: None,
                cache_creation_input_tokens: None,
            },
        })
    }

    async fn anthropic_messages_stream(
        &self,
        _: &anthropic::Request,
    ) -> Result<BoxStream<'static, Result<anthropic::StreamEvent, Error>>, Error> {
        let item = || anthropic::StreamEvent::ContentBlockStop { index: 0 };
        self.open(AnthropicMessagesStream, item).await
    }

    async fn gemini_generate_content(
        &self,
        _: &str,
        _: &gemini::Request,
    ) -> Result<gemini::Response, Error> {
        self.attempt(GeminiGenerateContent).await?;
        Ok(gemini_response())
    }

    async fn gemini_generate_content_stream(
        &self,
        _: &str,
        _: &gemini::Request,
    ) -> Result<BoxStream<'static, Result<gemini::Response, Error>>, Error> {
        self.open(GeminiGenerateContentStream, gemini_response)
            .await
    }

    async fn complete(&self, request: &ir::Request) -> Result<ir::Response, Error> {
        self.attempt(Complete).await?;
        Ok(ir::Response {
            id: String::new(),
            model: request.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            usage: Default::default(),
        })
    }

    async fn complete_stream(
        &self,
        _: &ir::Request,
    ) -> Result<BoxStream<'static, Result<ir::StreamEvent, Error>>, Error> {
        let item = || ir::StreamEvent::TextDelta(String::new());
        self.open(CompleteStream, item).await
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

    async fn models(&self) -> Result<ModelList, Error> {
        self.attempt(Models).await?;
        Ok(ModelList {
            object: "list".into(),
            data: Vec::new(),
        })
    }

    /// True, unlike the trait's default.
    fn is_openai_compat(&self) -> bool {
        true
    }

    /// True, unlike the trait's default.
    fn is_anthropic_compat(&self) -> bool {
        true
    }

    /// True, unlike the trait's default.
    fn is_gemini_compat(&self) -> bool {
        true
    }

    async fn chat_completion_stream_passthrough(
        &self,
        _: &str,
        _: ByteStream,
    ) -> Result<ByteStream, Error> {
        self.open(ChatCompletionStreamPassthrough, || RAW).await
    }

    async fn chat_completion_stream_raw(&self, _: &str, _: Bytes) -> Result<ByteStream, Error> {
        self.open(ChatCompletionStreamRaw, || RAW).await
    }

    async fn chat_completion_raw(&self, _: &str, _: Bytes) -> Result<Bytes, Error> {
        self.attempt(ChatCompletionRaw).await?;
        Ok(RAW)
    }

    async fn anthropic_messages_raw(&self, _: Bytes) -> Result<Bytes, Error> {
        self.attempt(AnthropicMessagesRaw).await?;
        Ok(RAW)
    }

    async fn anthropic_messages_stream_raw(&self, _: Bytes) -> Result<ByteStream, Error> {
        self.open(AnthropicMessagesStreamRaw, || RAW).await
    }

    async fn gemini_generate_content_raw(&self, _: &str, _: Bytes) -> Result<Bytes, Error> {
        self.attempt(GeminiGenerateContentRaw).await?;
        Ok(RAW)
    }

    async fn gemini_generate_content_stream_raw(
        &self,
        _: &str,
        _: Bytes,
    ) -> Result<ByteStream, Error> {
        self.open(GeminiGenerateContentStreamRaw, || RAW).await
    }
}
