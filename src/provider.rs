//! The `Provider` trait of each supported `crabllm-core` release: one adapter
//! for each, which hands every method to the engine.

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;

use crate::{Failure, Operation, Retrying, Timer, decision::Grant, stream::BoxStream};
use bytes::Bytes;
use serde::Deserialize;
use std::mem;

/// What the adapters' methods are made of.
impl<P, T: Timer> Retrying<P, T> {
    /// The model that a raw body names, if anybody asks for it.
    fn model_in(&self, raw_body: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            model: String,
        }
        let asked =
            self.engine.hooks.observer.is_some() || !self.engine.policies.by_model.is_empty();
        let named: Named = asked.then(|| serde_json::from_slice(raw_body).ok())??;
        Some(named.model)
    }

    /// Has the engine make a call whose attempts are `start`'s.
    fn call<'a, 'm, O, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: impl Into<Option<&'m str>>,
        mut start: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        let start = move || start(&self.inner);
        self.engine.call(operation, model.into(), start)
    }

    /// Has the engine open a stream, with `stalled` for the error of a stall.
    fn open<'a, 'm, I, S, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: impl Into<Option<&'m str>>,
        stalled: fn() -> S,
        mut start: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<BoxStream<Result<I, S>>, E>>
    where
        I: Send + 'static,
        S: Send + 'static,
        F: Future<Output = Result<BoxStream<Result<I, S>>, E>>,
    {
        let start = move || start(&self.inner);
        let model = model.into();
        self.engine.open(operation, model, stalled, start)
    }

    /// The body of each attempt of a call, one after the other: the last one that
    /// there can be gets the body itself. For where there is no retry, a copy
    /// would only keep it, and cost an allocation.
    fn bodies(
        &self,
        operation: Operation,
        model: Option<&str>,
        mut raw_body: Bytes,
    ) -> impl FnMut() -> Bytes + use<P, T> {
        let policy = self.engine.policies.of(model);
        let mut retries = Grant::new(policy, operation).retries.unwrap_or(0);
        move || match retries.checked_sub(1) {
            Some(left) => {
                retries = left;
                raw_body.clone()
            }
            None => mem::take(&mut raw_body),
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::VirtualTimer;

    #[test]
    fn the_last_attempt_gets_the_raw_body_itself() {
        let retrying = Retrying::with_timer((), VirtualTimer::manual());
        for (operation, expected) in [
            (Operation::ChatCompletionRaw, &[false, false, true][..]),
            (Operation::ChatCompletionStreamRaw, &[true]),
        ] {
            let raw_body = Bytes::from(b"{}".to_vec());
            let mut body = retrying.bodies(operation, None, raw_body);
            for itself in expected {
                let body = body();
                assert_eq!((&*body, body.is_unique()), (&b"{}"[..], *itself));
            }
        }
    }
}
