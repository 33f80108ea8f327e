//! The wrappers of a round.

use crate::{
    budget::{self, balance},
    chaos::{Chaos, SIGNS},
    log::Log,
    rules::Rules,
    script::mix,
    tally::{Deed, Tally},
    timer::SoakTimer,
    watched::Watched,
};
use crabllm_retry::{
    Backoff, Policy, RetryBudget, Retrying, Scripted, Step, VirtualTimer,
    crabllm_core_0_0_19::Provider,
};
use fastrand::Rng;
use futures::executor::block_on;
use std::{sync::Arc, time::Duration};

pub type Wrapper = Retrying<Watched<Chaos, SoakTimer>, SoakTimer>;

/// Half of what the ample budget can hold: what it begins with, so that it is never full nor dry.
const HALF: u32 = 1 << 30;
/// What the scarce budget can hold.
const SCARCE: u32 = 100;

/// Wrappers of one provider, with a timer each: one that makes a sleep for each call, one whose
/// sleeps are shared, and one whose clock runs ahead of its sleeps.
pub struct Fleet {
    pub ships: [Ship; 3],
    /// Shared by the first two wrappers.
    ample: RetryBudget,
}

/// What a wrapper is made of.
pub struct Ship {
    pub rules: Rules,
    pub timer: SoakTimer,
    pub shared_sleeps: bool,
    pub wrapper: Arc<Wrapper>,
}

impl Fleet {
    /// Wrappers with rules at random; in a calm, their calls can be predicted.
    pub fn new(seed: u64, calm: bool, clock: &VirtualTimer, log: &Arc<Log>) -> Self {
        let rng = &mut Rng::with_seed(mix(seed, u64::MAX));
        let chaos = Chaos {
            seed,
            clock: clock.clone(),
            log: log.clone(),
        };
        let ample = ample();
        let own = match calm {
            true => Some(ample.clone()),
            false => rng.bool().then(|| budget::budget(SCARCE)),
        };
        let mut ship = |shared_sleeps, budget: Option<RetryBudget>| {
            let mut rules = Rules::draw(rng, calm);
            rules.scarce = budget.as_ref().is_some_and(|own| own.available() == SCARCE);
            Ship::new(&chaos, rules, shared_sleeps, budget)
        };
        let ships = [
            ship(false, Some(ample.clone())),
            ship(true, Some(ample.clone())),
            ship(true, own),
        ];
        Self { ships, ample }
    }

    /// The wrapper that makes a call.
    pub fn of(&self, call: usize) -> &Ship {
        &self.ships[call % self.ships.len()]
    }

    /// Demands that the ample budget holds what the calls have left in it.
    pub fn check_budget(&self, log: &Log, calm: bool, tally: &Tally, place: &str) {
        let paid = |call: &usize| match call % self.ships.len() {
            2 => calm,
            _ => true,
        };
        let balances = (0..log.len()).filter(paid);
        let balance: i64 = balances.map(|call| balance(&log.record(call))).sum();
        let (expected, seen) = (i64::from(HALF) + balance, self.ample.available());
        tally.demand(expected == i64::from(seen), "a budget is conserved", || {
            format!("{seen} in place of {expected} tokens in {place}")
        });
        tally.add(Deed::Conserved, 1);
    }
}

impl Ship {
    fn new(chaos: &Chaos, rules: Rules, shared_sleeps: bool, budget: Option<RetryBudget>) -> Self {
        let timer = SoakTimer::new(chaos.clock.clone(), shared_sleeps);
        let wrapper = wrap(chaos.clone(), &rules, &timer, budget);
        Self {
            rules,
            timer,
            shared_sleeps,
            wrapper: Arc::new(wrapper),
        }
    }

    /// A wrapper like that of the ship, with deadlines of its own.
    pub fn orphan(&self) -> Arc<Wrapper> {
        let wrapper = (*self.wrapper).clone().timer(self.timer.clone());
        Arc::new(wrapper)
    }
}

/// A wrapper, with an observer and the server's hints.
pub fn wrap(
    chaos: Chaos,
    rules: &Rules,
    timer: &SoakTimer,
    budget: Option<RetryBudget>,
) -> Wrapper {
    let log = chaos.log.clone();
    let watched = Watched {
        inner: chaos,
        timer: timer.clone(),
        log: log.clone(),
        hint: SIGNS.hint,
    };
    let wrapper = Retrying::with_timer(watched, timer.clone())
        .policy(rules.policy())
        .retry_after(SIGNS.hint)
        .observe(move |event| log.observe(event));
    match budget {
        Some(budget) => wrapper.budget(budget),
        None => wrapper,
    }
}

/// A budget that is half full: a retry has paid the other half.
fn ample() -> RetryBudget {
    let budget = budget::budget(2 * HALF);
    let clock = VirtualTimer::manual();
    let down = Scripted::new(clock.clone(), [(); 9].map(|()| Step::status(503)));
    let at_once = Backoff::exponential(Duration::ZERO, Duration::ZERO);
    let spender = Retrying::with_timer(down, clock)
        .policy(Policy::default().max_retries(1).backoff(at_once))
        .budget(budget.clone().cost(HALF));
    let request = crate::wire::question("m", "", None);
    _ = block_on(spender.chat_completion(&request));
    budget
}
