//! A wrapper under test, and who makes its calls.

use crate::{
    caller::{Caller, Signs},
    log::Log,
    rules::Rules,
    script::Script,
    watched::Watched,
};
use crabllm_retry::{RetryBudget, Retrying, Timer, crabllm_core_0_0_19::Provider};
use std::sync::Arc;

/// A wrapper, and what it is made of.
pub struct Wrapped<P, T> {
    pub rules: Rules,
    pub timer: T,
    pub log: Arc<Log>,
    signs: Signs,
    wrapper: Arc<Retrying<Watched<P, T>, T>>,
}

impl<P: Provider + Clone, T: Timer + Clone> Wrapped<P, T> {
    /// Wraps a provider, with all that the wrapper does written down.
    pub fn new(
        provider: P,
        rules: Rules,
        timer: T,
        log: Arc<Log>,
        signs: Signs,
        budget: Option<RetryBudget>,
    ) -> Self {
        let watched = Watched {
            inner: provider,
            timer: timer.clone(),
            log: log.clone(),
            hint: signs.hint,
        };
        let observer = log.clone();
        let wrapper = Retrying::with_timer(watched, timer.clone())
            .policy(rules.policy())
            .retry_after(signs.hint)
            .observe(move |event| observer.observe(event));
        let wrapper = Arc::new(match budget {
            Some(budget) => wrapper.budget(budget),
            None => wrapper,
        });
        Self {
            rules,
            timer,
            log,
            signs,
            wrapper,
        }
    }

    /// Who makes a call as its script says.
    pub fn caller(&self, call: usize, script: Script) -> Caller<Watched<P, T>, T> {
        let wrapper = if script.orphaned {
            self.orphan()
        } else if script.clones {
            Arc::new((*self.wrapper).clone())
        } else {
            self.wrapper.clone()
        };
        Caller {
            wrapper,
            timer: self.timer.clone(),
            log: self.log.clone(),
            script,
            call,
            signs: self.signs,
        }
    }

    /// A wrapper like this one, with deadlines of its own.
    fn orphan(&self) -> Arc<Retrying<Watched<P, T>, T>> {
        let wrapper = (*self.wrapper).clone().timer(self.timer.clone());
        Arc::new(wrapper)
    }
}
