//! Every method of the `Provider` trait, called by its name.

#[cfg(feature = "crabllm-core-0_0_19")]
pub mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
pub mod crabllm_core_0_0_25;

use crabllm_retry::Operation;
use futures::Stream;
use std::{error::Error, pin::Pin};

/// A release of crabllm-core.
pub trait Release: Sized {
    type Error: Error + 'static;

    /// The methods that its providers may have.
    const METHODS: &'static [Operation];
}

/// A release for which `P` is a provider.
pub trait Calls<P>: Release {
    /// Calls one method, with arguments of which none is empty.
    fn call(provider: &P, method: Operation) -> impl Future<Output = Opened<Self>>;
}

/// What a method opens, if it opens a stream.
pub type Opened<R> = Result<Option<Items<R>>, <R as Release>::Error>;

/// An opened stream: what becomes of its items.
pub type Items<R> = Pin<Box<dyn Stream<Item = Result<(), <R as Release>::Error>> + Send>>;

/// The answer of a method that opens no stream.
fn whole<A, I>(_: A) -> Option<I> {
    None
}
