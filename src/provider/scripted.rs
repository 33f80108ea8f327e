//! `Provider` of each enabled release of crabllm-core, for [`Scripted`].

use super::{methods, releases, types};
use crate::{
    policy::Operation,
    test_util::{Scripted, ScriptedError},
    timer::Timer,
};
use bytes::Bytes;

/// Implements the trait of a release.
macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use super::*;

            types! { $release $types }
            error! { $errors }
            answers! { $methods }
            methods! { $methods provider }
        }
    };
}

/// Implements `Provider`. The flags are true, unlike the trait's defaults.
macro_rules! provider {
    (
        [$($flag:ident)*]
        $($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr;)*
    ) => {
        #[deny(clippy::missing_trait_methods)]
        impl<T: Timer> Provider for Scripted<T> {
            $(method! { $kind $operation $method($($type),*) -> $answer })*

            $(
                fn $flag(&self) -> bool {
                    true
                }
            )*
        }
    };
}

/// One method of the trait, by its kind.
macro_rules! method {
    (call $operation:ident $method:ident($($type:ty),*) -> $answer:ty) => {
        async fn $method(&self, $(_: $type),*) -> Result<$answer, Error> {
            self.attempt(Operation::$operation).await.map_err(error)?;
            Ok(<$answer>::answer())
        }
    };
    (raw_call $($call:tt)*) => {
        method! { call $($call)* }
    };
    (open $operation:ident $method:ident($($type:ty),*) -> $item:ty) => {
        async fn $method(
            &self, $(_: $type),*
        ) -> Result<BoxStream<'static, Result<$item, Error>>, Error> {
            let opened = self.open(Operation::$operation, <$item>::answer, error).await;
            opened.map_err(error)
        }
    };
    (raw_open $operation:ident $method:ident($($type:ty),*) -> $item:ty) => {
        async fn $method(&self, $(_: $type),*) -> Result<ByteStream, Error> {
            let io_error = |scripted| std::io::Error::other(error(scripted));
            let opened = self.open(Operation::$operation, <$item>::answer, io_error).await;
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
        error! { |status, body, _retry_after| Error::Provider { status, body }, Internal }
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

/// A successful answer, or an item of a stream.
trait Answer {
    fn answer() -> Self;
}

impl Answer for Bytes {
    fn answer() -> Self {
        Self::from_static(b"{}")
    }
}

impl Answer for (Bytes, String) {
    fn answer() -> Self {
        Self::default()
    }
}

/// The answers of a shape of the trait, each shape with those of the one before.
macro_rules! answers {
    (since_0_0_15) => {
        answers! {
            ChatCompletionResponse: ChatCompletionResponse::default();
            ChatCompletionChunk: ChatCompletionChunk::default();
            EmbeddingResponse: EmbeddingResponse {
                object: "list".into(),
                data: Vec::new(),
                model: String::new(),
                usage: EmbeddingUsage { prompt_tokens: 0, total_tokens: 0 },
            };
        }
    };
    (since_0_0_16) => {
        answers! { since_0_0_15 }
    };
    (since_0_0_21) => {
        answers! { since_0_0_16 }
        answers! {
            anthropic::Response: anthropic::Response {
                id: String::new(),
                r#type: "message".into(),
                role: "assistant".into(),
                model: String::new(),
                content: Vec::new(),
                stop_reason: None,
                stop_sequence: None,
                usage: anthropic::Usage {
                    input_tokens: 0,
                    output_tokens: 0,
                    cache_read_input_tokens: None,
                    cache_creation_input_tokens: None,
                },
            };
            anthropic::StreamEvent: anthropic::StreamEvent::ContentBlockStop { index: 0 };
            gemini::Response: gemini::Response { candidates: Vec::new(), usage_metadata: None };
            ir::Response: ir::Response {
                id: String::new(),
                model: String::new(),
                content: Vec::new(),
                stop_reason: None,
                usage: Default::default(),
            };
            ir::StreamEvent: ir::StreamEvent::TextDelta(String::new());
        }
    };
    (since_0_0_23) => {
        answers! { since_0_0_21 }
        answers! {
            ModelList: ModelList { object: "list".into(), data: Vec::new() };
        }
    };
    ($($type:ty: $answer:expr;)*) => {
        $(
            impl Answer for $type {
                fn answer() -> Self {
                    $answer
                }
            }
        )*
    };
}

releases! { release }
