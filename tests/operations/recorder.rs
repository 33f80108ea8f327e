//! A provider that writes down what it is asked.

use crabllm_retry::{Retrying, test_util::VirtualTimer};
use std::{fmt, sync::Mutex};

/// Fails at everything, transiently, and writes down each attempt.
#[derive(Default)]
pub struct Recorder {
    asked: Mutex<Vec<String>>,
    pub unimplemented: bool,
    pub dialect: &'static str,
}

pub type Recorded = Retrying<Recorder, VirtualTimer>;

impl Recorder {
    /// One that says of everything that it is not implemented.
    pub fn unimplemented() -> Self {
        Self {
            unimplemented: true,
            ..Self::default()
        }
    }

    /// One that says yes to one dialect.
    pub fn speaking(dialect: &'static str) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
    }

    /// The attempts so far, each as the name of its method and its arguments.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub fn record(&self, method: &str, arguments: impl fmt::Debug) {
        let asked = format!("{method} {arguments:?}");
        self.asked.lock().unwrap().push(asked);
    }
}

/// A method that says whether a provider speaks a dialect, and its name.
pub type Dialect = (&'static str, fn(&Recorded) -> bool);

/// A release whose providers say which dialects they speak.
pub trait Speaks {
    const DIALECTS: &'static [Dialect];
}

/// Makes a provider of [`Recorder`]: after each method stands what is written
/// down of its arguments, and at the end which methods are about dialects.
macro_rules! recorder {
    (
        $($method:ident($($argument:ident: $type:ty),*) -> $answer:ty { $written:expr })*
        [$($dialect:ident),*]
    ) => {
        impl Provider for Recorder {
            $(
                async fn $method(&self, $($argument: $type),*) -> Result<$answer, Error> {
                    self.record(stringify!($method), $written);
                    Err(match self.unimplemented {
                        true => Error::not_implemented(stringify!($method)),
                        false => Error::Timeout,
                    })
                }
            )*

            $(
                fn $dialect(&self) -> bool {
                    self.dialect == stringify!($dialect)
                }
            )*
        }

        impl Speaks for ThisRelease {
            const DIALECTS: &'static [Dialect] =
                &[$((stringify!($dialect), Recorded::$dialect)),*];
        }
    };
}

pub(crate) use recorder;
