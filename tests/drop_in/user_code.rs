// A service as its author wrote it against crabllm-core's own `Retrying`. The file that
// includes this one imports either that or ours.

use crabllm_core_0_0_25::{BoxStream, ChatCompletionChunk, ChatCompletionRequest, Error, Provider};
use std::time::Duration;

/// Answers questions, with retries.
#[derive(Debug, Clone)]
pub struct Service<P: Provider> {
    provider: Retrying<P>,
}

impl<P: Provider> Service<P> {
    pub fn new(provider: P) -> Self {
        let provider = Retrying::new(provider)
            .max_retries(1)
            .timeout(Duration::from_millis(200))
            .max_retry_after(Duration::from_secs(1))
            .stream_idle(Duration::from_millis(200));
        Self { provider }
    }

    pub async fn ask(&self, request: &ChatCompletionRequest) -> Result<(), Error> {
        self.provider.chat_completion(request).await.map(drop)
    }

    pub async fn listen(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        open(&self.provider, request).await
    }

    /// The inner provider.
    pub fn provider(&self) -> &P {
        self.provider.get_ref()
    }
}

/// Takes any provider.
async fn open(
    provider: &impl Provider,
    request: &ChatCompletionRequest,
) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
    provider.chat_completion_stream(request).await
}
