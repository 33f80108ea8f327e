//! Calls one after the other, against a budget that is replayed token by token.

use crate::{
    budget::{Model, budget},
    chaos::{Chaos, SIGNS},
    covered::Covered,
    judge::Judge,
    leftovers,
    log::Log,
    rules::{Budget, Rules},
    script::Script,
    tally::Tally,
    timer::SoakTimer,
    wrapped::Wrapped,
};
use crabllm_retry::{RetryBudget, Timer, test_util::VirtualTimer};
use fastrand::Rng;
use futures::executor::block_on;
use std::sync::Arc;

/// What the budget can hold: often enough too little, and often enough full.
const CAPACITY: u32 = 60;

pub fn replay(seed: u64, calls: usize, tally: &Tally) {
    let place = "the replay";
    let clock = VirtualTimer::new();
    let log = Arc::new(Log::new(calls, clock.now()));
    let (budget, mut model) = (budget(CAPACITY), Model::new(CAPACITY));
    let wrapped = wrapped(seed, &clock, &log, budget.clone());
    let judge = Judge {
        rules: &wrapped.rules,
        log: &log,
        predicted: false,
        tally,
        place,
    };
    for call in 0..calls {
        let script = Script::of(seed, call);
        let caller = wrapped.caller(call, script.clone());
        let outcome = block_on(clock.task(caller.run()));
        judge.judge(call, &script, &outcome);
        let replayed = model.replay(&log.record(call));
        tally.demand(replayed.is_ok(), "retries as the budget allows", || {
            format!("{replayed:?} at call {call}")
        });
        let (expected, seen) = (model.tokens, budget.available());
        tally.demand(seen == expected, "a budget as replayed", || {
            format!("{seen} in place of {expected} tokens after call {call}")
        });
        model.tokens = seen;
        tally.add(Covered::Replayed, 1);
    }
    leftovers::check_calls(&log, tally, place);
    drop(wrapped);
    leftovers::check_wrappers(&log, tally, place);
}

fn wrapped(
    seed: u64,
    clock: &VirtualTimer,
    log: &Arc<Log>,
    budget: RetryBudget,
) -> Wrapped<Chaos, SoakTimer> {
    let chaos = Chaos {
        seed,
        clock: clock.clone(),
        log: log.clone(),
    };
    let rules = Rules {
        max_retries: 4,
        ..Rules::draw(&mut Rng::with_seed(seed), false, Budget::Scarce)
    };
    let timer = SoakTimer::new(clock.clone(), true);
    Wrapped::new(chaos, rules, timer, log.clone(), SIGNS, Some(budget))
}
