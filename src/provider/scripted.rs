//! `Provider` of each enabled release of crabllm-core, for [`Scripted`].

use super::{methods, provider, release, releases, types};
use crate::{
    policy::Operation,
    test_util::{Reply, Scripted, ScriptedError},
    timer::Timer,
};
use bytes::Bytes;

/// Implements the trait of a release.
macro_rules! contents {
    ($methods:ident $errors:ident) => {
        error! { $errors }
        answers! { $methods }
        methods! { $methods provider {impl<T: Timer> Provider for Scripted<T>} }
    };
}

/// One method of the trait, by its kind.
macro_rules! method {
    // True, unlike the trait's defaults.
    (flag $flag:ident) => {
        fn $flag(&self) -> bool {
            true
        }
    };
    (call $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr) => {
        async fn $method(&self, $(_: $type),*) -> Result<$answer, Error> {
            let reply = self.attempt(Operation::$operation).await.map_err(error)?;
            Ok(<$answer>::answer(reply.words()))
        }
    };
    (raw_call $($call:tt)*) => {
        method! { call $($call)* }
    };
    (open $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $item:ty, $model:expr) => {
        async fn $method(
            &self, $(_: $type),*
        ) -> Result<BoxStream<'static, Result<$item, Error>>, Error> {
            let opened = self.open(Operation::$operation, <$item>::item, error).await;
            opened.map_err(error)
        }
    };
    (raw_open $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $item:ty, $model:expr) => {
        async fn $method(&self, $(_: $type),*) -> Result<ByteStream, Error> {
            let io_error = |scripted| std::io::Error::other(error(scripted));
            let opened = self.open(Operation::$operation, <$item>::item, io_error).await;
            opened.map_err(error)
        }
    };
    (passthrough $($open:tt)*) => {
        method! { raw_open $($open)* }
    };
}

/// The error of a release.
macro_rules! error {
    (internal) => {
        error! { |status, body, retry_after| Error::Provider {
            status,
            body: match retry_after {
                Some(wait) => crate::hints::with_retry_after(body, wait),
                None => body,
            },
        }, Internal }
    };
    (internal_and_retry_after) => {
        error! { |status, body, retry_after| Error::Provider { status, body, retry_after }, Internal }
    };
    (typed) => {
        error! { |status, body, retry_after| Error::Provider { status, body, retry_after }, Network }
    };
    (|$status:ident, $body:ident, $retry_after:ident| $provider:expr, $disconnected:ident) => {
        fn error(scripted: ScriptedError) -> Error {
            match scripted {
                ScriptedError::Status {
                    status: $status,
                    body: $body,
                    retry_after: $retry_after,
                } => $provider,
                ScriptedError::Disconnected => Error::$disconnected("connection lost".into()),
                ScriptedError::Invalid => Error::Config("no such thing".into()),
            }
        }
    };
}

/// A successful answer. Words are left out if its type has no place for them.
trait Answer {
    fn answer(words: Option<&str>) -> Self;
}

/// An item of a stream.
trait StreamItem: Sized {
    /// Content that is the whole answer, if the type can say so, or a part of it.
    fn content(words: &str, is_whole: bool) -> Self;

    fn announcement() -> Self;

    fn item(reply: Reply, is_whole: bool) -> Self {
        match reply {
            Reply::Announcement => Self::announcement(),
            reply => Self::content(reply.words().unwrap_or("ok"), is_whole),
        }
    }
}

impl Answer for Bytes {
    fn answer(words: Option<&str>) -> Self {
        Self::copy_from_slice(words.unwrap_or("{}").as_bytes())
    }
}

impl StreamItem for Bytes {
    fn content(words: &str, _is_whole: bool) -> Self {
        Self::copy_from_slice(words.as_bytes())
    }

    fn announcement() -> Self {
        Self::new()
    }
}

impl Answer for (Bytes, String) {
    fn answer(words: Option<&str>) -> Self {
        let words = words.unwrap_or_default().as_bytes();
        (Bytes::copy_from_slice(words), String::new())
    }
}

