//! A provider that records what it is asked.

use crate::methods::{Shown, methods, releases, types};
use bytes::Bytes;
use crabllm_retry::{Fallback, Retrying, test_util::VirtualTimer};
use std::sync::Mutex;

/// Fails at everything, transiently, and records each attempt.
#[derive(Default)]
pub struct Recorder {
    asked: Mutex<Vec<String>>,
    unimplemented: bool,
    dialect: &'static str,
}

pub type Recorded = Retrying<Recorder, VirtualTimer>;
pub type Recorders = Fallback<Recorder, Recorder>;

impl Recorder {
    /// One that implements nothing.
    pub fn unimplemented() -> Self {
        Self {
            unimplemented: true,
            ..Self::default()
        }
    }

    /// One that speaks one dialect.
    pub fn speaking(dialect: &'static str) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
    }

    /// The attempts so far, each as the name of its method, the model and the arguments.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn record(&self, method: &str, model: Option<&str>, arguments: &[String]) {
        let asked = format!("{method} {model:?} {}", arguments.join(" "));
        self.asked.lock().unwrap().push(asked);
    }
}

/// The name of a flag, and the methods that read it.
pub type FlagReader = (&'static str, fn(&Recorded) -> bool, fn(&Recorders) -> bool);

/// A release whose providers say which dialects they speak.
pub trait Speaks {
    const DIALECTS: &'static [FlagReader];
}

macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use super::*;
            use crate::methods::$release::ThisRelease;

            types! { $release $types }
            methods! { $methods recorder }
        }
    };
}

macro_rules! recorder {
    (
        [$($flag:ident)*]
        $($kind:ident $operation:ident $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $model:expr;)*
    ) => {
        impl Provider for Recorder {
            $(
                async fn $method(&self, $($argument: $type),*) -> Result<answer!($kind $answer), Error> {
                    self.record(stringify!($method), $model, &[$($argument.shown().await),*]);
                    Err(match self.unimplemented {
                        true => Error::not_implemented(stringify!($method)),
                        false => Error::Timeout,
                    })
                }
            )*

            $(
                fn $flag(&self) -> bool {
                    self.dialect == stringify!($flag)
                }
            )*
        }

        impl Speaks for ThisRelease {
            const DIALECTS: &'static [FlagReader] = &[$((stringify!($flag), Recorded::$flag, Recorders::$flag)),*];
        }
    };
}

macro_rules! answer {
    (call $answer:ty) => { $answer };
    (raw_call $answer:ty) => { $answer };
    (open $item:ty) => { BoxStream<'static, Result<$item, Error>> };
    ($bytes:ident $item:ty) => { ByteStream };
}

releases! { release }
