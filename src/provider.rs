//! The `Provider` trait of each supported `crabllm-core` release: one adapter for
//! each release, which hands every method to the engine.

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;

use crate::{failure::Failure, policy::Operation, retrying::Retrying, timer::Timer};
use futures::stream::BoxStream;
use serde::Deserialize;

/// The parts of the adapters' methods.
impl<P, T: Timer> Retrying<P, T> {
    /// The model that a raw body names, if an observer or a policy needs it.
    fn model_in(&self, raw_body: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            model: String,
        }
        let needed =
            self.engine.hooks.observer.is_some() || !self.engine.policies.by_model.is_empty();
        let named: Named = needed.then(|| serde_json::from_slice(raw_body).ok())??;
        Some(named.model)
    }

    /// Makes a call; `attempt` starts each attempt on the inner provider.
    fn call<'a, 'm, O, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: impl Into<Option<&'m str>>,
        mut attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        let attempt = move || attempt(&self.inner);
        self.engine.call(operation, model.into(), attempt)
    }

    /// Opens a stream; `timeout` makes the item that ends a silent one.
    fn open<'a, 'm, I, S, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: impl Into<Option<&'m str>>,
        timeout: fn() -> S,
        mut attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>
    where
        I: Send + 'static,
        S: Send + 'static,
        F: Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>,
    {
        let attempt = move || attempt(&self.inner);
        self.engine.open(operation, model.into(), timeout, attempt)
    }
}
