//! Calls one after the other, against a budget that is replayed token by token.

use crate::{
    budget::{Model, budget},
    caller::Caller,
    chaos::{Chaos, SIGNS},
    fleet::wrap,
    judge::Court,
    log::Log,
    rules::Rules,
    script::Script,
    tally::{Deed, Tally},
    timer::SoakTimer,
};
use crabllm_retry::{Timer, VirtualTimer};
use fastrand::Rng;
use futures::executor::block_on;
use std::sync::Arc;

/// What the budget can hold: often enough too little, and often enough full.
const CAPACITY: u32 = 60;

pub fn replay(seed: u64, calls: usize, tally: &Tally) {
    let clock = VirtualTimer::new();
    let log = Arc::new(Log::new(calls, clock.now()));
    let rules = Rules {
        scarce: true,
        max_retries: 4,
        ..Rules::draw(&mut Rng::with_seed(seed), false)
    };
    let (budget, mut model) = (budget(CAPACITY), Model::new(CAPACITY));
    let timer = SoakTimer::new(clock.clone(), true);
    let chaos = Chaos {
        seed,
        clock: clock.clone(),
        log: log.clone(),
    };
    let wrapper = Arc::new(wrap(chaos, &rules, &timer, Some(budget.clone())));
    let court = Court {
        rules: &rules,
        log: &log,
        exactly: false,
        tally,
        place: "the replay",
    };
    for call in 0..calls {
        let script = Script::of(seed, call);
        let caller = Caller {
            wrapper: wrapper.clone(),
            timer: timer.clone(),
            log: log.clone(),
            script: script.clone(),
            call,
            signs: SIGNS,
        };
        let outcome = block_on(clock.task(caller.run()));
        court.judge(call, &script, &outcome);
        let replayed = model.replay(&log.record(call));
        tally.demand(replayed.is_ok(), "retries as the budget allows", || {
            format!("{replayed:?} at call {call}")
        });
        let (expected, seen) = (model.tokens, budget.available());
        tally.demand(seen == expected, "a budget as replayed", || {
            format!("{seen} in place of {expected} tokens after call {call}")
        });
        model.tokens = seen;
        tally.add(Deed::Replayed, 1);
    }
}
