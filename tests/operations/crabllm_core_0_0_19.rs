//! The methods of crabllm-core 0.0.19.

use crate::{
    methods::crabllm_core_0_0_19::ThisRelease,
    recorder::{Dialect, Recorded, Recorder, Speaks},
};
use bytes::Bytes;
use crabllm_retry::crabllm_core_0_0_19::{
    AudioSpeechRequest, BoxStream, ChatCompletionChunk, ChatCompletionRequest,
    ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, Error, ImageRequest,
    MultipartField, Provider,
};

type Items<I> = BoxStream<'static, Result<I, Error>>;

crate::claims::tests!(ThisRelease);

crate::recorder::recorder! {
    chat_completion(request: &ChatCompletionRequest) -> ChatCompletionResponse { request }
    chat_completion_stream(request: &ChatCompletionRequest) -> Items<ChatCompletionChunk> { request }
    embedding(request: &EmbeddingRequest) -> EmbeddingResponse { request }
    image_generation(request: &ImageRequest) -> (Bytes, String) { request }
    audio_speech(request: &AudioSpeechRequest) -> (Bytes, String) { request }
    audio_transcription(model: &str, fields: &[MultipartField]) -> (Bytes, String) { (model, fields) }
    chat_completion_raw(model: &str, body: Bytes) -> Bytes { (model, body) }
    anthropic_messages_raw(body: Bytes) -> Bytes { body }
    [is_openai_compat, is_anthropic_compat]
}
