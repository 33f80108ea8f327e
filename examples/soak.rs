//! A million calls under every mishap, and what must hold all the same.
//!
//! ```sh
//! cargo run --release --example soak
//! cargo run --release --example soak -- --minutes 10
//! ```
//!
//! Rounds of some hundred calls run in virtual time, each on two of eleven executors. Calls meet
//! errors, silence, panics and open streams; they are dropped at every point, and go on on other
//! executors. Every other round is a calm, in which each call must go as [`predict`] says, to the
//! nanosecond; in the rest clocks jump, budgets run dry and nobody can tell, but all must be by
//! the rules of [`verify`]. After each round nothing may be left of its calls.
//!
//! With `--minutes` it goes on over real sockets.
//!
//! The last line counts the calls that were lost, the attempts or polls that were one too many,
//! what is left behind, and the timeouts and retries that came early. All but the first must be
//! zero, or the program fails and says what it has seen.

#![deny(unsafe_code)]

#[path = "../benches/overhead/allocator.rs"]
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
mod allocator;
#[path = "soak/args.rs"]
mod args;
#[path = "soak/bell.rs"]
mod bell;
#[path = "soak/budget.rs"]
mod budget;
#[path = "soak/caller.rs"]
mod caller;
#[path = "soak/chaos.rs"]
mod chaos;
#[path = "support/client.rs"]
mod client;
#[path = "support/console.rs"]
mod console;
#[path = "soak/consumer.rs"]
mod consumer;
#[path = "../tests/executors/executors.rs"]
mod executors;
#[path = "support/flaky_server.rs"]
mod flaky_server;
#[path = "soak/fleet.rs"]
mod fleet;
#[path = "soak/judge.rs"]
mod judge;
#[path = "soak/log.rs"]
mod log;
#[path = "soak/patience.rs"]
mod patience;
#[path = "support/pool.rs"]
mod pool;
#[path = "soak/predict.rs"]
mod predict;
#[path = "soak/replay.rs"]
mod replay;
#[path = "soak/round.rs"]
mod round;
#[path = "soak/rules.rs"]
mod rules;
#[path = "soak/script.rs"]
mod script;
#[path = "soak/sockets.rs"]
mod sockets;
#[path = "soak/tally.rs"]
mod tally;
#[path = "soak/timer.rs"]
mod timer;
#[path = "soak/verify.rs"]
mod verify;
#[path = "soak/watched.rs"]
mod watched;
#[path = "support/wire.rs"]
mod wire;

use allocator::{Heap, heap};
use args::Args;
use console::{arguments, eprint, print};
use round::{EXECUTORS, Round, Stuck};
use std::{ops::Range, process::ExitCode, sync::Arc, time::Instant};
use tally::{Deed, Tally};

/// How many calls a round makes.
const ROUND: usize = 1024;
/// How many calls are made against a replayed budget.
const REPLAYED: usize = 5000;
/// What may be left on the heap in the end: the executors that live as long as the process keep
/// some of what they had in their busiest moment.
const TOLERANCE: i64 = 4 << 10;

fn main() -> ExitCode {
    let args: Args = match arguments() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let tally = Arc::<Tally>::default();
    let result = in_virtual_time(&args, &tally).and_then(|()| over_sockets(&args, &tally));
    if let Err(error) = result {
        tally.demand(false, "a soak to its end", || error);
    }
    print(&tally.verdict());
    ExitCode::from(u8::from(!tally.is_clean()))
}

fn in_virtual_time(args: &Args, tally: &Arc<Tally>) -> Result<(), String> {
    let start = Instant::now();
    let replayed = args.calls.min(REPLAYED);
    let plan = Plan {
        seed: args.seed,
        calls: args.calls - replayed,
        tally,
    };
    // With the first ones comes what lives as long as the process: on each executor twice.
    let warm = plan.rounds().min(2 * EXECUTORS.len());
    plan.run(0..warm)?;
    let mut result = Ok(());
    let Heap {
        allocations,
        live_bytes,
    } = heap(|| {
        replay::replay(args.seed, replayed, tally);
        result = plan.run(warm..plan.rounds());
    });
    result?;
    tally.demand(live_bytes <= TOLERANCE, "a heap as it was before", || {
        format!("{live_bytes} bytes more")
    });
    tally.demand_deeds(Deed::ALL);
    let took = start.elapsed().as_secs();
    print(&format!(
        "In virtual time, in {took} s, with {allocations} allocations of which {live_bytes} bytes \
         are left:\n{}",
        tally.table(Deed::ALL)
    ));
    Ok(())
}

fn over_sockets(args: &Args, tally: &Tally) -> Result<(), String> {
    if args.minutes.is_zero() {
        return Ok(());
    }
    let own = Arc::default();
    let done = sockets::soak(args.seed, args.minutes, &own).map_err(|error| error.to_string())?;
    own.demand_deeds(Deed::OVER_SOCKETS);
    tally.add_faults(&own);
    let table = own.table(Deed::OVER_SOCKETS);
    print(&format!("\nOver sockets, {done}:\n{table}"));
    Ok(())
}

/// Calls in rounds.
struct Plan<'a> {
    seed: u64,
    calls: usize,
    tally: &'a Arc<Tally>,
}

impl Plan<'_> {
    fn rounds(&self) -> usize {
        self.calls.div_ceil(ROUND)
    }

    fn run(&self, rounds: Range<usize>) -> Result<(), String> {
        for number in rounds {
            let round = Round {
                seed: self.seed,
                number,
                calls: ROUND.min(self.calls - number * ROUND),
                tally: self.tally,
            };
            round.run().map_err(|Stuck| "a round that never ended")?;
            if !self.tally.is_clean() {
                return Err(format!("round {number} went wrong, the rest is left out"));
            }
            if number > 0 && number.is_multiple_of(250) {
                eprint(&format!("round {number} of {}", self.rounds()));
            }
        }
        Ok(())
    }
}
