//! Every method of the `Provider` trait, called by its name.

#[path = "../../../src/provider/table.rs"]
mod table;

#[allow(unused_imports, reason = "some tests need only the calls")]
pub(crate) use table::{methods, releases, types};

use bytes::Bytes;
use crabllm_retry::Operation;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::{error::Error as StdError, fmt::Debug, pin::Pin, sync::LazyLock};

/// A release of crabllm-core.
pub trait Release: Sized {
    type Error: StdError + Send + Sync + 'static;

    /// The methods that its providers may have.
    const METHODS: &'static [Operation];
}

/// A release for which `P` is a provider.
pub trait Calls<P>: Release {
    /// Calls one method, with sample arguments.
    fn call(provider: &P, method: Operation) -> impl Future<Output = Opened<Self>>;
}

/// The stream that a method opens, if it opens one.
pub type Opened<R> = Result<Option<Items<R>>, <R as Release>::Error>;

/// The results of a stream's items.
pub type Items<R> = Pin<Box<dyn Stream<Item = Result<(), <R as Release>::Error>> + Send>>;

/// An argument that is not empty.
pub trait Sample {
    fn sample() -> Self;
}

impl Sample for &'static str {
    fn sample() -> Self {
        "m"
    }
}

impl Sample for Bytes {
    fn sample() -> Self {
        Self::from_static(br#"{"model": "m"}"#)
    }
}

impl<E: Send + 'static> Sample for Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>> {
    fn sample() -> Self {
        stream::iter(["one", "two"].map(|part| Ok(part.into()))).boxed()
    }
}

/// An argument as text. A reference is shown as its address: the argument itself is
/// passed on, not a copy.
#[allow(dead_code, reason = "some tests need only the calls")]
pub trait Shown {
    fn shown(self) -> impl Future<Output = String> + Send;
}

impl<T: Sync + ?Sized> Shown for &T {
    async fn shown(self) -> String {
        format!("{self:p}")
    }
}

impl Shown for Bytes {
    async fn shown(self) -> String {
        String::from_utf8_lossy(&self).into_owned()
    }
}

impl<E: Debug + Send> Shown for Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>> {
    async fn shown(self) -> String {
        format!("{:?}", self.collect::<Vec<_>>().await)
    }
}

/// The calls of a release.
macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        pub mod $release {
            use super::*;

            types! { $release $types }
            samples! { $methods }
            methods! { $methods by_name }
        }
    };
}

macro_rules! by_name {
    (
        [$($flag:ident)*]
        $($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr;)*
    ) => {
        #[allow(dead_code, reason = "some tests are about fewer releases")]
        pub struct ThisRelease;

        impl Release for ThisRelease {
            type Error = Error;

            const METHODS: &'static [Operation] = &[$(Operation::$operation),*];
        }

        impl<P: Provider> Calls<P> for ThisRelease {
            async fn call(p: &P, method: Operation) -> Opened<Self> {
                match method {
                    $(Operation::$operation => {
                        opened!($kind p.$method($(<$type>::sample()),*).await?)
                    })*
                    other => panic!("{other} is not a method of this release"),
                }
            }
        }
    };
}

/// The items of what a method opens. Those of a stream of bytes have errors of I/O
/// around the release's own.
macro_rules! opened {
    (call $answer:expr) => {{
        $answer;
        Ok(None)
    }};
    (raw_call $answer:expr) => {
        opened!(call $answer)
    };
    (open $items:expr) => {
        Ok(Some($items.map_ok(drop).boxed()))
    };
    (raw_open $items:expr) => {{
        let own = |error: std::io::Error| error.downcast().expect("an error of the release");
        Ok(Some($items.map_ok(drop).map_err(own).boxed()))
    }};
    (passthrough $items:expr) => {
        opened!(raw_open $items)
    };
}

/// The arguments of a shape of the trait, each shape with those of the one before.
macro_rules! samples {
    (since_0_0_15) => {
        samples! {
            ChatCompletionRequest: parse(
                r#"{"model": "m", "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "t"}]}
                ]}"#,
            );
            EmbeddingRequest: parse(r#"{"model": "m", "input": "text"}"#);
            ImageRequest: parse(r#"{"model": "m", "prompt": "p"}"#);
            AudioSpeechRequest: parse(r#"{"model": "m", "input": "i", "voice": "v"}"#);
            [MultipartField; 1]: [MultipartField {
                name: "file".into(),
                filename: None,
                content_type: None,
                bytes: "sound".into(),
            }];
        }

        impl Sample for &'static [MultipartField] {
            fn sample() -> Self {
                <&[MultipartField; 1]>::sample()
            }
        }
    };
    (since_0_0_16) => {
        samples! { since_0_0_15 }
    };
    (since_0_0_21) => {
        samples! { since_0_0_16 }
        samples! {
            anthropic::Request: parse(
                r#"{"model": "m", "max_tokens": 1, "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "t"}]}
                ]}"#,
            );
            gemini::Request: parse(r#"{"contents": [{"parts": [{"text": "text"}]}]}"#);
            ir::Request: parse::<anthropic::Request>(
                r#"{"model": "m", "max_tokens": 1, "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "t"}]}
                ]}"#,
            ).into();
        }
    };
    (since_0_0_23) => {
        samples! { since_0_0_21 }
    };
    ($($type:ty: $sample:expr;)*) => {
        $(
            impl Sample for &'static $type {
                fn sample() -> Self {
                    static SAMPLE: LazyLock<$type> = LazyLock::new(|| $sample);
                    &SAMPLE
                }
            }
        )*
    };
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

releases! { release }
