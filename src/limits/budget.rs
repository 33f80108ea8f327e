//! A limit on retries across calls.
//!
//! Clients retry most when a provider can serve the fewest requests: two retries for
//! each call triple the load. No single call can see that, but a budget shared by all
//! calls to a provider can. While most calls succeed, it stays full and pays for every
//! retry. In an outage it runs dry, and calls fail with their first error.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// A bucket of tokens that pays for retries.
///
/// A retry takes its cost when it is decided, before its delay, and gives it back if
/// its attempt never starts. A call that succeeds after retries gets back the cost of
/// its last retry. A call of any operation that succeeds on its first attempt adds one
/// token. The bucket starts full and never exceeds its capacity. If it has too few
/// tokens for a retry, the call returns its error instead. The rules and the
/// default numbers (capacity 500, cost 14, cost 5 if throttled) are those of the AWS
/// SDKs' standard retry mode.
///
/// Clones share the tokens, and so do all wrappers that are
/// [given](crate::retrying::Retrying::budget) the budget. Each clone has its own costs.
///
/// # In an outage
///
/// 10,000 callers in 100 processes make one call a second each, and the provider fails for
/// 30 seconds. `cargo run --release -p simulations -- outage` in the repository simulates
/// it in virtual time; this crate's engine plays the other policies with their constants.
///
/// | policy | attempts per call in the outage | calls that succeeded since it began | seconds until a call fails |
/// | --- | --- | --- | --- |
/// | crabllm-core | 2.988 | 0.404 | 0.585 |
/// | OpenAI's library | 2.948 | 0.411 | 1.185 |
/// | AWS standard | 1.038 | 0.400 | 0.045 |
/// | default | 2.988 | 0.404 | 0.285 |
/// | default and budget | 1.013 | 0.400 | 0.022 |
///
/// The price is 0.4 percentage points of the calls: those that retries would have carried
/// over the end of the outage.
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::{RetryBudget, Retrying};
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
///
/// let timer = VirtualTimer::new();
/// let down = Scripted::new(timer.clone(), [(); 9].map(|()| Step::status(503)));
/// let budget = RetryBudget::new(25).cost(10);
/// let provider = Retrying::with_timer(down, timer).budget(budget.clone());
///
/// // Two retries are paid for; the next call fails with its first error.
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// for attempts in [3, 4] {
///     let answer = futures::executor::block_on(provider.chat_completion(&request));
///     assert!(answer.is_err());
///     assert_eq!(provider.get_ref().attempts().len(), attempts);
/// }
/// assert_eq!(budget.available(), 5);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a budget does nothing until a `Retrying` uses it"]
pub struct RetryBudget {
    /// The tokens that are left.
    tokens: Arc<AtomicU32>,

    /// The most tokens that it holds.
    capacity: u32,

    /// The cost of a retry.
    cost: u32,

    /// The cost of a retry after a throttled attempt.
    throttle_cost: u32,
}

impl RetryBudget {
    /// A full budget of `capacity` tokens. A retry that costs more than the capacity is
    /// never made.
    pub fn new(capacity: u32) -> Self {
        Self {
            tokens: Arc::new(AtomicU32::new(capacity)),
            capacity,
            cost: 14,
            throttle_cost: 5,
        }
    }

    /// The same tokens with other costs, or a new budget if there is a capacity.
    #[cfg(feature = "serde")]
    pub(crate) fn changed(
        &self,
        capacity: Option<u32>,
        cost: Option<u32>,
        throttle_cost: Option<u32>,
    ) -> Self {
        let budget = capacity.map_or_else(|| self.clone(), Self::new);
        budget
            .cost(cost.unwrap_or(self.cost))
            .throttle_cost(throttle_cost.unwrap_or(self.throttle_cost))
    }

    /// Sets the cost of a retry. Default: 14. Zero makes retries free.
    pub fn cost(mut self, n: u32) -> Self {
        self.cost = n;
        self
    }

    /// Sets the cost of a retry after a throttled attempt (status 429). Default: 5.
    /// Zero makes such retries free.
    pub fn throttle_cost(mut self, n: u32) -> Self {
        self.throttle_cost = n;
        self
    }

    /// The tokens that are left.
    pub fn available(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Takes the cost of a retry, or takes nothing and returns `None`.
    pub(crate) fn pay(&self, throttled: bool) -> Option<Payment<'_>> {
        let cost = self.cost_of(throttled);
        // Relaxed everywhere: the tokens guard no other memory.
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                tokens.checked_sub(cost)
            })
            .ok()?;
        Some(Payment {
            budget: self,
            throttled,
        })
    }

    /// Adds the token of a call that succeeded on its first attempt.
    #[inline]
    pub(crate) fn reward(&self) {
        self.give(1);
    }

    /// Gives back the cost of a retry.
    pub(crate) fn refund(&self, throttled: bool) {
        self.give(self.cost_of(throttled));
    }

    fn cost_of(&self, throttled: bool) -> u32 {
        if throttled {
            self.throttle_cost
        } else {
            self.cost
        }
    }

    /// Adds tokens, up to the capacity.
    fn give(&self, tokens: u32) {
        // A full bucket, the usual case, is not written: all threads share it.
        let _ = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left < self.capacity).then(|| left.saturating_add(tokens).min(self.capacity))
            });
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(500)
    }
}

/// The cost of a retry that has not started: given back when dropped.
#[derive(Debug)]
pub struct Payment<'a> {
    budget: &'a RetryBudget,
    throttled: bool,
}

impl Payment<'_> {
    /// Spends the cost, because the retry starts. Returns whether the previous attempt was
    /// throttled, for a later [refund](RetryBudget::refund).
    pub fn spend(self) -> bool {
        let throttled = self.throttled;
        mem::forget(self);
        throttled
    }
}

impl Drop for Payment<'_> {
    fn drop(&mut self) {
        self.budget.refund(self.throttled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only calls that overlap can give back more than fits, so no model of single calls
    /// checks this.
    #[test]
    fn tokens_never_exceed_the_capacity() {
        for capacity in [20, u32::MAX] {
            let budget = RetryBudget::new(capacity);
            drop(budget.pay(false));
            assert_eq!(budget.available(), capacity);
            budget.pay(false).unwrap().spend();
            budget.reward();
            assert_eq!(budget.available(), capacity - 13);
            budget.refund(false);
            assert_eq!(budget.available(), capacity);
        }
    }
}
