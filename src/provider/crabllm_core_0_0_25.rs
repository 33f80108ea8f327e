//! `crabllm-core` 0.0.25, the newest release.

use crate::{
    failure::Failure,
    policy::{Operation::*, Policy},
    retrying::Retrying,
    timer::Timer,
};
use bytes::Bytes;
use crabllm_core_0_0_25::{
    AudioSpeechRequest, BoxStream, ByteStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, Error, ImageRequest, ModelList,
    MultipartField, Provider, ProviderConfig, anthropic, gemini, ir,
};
use futures::{StreamExt, stream};
use std::{io, mem, time::Duration};

impl Failure for Error {
    fn timeout() -> Self {
        Self::Timeout
    }

    fn is_transient(&self) -> bool {
        self.is_transient()
    }

    fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }

    fn is_not_implemented(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Provider { status, .. } => Some(*status),
            _ => None,
        }
    }

    fn body(&self) -> Option<&str> {
        match self {
            Self::Provider { body, .. } => Some(body),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after()
    }
}

/// The timeout of a stream of bytes, whose errors are those of I/O.
fn byte_timeout() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, Error::Timeout)
}

/// The values of the configuration, or else the defaults. A timeout or deadline of
/// zero is none.
///
/// `retry_deadline` becomes the [deadline](Policy::deadline), which is stricter: in
/// `crabllm-core` no attempt begins after it, here none continues either. If it is
/// not set there is none here, and one of 15 seconds there.
impl From<&ProviderConfig> for Policy {
    fn from(config: &ProviderConfig) -> Self {
        Self::configured(config.max_retries, config.timeout, config.retry_deadline)
    }
}

// A default body would hide the inner provider's method: forward every one.
#[deny(clippy::missing_trait_methods)]
impl<P: Provider, T: Timer> Provider for Retrying<P, T> {
    fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> impl Future<Output = Result<ChatCompletionResponse, Error>> + Send {
        let attempt = move |p| P::chat_completion(p, request);
        self.call(ChatCompletion, &*request.model, attempt)
    }

    fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error>> + Send
    {
        let attempt = move |p| P::chat_completion_stream(p, request);
        self.open(
            ChatCompletionStream,
            &*request.model,
            Error::timeout,
            attempt,
        )
    }

    fn anthropic_messages(
        &self,
        request: &anthropic::Request,
    ) -> impl Future<Output = Result<anthropic::Response, Error>> + Send {
        let attempt = move |p| P::anthropic_messages(p, request);
        self.call(AnthropicMessages, &*request.model, attempt)
    }

    fn anthropic_messages_stream(
        &self,
        request: &anthropic::Request,
    ) -> impl Future<
        Output = Result<BoxStream<'static, Result<anthropic::StreamEvent, Error>>, Error>,
    > + Send {
        let attempt = move |p| P::anthropic_messages_stream(p, request);
        self.open(
            AnthropicMessagesStream,
            &*request.model,
            Error::timeout,
            attempt,
        )
    }

    fn gemini_generate_content(
        &self,
        model: &str,
        request: &gemini::Request,
    ) -> impl Future<Output = Result<gemini::Response, Error>> + Send {
        let attempt = move |p| P::gemini_generate_content(p, model, request);
        self.call(GeminiGenerateContent, model, attempt)
    }

