//! `Provider` of each enabled release of crabllm-core, for [`Fallback`].

use super::{methods, provider, release, releases, types};
use crate::{
    fallback::{Call, Fallback},
    policy::Operation,
};
use bytes::Bytes;

/// Implements the trait of a release.
macro_rules! contents {
    ($methods:ident $errors:ident) => {
        methods! { $methods provider {impl<A: Provider, B: Provider> Provider for Fallback<A, B>} }
    };
}

/// One method of the trait, by its kind.
macro_rules! method {
    (flag $flag:ident) => {
        fn $flag(&self) -> bool {
            self.first.$flag() && self.second.$flag()
        }
    };
    (passthrough $operation:ident $method:ident($model:ident: $name:ty, $body:ident: $stream:ty) -> $item:ty, $named:expr) => {
        fn $method(&self, $model: $name, $body: $stream) -> impl Future<Output = Result<ByteStream, Error>> + Send {
            let opening = async move {
                if self.settings.passes_to_second() {
                    renamed!($model $model, self.settings.names);
                    B::$method(&self.second, $model, $body).await
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
                    let model = || $model.map(str::to_owned)$(.or_else(|| model_within!($argument $argument)))*;
                    if let Some(result) = call.judge(result, model) {
                        return result;
                    }
                }
                $(renamed!($argument $argument, self.settings.names);)*
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

/// The model that an argument names in a raw body, by the argument's name in the table.
macro_rules! model_within {
    (raw_body $body:ident) => {
        crate::raw_body::model_in(&$body)
    };
    ($name:ident $argument:ident) => {
        None
    };
}

/// Makes an argument the one for `second`, by its name in the table.
macro_rules! renamed {
    (model $model:ident, $names:expr) => {
        let $model = $names.get($model).unwrap_or($model);
    };
    (request $request:ident, $names:expr) => {
        let copy = $names.get(&$request.model).map(|name| {
            let mut copy = Box::new(Clone::clone($request));
            name.clone_into(&mut copy.model);
            copy
        });
        let $request = copy.as_deref().unwrap_or($request);
    };
    (fields $fields:ident, $names:expr) => {
        let mut copy = None;
        for (index, field) in $fields
            .iter()
            .enumerate()
            .filter(|(_, field)| field.name == "model")
        {
            let model = str::from_utf8(&field.bytes).ok();
            if let Some(name) = model.and_then(|model| $names.get(model)) {
                let fields = copy.get_or_insert_with(|| $fields.to_vec());
                fields[index].bytes = name.to_owned().into();
            }
        }
        let $fields = copy.as_deref().unwrap_or($fields);
    };
    (raw_body $body:ident, $names:expr) => {
        let $body = $names.in_body(&$body).map_or($body, Bytes::from);
    };
    // Gemini's requests name no model.
    (contents $request:ident, $names:expr) => {};
}

releases! { release }

#[cfg(all(test, feature = "crabllm-core-0_0_19"))]
#[test]
fn only_the_field_model_of_a_form_is_renamed() {
    let form = |model: &'static [u8]| {
        [("file", &b"m"[..]), ("model", model)].map(|(name, bytes)| {
            ::crabllm_core_0_0_19::MultipartField {
                name: name.into(),
                filename: None,
                content_type: None,
                bytes: bytes.into(),
            }
        })
    };
    let mut names = crate::fallback::Names::default();
    names.insert("m".into(), "n".into());
    for (model, expected) in [(&b"m"[..], &b"n"[..]), (b"M", b"M"), (b"\xff", b"\xff")] {
        let original = form(model);
        let fields = &original[..];
        renamed!(fields fields, names);
        assert_eq!(format!("{fields:?}"), format!("{:?}", form(expected)));
        assert_eq!(std::ptr::eq(fields, &original[..]), model == expected);
    }
}
