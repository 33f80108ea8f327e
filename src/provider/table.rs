//! The table of crabllm-core's releases and of the methods of their `Provider`.
//!
//! Each macro passes its rows to the macro that it receives. `methods` calls itself, so
//! import the macros by name.

/// The releases: module, feature, methods, errors, and names of the types for
/// Anthropic and Gemini.
macro_rules! releases {
    ($row:ident) => {
        $row! { crabllm_core_0_0_15 "crabllm-core-0_0_15" since_0_0_15 internal none }
        $row! { crabllm_core_0_0_16 "crabllm-core-0_0_16" since_0_0_16 internal none }
        $row! { crabllm_core_0_0_17 "crabllm-core-0_0_17" since_0_0_16 internal none }
        $row! { crabllm_core_0_0_18 "crabllm-core-0_0_18" since_0_0_16 internal none }
        $row! { crabllm_core_0_0_19 "crabllm-core-0_0_19" since_0_0_16 internal none }
        $row! { crabllm_core_0_0_21 "crabllm-core-0_0_21" since_0_0_21 internal_and_retry_after prefixed }
        $row! { crabllm_core_0_0_22 "crabllm-core-0_0_22" since_0_0_21 typed prefixed }
        $row! { crabllm_core_0_0_23 "crabllm-core-0_0_23" since_0_0_23 typed modules }
        $row! { crabllm_core_0_0_24 "crabllm-core-0_0_24" since_0_0_23 typed modules }
        $row! { crabllm_core_0_0_25 "crabllm-core-0_0_25" since_0_0_23 typed modules }
    };
}

/// The methods of each version of the trait, including those of earlier versions:
/// flags, then kind, operation, signature, and the model that the call names. The header of
/// an `impl`, if there is one, is passed on.
macro_rules! methods {
    (since_0_0_15 $all:ident $({$($header:tt)*})? $([$($flag:ident)*] $($more:tt)*)?) => {
        $all! {
            $({$($header)*})?
            [$($($flag)*)?]
            call ChatCompletion chat_completion(request: &ChatCompletionRequest) -> ChatCompletionResponse, Some(&*request.model);
            open ChatCompletionStream chat_completion_stream(request: &ChatCompletionRequest) -> ChatCompletionChunk, Some(&*request.model);
            call Embedding embedding(request: &EmbeddingRequest) -> EmbeddingResponse, Some(&*request.model);
            call ImageGeneration image_generation(request: &ImageRequest) -> (Bytes, String), Some(&*request.model);
            call AudioSpeech audio_speech(request: &AudioSpeechRequest) -> (Bytes, String), Some(&*request.model);
            call AudioTranscription audio_transcription(model: &str, fields: &[MultipartField]) -> (Bytes, String), Some(model);
            $($($more)*)?
        }
    };
    (since_0_0_16 $all:ident $({$($header:tt)*})? $([$($flag:ident)*] $($more:tt)*)?) => {
        methods! {
            since_0_0_15 $all $({$($header)*})?
            [is_openai_compat is_anthropic_compat $($($flag)*)?]
            raw_call ChatCompletionRaw chat_completion_raw(model: &str, raw_body: Bytes) -> Bytes, Some(model);
            raw_call AnthropicMessagesRaw anthropic_messages_raw(raw_body: Bytes) -> Bytes, None;
            $($($more)*)?
        }
    };
    (since_0_0_21 $all:ident $({$($header:tt)*})? $([$($flag:ident)*] $($more:tt)*)?) => {
        methods! {
            since_0_0_16 $all $({$($header)*})?
            [is_gemini_compat $($($flag)*)?]
            call AnthropicMessages anthropic_messages(request: &anthropic::Request) -> anthropic::Response, Some(&*request.model);
            open AnthropicMessagesStream anthropic_messages_stream(request: &anthropic::Request) -> anthropic::StreamEvent, Some(&*request.model);
            call GeminiGenerateContent gemini_generate_content(model: &str, contents: &gemini::Request) -> gemini::Response, Some(model);
            open GeminiGenerateContentStream gemini_generate_content_stream(model: &str, contents: &gemini::Request) -> gemini::Response, Some(model);
            call Complete complete(request: &ir::Request) -> ir::Response, Some(&*request.model);
            open CompleteStream complete_stream(request: &ir::Request) -> ir::StreamEvent, Some(&*request.model);
            passthrough ChatCompletionStreamPassthrough chat_completion_stream_passthrough(model: &str, body: ByteStream) -> Bytes, Some(model);
            raw_open ChatCompletionStreamRaw chat_completion_stream_raw(model: &str, raw_body: Bytes) -> Bytes, Some(model);
            raw_open AnthropicMessagesStreamRaw anthropic_messages_stream_raw(raw_body: Bytes) -> Bytes, None;
            raw_call GeminiGenerateContentRaw gemini_generate_content_raw(model: &str, raw_body: Bytes) -> Bytes, Some(model);
            raw_open GeminiGenerateContentStreamRaw gemini_generate_content_stream_raw(model: &str, raw_body: Bytes) -> Bytes, Some(model);
            $($($more)*)?
        }
    };
    (since_0_0_23 $all:ident $({$($header:tt)*})? $([$($flag:ident)*] $($more:tt)*)?) => {
        methods! {
            since_0_0_21 $all $({$($header)*})?
            [$($($flag)*)?]
            call Models models() -> ModelList, None;
            $($($more)*)?
        }
    };
}

/// The types of a release under the names that the table uses.
macro_rules! types {
    ($release:ident none) => {
        use ::$release::*;
    };
    ($release:ident modules) => {
        use ::$release::*;
    };
    ($release:ident prefixed) => {
        use ::$release::*;

        mod anthropic {
            #[allow(unused_imports, reason = "each user of the table needs its own")]
            pub use ::$release::{
                AnthropicContentBlock as ContentBlock, AnthropicRequest as Request,
                AnthropicResponse as Response, AnthropicStreamEvent as StreamEvent,
                AnthropicUsage as Usage, BlockDelta,
            };
        }

        mod gemini {
            #[allow(unused_imports, reason = "each user of the table needs its own")]
            pub use ::$release::{
                GeminiCandidate as Candidate, GeminiContent as Content, GeminiPart as Part,
                GeminiRequest as Request, GeminiResponse as Response,
            };
        }
    };
}

#[allow(
    unused_imports,
    reason = "each part of the crate and its tests uses its own"
)]
pub(crate) use {methods, releases, types};
