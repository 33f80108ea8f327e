//! `crabllm-core` 0.0.19, the newest release that does not depend on tokio.

use crate::{
    failure::Failure,
    policy::{Operation::*, Policy},
    retrying::Retrying,
    timer::Timer,
};
use bytes::Bytes;
use crabllm_core_0_0_19::{
    AudioSpeechRequest, BoxStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, Error, ImageRequest,
    MultipartField, Provider, ProviderConfig,
};

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

    /// Recognised by the text of `Error::not_implemented`: this release has no
    /// variant for it.
    fn is_not_implemented(&self) -> bool {
        let Self::Internal(text) = self else {
            return false;
        };
        text.strip_prefix("provider method '")
            .and_then(|rest| rest.strip_suffix("' not implemented"))
            .is_some_and(|method| !method.contains('\''))
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
}

/// The values of the configuration, or else the defaults. A timeout of zero is none.
impl From<&ProviderConfig> for Policy {
    fn from(config: &ProviderConfig) -> Self {
        Self::configured(config.max_retries, config.timeout, None)
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

    fn is_openai_compat(&self) -> bool {
        self.inner.is_openai_compat()
    }

    fn is_anthropic_compat(&self) -> bool {
        self.inner.is_anthropic_compat()
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_methods_are_recognised() {
        assert!(Error::not_implemented("embedding").is_not_implemented());
        for other in [
            Error::Timeout,
            Error::Config("provider method 'x' not implemented".into()),
            Error::Internal("not implemented".into()),
            Error::Internal("provider method 'x' not implemented yet".into()),
            Error::Internal("provider method 'x' failed: 'y' not implemented".into()),
        ] {
            assert!(!other.is_not_implemented(), "{other}");
        }
    }

    #[test]
    fn an_error_has_the_servers_answer() {
        let error = Error::Provider {
            status: 429,
            body: "slow down".into(),
        };
        assert_eq!(
            (error.status(), error.body()),
            (Some(429), Some("slow down"))
        );
        assert_eq!(
            (Error::Timeout.status(), Error::Timeout.body()),
            (None, None)
        );
    }

    #[test]
    fn the_error_of_a_timeout_is_a_transient_timeout() {
        let error = <Error as Failure>::timeout();
        assert!(error.is_timeout() && Failure::is_transient(&error));
        assert!(!Error::Internal("lost".into()).is_timeout());
    }
}
