//! The wrappers of a round.

use crate::{
    budget::{self, balance},
    chaos::{Chaos, SIGNS},
    covered::Covered,
    log::Log,
    rules::{Budget, Rules},
    script::mix,
    tally::Tally,
    timer::SoakTimer,
    wire::question,
    wrapped::Wrapped,
};
use crabllm_retry::{
    Backoff, Policy, RetryBudget, Retrying,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step, VirtualTimer},
};
use fastrand::Rng;
use futures::executor::block_on;
use std::{sync::Arc, time::Duration};

/// Half of what the ample budget can hold: what it begins with, so that it is never full nor dry.
const HALF: u32 = 1 << 30;
/// The capacity of the scarce budget.
const SCARCE: u32 = 100;

/// Wrappers of one provider, with a timer each: one that makes a sleep for each call, one whose
/// sleeps are shared, and one whose clock may run ahead of its sleeps.
pub struct Wrappers {
    all: [Wrapped<Chaos, SoakTimer>; 3],
    ample: RetryBudget,
}

impl Wrappers {
    /// Wrappers with rules at random.
    pub fn new(seed: u64, clock: &VirtualTimer, log: &Arc<Log>) -> Self {
        let rng = &mut Rng::with_seed(mix(seed, u64::MAX));
        let ample = ample();
        let own = match rng.bool() {
            true => Budget::Scarce,
            false => Budget::None,
        };
        let mut wrapped = |shared_sleeps, budget| {
            let chaos = Chaos {
                seed,
                clock: clock.clone(),
                log: log.clone(),
            };
            let rules = Rules::draw(rng, budget);
            let timer = SoakTimer::new(clock.clone(), shared_sleeps);
            let budget = match budget {
                Budget::Ample => Some(ample.clone()),
                Budget::Scarce => Some(budget::budget(SCARCE)),
                Budget::None => None,
            };
            Wrapped::new(chaos, rules, timer, log.clone(), SIGNS, budget)
        };
        let all = [
            wrapped(false, Budget::Ample),
            wrapped(true, Budget::Ample),
            wrapped(true, own),
        ];
        Self { all, ample }
    }

    /// The wrapper that makes a call.
    pub fn of(&self, call: usize) -> &Wrapped<Chaos, SoakTimer> {
        &self.all[call % self.all.len()]
    }

    /// Moves a clock on, but not the sleeps.
    pub fn suspend(&self, time: Duration) {
        let [.., last] = &self.all;
        last.timer.suspend(time);
    }

    /// Demands that the ample budget holds what the calls have left in it.
    pub fn check_budget(&self, log: &Log, tally: &Tally, place: &str) {
        let paid = |call: &usize| self.of(*call).rules.budget == Budget::Ample;
        let balances = (0..log.len()).filter(paid);
        let balance: i64 = balances.map(|call| balance(&log.record(call))).sum();
        let (expected, seen) = (i64::from(HALF) + balance, self.ample.available());
        let conserved = expected == i64::from(seen);
        tally.add(Covered::Conserved, usize::from(conserved));
        tally.demand(conserved, "a budget is conserved", || {
            format!("{seen} in place of {expected} tokens in {place}")
        });
    }

    /// Drops the wrappers, and keeps their timers.
    pub fn into_timers(self) -> [SoakTimer; 3] {
        self.all.map(|wrapped| wrapped.timer)
    }
}

/// A budget that is half full: one retry has paid the other half.
fn ample() -> RetryBudget {
    let budget = budget::budget(2 * HALF);
    let clock = VirtualTimer::manual();
    // The policy allows no second retry, and the second error none either: a wrapper at fault
    // would pay all, and each call be at odds with the budget rather than with the fault.
    let steps = [Step::status(503), Step::status(400)];
    let provider = Scripted::new(clock.clone(), steps);
    let at_once = Backoff::exponential(Duration::ZERO, Duration::ZERO);
    let spender = Retrying::with_timer(provider, clock)
        .policy(Policy::default().max_retries(1).backoff(at_once))
        .budget(budget.clone().cost(HALF));
    let request = question("m", "", None);
    _ = block_on(spender.chat_completion(&request));
    budget
}
