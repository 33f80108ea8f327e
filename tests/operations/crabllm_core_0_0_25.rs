//! The methods of crabllm-core 0.0.25.

use crate::{
    common::{SECOND, Scene, block_on},
    methods::crabllm_core_0_0_25::{ThisRelease, chat},
    recorder::{Dialect, Recorded, Recorder, Speaks},
};
use bytes::Bytes;
use crabllm_retry::{
    crabllm_core_0_0_25::{
        AudioSpeechRequest, BoxStream, ByteStream, ChatCompletionChunk, ChatCompletionRequest,
        ChatCompletionResponse, EmbeddingRequest, EmbeddingResponse, Error, ImageRequest,
        ModelList, MultipartField, Provider, anthropic, gemini, ir, json,
    },
    test_util::Step,
};
use futures::StreamExt;
use std::io;

type Items<I> = BoxStream<'static, Result<I, Error>>;

crate::claims::tests!(ThisRelease);

crate::recorder::recorder! {
    chat_completion(request: &ChatCompletionRequest) -> ChatCompletionResponse { request }
    chat_completion_stream(request: &ChatCompletionRequest) -> Items<ChatCompletionChunk> { request }
    anthropic_messages(request: &anthropic::Request) -> anthropic::Response { request }
    anthropic_messages_stream(request: &anthropic::Request) -> Items<anthropic::StreamEvent> { request }
    gemini_generate_content(model: &str, request: &gemini::Request) -> gemini::Response {
        (model, json::to_string(request))
    }
    gemini_generate_content_stream(model: &str, request: &gemini::Request) -> Items<gemini::Response> {
        (model, json::to_string(request))
    }
    complete(request: &ir::Request) -> ir::Response { request }
    complete_stream(request: &ir::Request) -> Items<ir::StreamEvent> { request }
    embedding(request: &EmbeddingRequest) -> EmbeddingResponse { request }
    image_generation(request: &ImageRequest) -> (Bytes, String) { request }
    audio_speech(request: &AudioSpeechRequest) -> (Bytes, String) { request }
    audio_transcription(model: &str, fields: &[MultipartField]) -> (Bytes, String) { (model, fields) }
    models() -> ModelList { () }
    chat_completion_stream_passthrough(model: &str, body: ByteStream) -> ByteStream {
        (model, body.collect::<Vec<_>>().await)
    }
    chat_completion_stream_raw(model: &str, body: Bytes) -> ByteStream { (model, body) }
    chat_completion_raw(model: &str, body: Bytes) -> Bytes { (model, body) }
    anthropic_messages_raw(body: Bytes) -> Bytes { body }
    anthropic_messages_stream_raw(body: Bytes) -> ByteStream { body }
    gemini_generate_content_raw(model: &str, body: Bytes) -> Bytes { (model, body) }
    gemini_generate_content_stream_raw(model: &str, body: Bytes) -> ByteStream { (model, body) }
    [is_openai_compat, is_anthropic_compat, is_gemini_compat]
}

#[test]
fn a_retry_is_never_earlier_than_the_error_asks() {
    let asking = |seconds: u32| Step::status(429).retry_after(seconds * SECOND);
    for (script, sleeps) in [
        (asking(7), vec![7 * SECOND]),
        (asking(0), vec![SECOND]),
        (asking(60), vec![60 * SECOND]),
        (asking(61), vec![]),
    ] {
        let scene = Scene::new([script]);
        let answered = block_on(scene.retrying.chat_completion(&chat())).is_ok();
        assert_eq!(scene.sleeps.asked(), sleeps);
        assert_eq!(answered, !sleeps.is_empty());
    }
}

#[test]
fn the_users_word_goes_before_the_errors() {
    let scene = Scene::new([Step::status(429).retry_after(7 * SECOND)])
        .set(|r| r.retry_after(|_| Some(9 * SECOND)));
    block_on(scene.retrying.chat_completion(&chat())).unwrap();
    assert_eq!(scene.sleeps.asked(), [9 * SECOND]);
}

#[test]
fn a_stalled_stream_of_bytes_ends_with_a_timeout_of_io() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::hang()])]);
    let opened = scene.retrying.chat_completion_stream_raw("m", "{}".into());
    let mut items = block_on(opened).unwrap();
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    let error = block_on(items.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let inner = error.get_ref().unwrap().downcast_ref();
    assert!(matches!(inner, Some(Error::Timeout)));
    assert!(block_on(items.next()).is_none());
    assert_eq!(scene.clock.elapsed(), 90 * SECOND);
}