    fn gemini_generate_content_stream(
        &self,
        model: &str,
        request: &gemini::Request,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<gemini::Response, Error>>, Error>> + Send
    {
        let attempt = move |p| P::gemini_generate_content_stream(p, model, request);
        self.open(GeminiGenerateContentStream, model, Error::timeout, attempt)
    }

    fn complete(
        &self,
        request: &ir::Request,
    ) -> impl Future<Output = Result<ir::Response, Error>> + Send {
        let attempt = move |p| P::complete(p, request);
        self.call(Complete, &*request.model, attempt)
    }

    fn complete_stream(
        &self,
        request: &ir::Request,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<ir::StreamEvent, Error>>, Error>> + Send
    {
        let attempt = move |p| P::complete_stream(p, request);
        self.open(CompleteStream, &*request.model, Error::timeout, attempt)
    }

    fn embedding(
        &self,
        request: &EmbeddingRequest,
    ) -> impl Future<Output = Result<EmbeddingResponse, Error>> + Send {
        let attempt = move |p| P::embedding(p, request);
        self.call(Embedding, &*request.model, attempt)
    }

    fn image_generation(
        &self,
        request: &ImageRequest,
    ) -> impl Future<Output = Result<(Bytes, String), Error>> + Send {
        let attempt = move |p| P::image_generation(p, request);
        self.call(ImageGeneration, &*request.model, attempt)
    }

    fn audio_speech(
        &self,
        request: &AudioSpeechRequest,
    ) -> impl Future<Output = Result<(Bytes, String), Error>> + Send {
        let attempt = move |p| P::audio_speech(p, request);
        self.call(AudioSpeech, &*request.model, attempt)
    }

    fn audio_transcription(
        &self,
        model: &str,
        fields: &[MultipartField],
    ) -> impl Future<Output = Result<(Bytes, String), Error>> + Send {
        let attempt = move |p| P::audio_transcription(p, model, fields);
        self.call(AudioTranscription, model, attempt)
    }

    fn models(&self) -> impl Future<Output = Result<ModelList, Error>> + Send {
        let attempt = move |p| P::models(p);
        self.call(Models, None, attempt)
    }

    fn is_openai_compat(&self) -> bool {
        self.inner.is_openai_compat()
    }

    fn is_anthropic_compat(&self) -> bool {
        self.inner.is_anthropic_compat()
    }

    fn is_gemini_compat(&self) -> bool {
        self.inner.is_gemini_compat()
    }

    fn chat_completion_stream_passthrough(
        &self,
        model: &str,
        mut body_stream: ByteStream,
    ) -> impl Future<Output = Result<ByteStream, Error>> + Send {
        // Never retried, because `Operations` cannot contain it.
        let mut body = move || mem::replace(&mut body_stream, stream::empty().boxed());
        let attempt = move |p| P::chat_completion_stream_passthrough(p, model, body());
        self.open(
            ChatCompletionStreamPassthrough,
            model,
            byte_timeout,
            attempt,
        )
    }

    fn chat_completion_stream_raw(
        &self,
        model: &str,
        raw_body: Bytes,
    ) -> impl Future<Output = Result<ByteStream, Error>> + Send {
        let attempt = move |p| P::chat_completion_stream_raw(p, model, raw_body.clone());
        self.open(ChatCompletionStreamRaw, model, byte_timeout, attempt)
    }

    fn chat_completion_raw(
        &self,
        model: &str,
        raw_body: Bytes,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send {
        let attempt = move |p| P::chat_completion_raw(p, model, raw_body.clone());
        self.call(ChatCompletionRaw, model, attempt)
    }

    async fn anthropic_messages_raw(&self, raw_body: Bytes) -> Result<Bytes, Error> {
        let model = self.model_in(&raw_body);
        let attempt = |p| P::anthropic_messages_raw(p, raw_body.clone());
        self.call(AnthropicMessagesRaw, model.as_deref(), attempt)
            .await
    }

    async fn anthropic_messages_stream_raw(&self, raw_body: Bytes) -> Result<ByteStream, Error> {
        let model = self.model_in(&raw_body);
        let attempt = |p| P::anthropic_messages_stream_raw(p, raw_body.clone());
        self.open(
            AnthropicMessagesStreamRaw,
            model.as_deref(),
            byte_timeout,
            attempt,
        )
        .await
    }

    fn gemini_generate_content_raw(
        &self,
        model: &str,
        raw_body: Bytes,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send {
        let attempt = move |p| P::gemini_generate_content_raw(p, model, raw_body.clone());
        self.call(GeminiGenerateContentRaw, model, attempt)
    }

    fn gemini_generate_content_stream_raw(
        &self,
        model: &str,
        raw_body: Bytes,
    ) -> impl Future<Output = Result<ByteStream, Error>> + Send {
        let attempt = move |p| P::gemini_generate_content_stream_raw(p, model, raw_body.clone());
        self.open(GeminiGenerateContentStreamRaw, model, byte_timeout, attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_methods_are_recognised() {
        assert!(Error::not_implemented("embedding").is_not_implemented());
        assert!(Error::Unsupported("images".into()).is_not_implemented());
        let text = || "provider method 'x' not implemented".to_owned();
        for other in [
            Error::Timeout,
            Error::Config(text()),
            Error::Network(text()),
            Error::Decode(text()),
            Error::Encode(text()),
            Error::Invalid(text()),
            Error::Routing(text()),
            Error::Internal(text()),
            Error::Provider {
                status: 501,
                body: text(),
                retry_after: None,
            },
        ] {
            assert!(!other.is_not_implemented(), "{other}");
        }
    }

    #[test]
    fn an_error_has_the_servers_answer() {
        let seven = Some(Duration::from_secs(7));
        let error = Error::Provider {
            status: 429,
            body: "slow down".into(),
            retry_after: seven,
        };
        let told = |error: &dyn Failure| {
            let body = error.body().map(str::to_owned);
            (error.status(), body, error.retry_after())
        };
        assert_eq!(told(&error), (Some(429), Some("slow down".into()), seven));
        assert_eq!(told(&Error::Timeout), (None, None, None));
    }

    #[test]
    fn the_error_of_a_timeout_is_a_transient_timeout() {
        let error = <Error as Failure>::timeout();
        assert!(error.is_timeout() && Failure::is_transient(&error));
        assert!(!Error::Network("lost".into()).is_timeout());
    }
}
