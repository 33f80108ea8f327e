//! The methods of crabllm-core 0.0.19.

use crate::methods::crabllm_core_0_0_19::{METHODS, call};
use crabllm_retry::crabllm_core_0_0_19::{
    BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error, Provider,
};

crate::claims!();

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
