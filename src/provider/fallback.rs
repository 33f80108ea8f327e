//! `Provider` of each enabled release of crabllm-core, for [`Fallback`].

use super::{methods, model_in, releases, types};
use crate::{
    fallback::{Argument, Call, Fallback, Names},
    policy::Operation,
};
use bytes::Bytes;

/// Implements the trait of a release.
macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use super::*;

            types! { $release $types }
            arguments! { $methods }
            methods! { $methods provider }
        }
    };
}

/// Implements `Provider`. A default body would hide the methods of both sides, so every
/// one is forwarded.
macro_rules! provider {
    (
        [$($flag:ident)*]
        $($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr;)*
    ) => {
        #[deny(clippy::missing_trait_methods)]
        impl<A: Provider, B: Provider> Provider for Fallback<A, B> {
            $(method! { $kind $operation $method($($argument: $type),*) -> $answer, $model })*

            $(
                fn $flag(&self) -> bool {
                    self.first.$flag() && self.second.$flag()
                }
            )*
        }
    };
}

/// One method of the trait, by its kind.
macro_rules! method {
    (passthrough $operation:ident $method:ident($model:ident: $name:ty, $body:ident: $stream:ty) -> $item:ty, $named:expr) => {
        fn $method(&self, $model: $name, $body: $stream) -> impl Future<Output = Result<ByteStream, Error>> + Send {
            let opening = async move {
                if self.settings.passes_to_second() {
                    let model = self.settings.names.get($model).unwrap_or($model);
                    B::$method(&self.second, model, $body).await
                } else {
                    A::$method(&self.first, $model, $body).await
                }
            };
            futures::FutureExt::fuse(opening)
        }
    };
    ($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr) => {
        fn $method(&self, $($argument: $type),*) -> impl Future<Output = Result<answer!($kind $answer), Error>> + Send {
            let call = async move {
                let mut call = Call::begin(&self.settings, &Operation::$operation);
                if call.goes_to_first() {
                    let result = A::$method(&self.first, $(Clone::clone(&$argument)),*).await;
                    let model = || $model.map(str::to_owned)$(.or_else(|| $argument.model_in_body()))*;
                    if let Some(result) = call.judge(result, model) {
                        return result;
                    }
                }
                $(
                    let mut copy = None;
                    let $argument = $argument.renamed(&self.settings.names, &mut copy);
                )*
                // Not an argument of `finish`: the future would hold two copies of `call`.
                let result = B::$method(&self.second, $($argument),*).await;
                call.finish(result)
            };
            futures::FutureExt::fuse(call)
        }
    };
}

/// The answer of a method, by its kind.
macro_rules! answer {
    (call $answer:ty) => { $answer };
    (raw_call $answer:ty) => { $answer };
    (open $item:ty) => { BoxStream<'static, Result<$item, Error>> };
    (raw_open $item:ty) => { ByteStream };
}

/// A raw body.
impl<'c> Argument<'c> for Bytes {
    type Copy = ();

    fn model_in_body(&self) -> Option<String> {
        model_in(self)
    }

    fn renamed(self, names: &'c Names, _: &'c mut Option<()>) -> Self {
        names.in_body(&self).map_or(self, Self::from)
    }
}

/// The arguments of a shape of the trait, each shape with those of the one before.
macro_rules! arguments {
    (since_0_0_15) => {
        arguments! { ChatCompletionRequest EmbeddingRequest ImageRequest AudioSpeechRequest }

        impl<'c> Argument<'c> for &'c [MultipartField] {
            type Copy = Vec<MultipartField>;

            fn renamed(self, names: &'c Names, copy: &'c mut Option<Self::Copy>) -> Self {
                for (index, field) in self.iter().enumerate() {
                    let model = str::from_utf8(&field.bytes);
                    let model = model.ok().filter(|_| field.name == "model");
                    if let Some(name) = model.and_then(|model| names.get(model)) {
                        let fields = copy.get_or_insert_with(|| self.to_vec());
                        fields[index].bytes = name.to_owned().into();
                    }
                }
                copy.as_deref().unwrap_or(self)
            }
        }
    };
    (since_0_0_16) => {
        arguments! { since_0_0_15 }
    };
    (since_0_0_21) => {
        arguments! { since_0_0_16 }
        arguments! { anthropic::Request ir::Request }

        impl<'c> Argument<'c> for &'c gemini::Request {
            type Copy = ();
        }
    };
    (since_0_0_23) => {
        arguments! { since_0_0_21 }
    };
    ($($type:ty)*) => {
        $(
            impl<'c> Argument<'c> for &'c $type {
                type Copy = Box<$type>;

                fn renamed(self, names: &'c Names, copy: &'c mut Option<Self::Copy>) -> Self {
                    let Some(name) = names.get(&self.model) else {
                        return self;
                    };
                    let copy = copy.insert(Box::new(self.clone()));
                    name.clone_into(&mut copy.model);
                    copy
                }
            }
        )*
    };
}

releases! { release }

#[cfg(all(test, feature = "crabllm-core-0_0_19"))]
#[test]
fn the_field_model_of_a_form_is_renamed() {
    let form = |model: &'static [u8]| {
        let fields = [("file", &b"m"[..]), ("model", model), ("Model", b"m")];
        fields.map(|(name, bytes)| ::crabllm_core_0_0_19::MultipartField {
            name: name.into(),
            filename: None,
            content_type: Some("text/plain".into()),
            bytes: bytes.into(),
        })
    };
    let mut names = Names::default();
    names.insert("m".into(), "n".into());
    for (model, expected) in [(&b"m"[..], &b"n"[..]), (b"M", b"M"), (b"\xff", b"\xff")] {
        let (fields, mut copy) = (form(model), None);
        let renamed = fields[..].renamed(&names, &mut copy);
        assert_eq!(format!("{renamed:?}"), format!("{:?}", form(expected)));
        assert_eq!(std::ptr::eq(renamed, &fields[..]), model == expected);
    }
}