/// The answers of each version of the trait, including those of earlier versions.
macro_rules! answers {
    (since_0_0_15) => {
        answers! {
            ChatCompletionResponse: |words| ChatCompletionResponse {
                choices: words
                    .map(|words| Choice {
                        index: 0,
                        message: Message::assistant(words),
                        finish_reason: Some(FinishReason::Stop),
                        logprobs: None,
                    })
                    .into_iter()
                    .collect(),
                ..ChatCompletionResponse::default()
            };
            EmbeddingResponse: |_words| EmbeddingResponse {
                object: "list".into(),
                data: Vec::new(),
                model: String::new(),
                usage: EmbeddingUsage { prompt_tokens: 0, total_tokens: 0 },
            };
        }
        items! {
            ChatCompletionChunk: ChatCompletionChunk::default(), |words, is_whole: bool| ChatCompletionChunk {
                choices: vec![ChunkChoice {
                    delta: Delta { content: Some(words), ..Delta::default() },
                    finish_reason: is_whole.then_some(FinishReason::Stop),
                    ..ChunkChoice::default()
                }],
                ..ChatCompletionChunk::default()
            };
        }
    };
    (since_0_0_16) => {
        answers! { since_0_0_15 }
    };
    (since_0_0_21) => {
        answers! { since_0_0_16 }
        answers! {
            anthropic::Response: |words| anthropic::Response {
                id: String::new(),
                r#type: "message".into(),
                role: "assistant".into(),
                model: String::new(),
                content: words.map(anthropic::ContentBlock::text).into_iter().collect(),
                stop_reason: None,
                stop_sequence: None,
                usage: anthropic::Usage {
                    input_tokens: 0,
                    output_tokens: 0,
                    cache_read_input_tokens: None,
                    cache_creation_input_tokens: None,
                },
            };
            gemini::Response: |words| gemini::Response {
                candidates: words.iter().map(|words| candidate(Some(words))).collect(),
                usage_metadata: None,
            };
            ir::Response: |words| ir::Response {
                id: String::new(),
                model: String::new(),
                content: words.map(|words| ir::Content::Text(words.into())).into_iter().collect(),
                stop_reason: None,
                usage: Default::default(),
            };
        }
        items! {
            anthropic::StreamEvent: anthropic::StreamEvent::ContentBlockStart {
                index: 0,
                content_block: anthropic::ContentBlock::text(""),
            }, |words, _| anthropic::StreamEvent::ContentBlockDelta {
                index: 0,
                delta: anthropic::BlockDelta::Text { text: words },
            };
            gemini::Response: gemini::Response {
                candidates: vec![candidate(None)],
                usage_metadata: None,
            }, |words: String, _| gemini::Response {
                candidates: vec![candidate(Some(&words))],
                usage_metadata: None,
            };
            ir::StreamEvent: ir::StreamEvent::TextDelta(String::new()), |words, _| ir::StreamEvent::TextDelta(words);
        }

        fn candidate(words: Option<&str>) -> gemini::Candidate {
            let part = |words: &str| gemini::Part {
                text: Some(words.into()),
                function_call: None,
                function_response: None,
                thought_signature: None,
            };
            gemini::Candidate {
                content: Some(gemini::Content {
                    role: None,
                    parts: words.map(part).into_iter().collect(),
                }),
                finish_reason: None,
            }
        }
    };
    (since_0_0_23) => {
        answers! { since_0_0_21 }
        answers! {
            ModelList: |_words| ModelList { object: "list".into(), data: Vec::new() };
        }
    };
    ($($type:ty: |$words:ident| $answer:expr;)*) => {
        $(
            impl Answer for $type {
                fn answer($words: Option<&str>) -> Self {
                    $answer
                }
            }
        )*
    };
}

/// Implements [`StreamItem`]: an announcement, and content with some words.
macro_rules! items {
    ($($type:ty: $announcement:expr, $content:expr;)*) => {
        $(
            impl StreamItem for $type {
                fn announcement() -> Self {
                    $announcement
                }

                fn content(words: &str, is_whole: bool) -> Self {
                    $content(words.to_owned(), is_whole)
                }
            }
        )*
    };
}

releases! { release }
