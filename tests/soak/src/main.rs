//! A million calls under every mishap, and what must hold all the same.
//!
//! ```sh
//! cargo run --release -p soak
//! cargo run --release -p soak -- --minutes 10
//! ```
//!
//! Rounds of a thousand calls run in virtual time, each on two of eleven executors. Calls meet
//! errors, silence, panics and open streams; they are cancelled at every point, and go on on other
//! executors. In every other round clocks jump besides. All calls must keep the rules of
//! [`verify`], a shared budget holds what they have left in it, and after each round nothing may
//! be left of them. What a call does exactly is the business of `tests/model`.
//!
//! With `--minutes` it goes on over real sockets.
//!
//! The last line counts:
//!
//! - `calls`: the calls made;
//! - `lost`: the calls that never ended, or otherwise than their last attempt demands;
//! - `double`: the calls with an attempt too many, and the polls after an end;
//! - `leaked`: what is left of calls: wakers, futures, sleeps, wrappers, threads, bytes;
//! - `early`: the calls with a timeout or a retry before its time;
//! - `broken`, where there is any: what else should not be.
//!
//! All but the first must be zero, or the program fails and says what it has seen.

#![deny(unsafe_code)]

#[path = "../../../benches/overhead/allocator.rs"]
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
mod allocator;
mod args;
mod budget;
mod caller;
mod chaos;
#[path = "../../../examples/support/client.rs"]
mod client;
#[path = "../../../examples/support/console.rs"]
mod console;
mod consumer;
mod covered;
#[path = "../../executors/executors.rs"]
mod executors;
#[path = "../../../examples/support/flaky_server.rs"]
mod flaky_server;
mod judge;
mod leftovers;
mod log;
mod patience;
#[path = "../../../examples/support/pool.rs"]
mod pool;
mod round;
mod rules;
mod script;
mod sockets;
mod tally;
mod timer;
mod verify;
mod waker;
mod watched;
#[path = "../../../examples/support/wire.rs"]
mod wire;
mod wrapped;
mod wrappers;

use allocator::{Heap, heap};
use args::Args;
use clap::Parser;
use console::{eprint, print};
use covered::Covered;
use round::{EXECUTORS, Round, Stuck};
use std::{ops::Range, process::ExitCode, sync::Arc, time::Instant};
use tally::Tally;

/// How many calls a round in virtual time makes.
const CALLS_PER_ROUND: usize = 1024;
/// The most that may be left on the heap: the executors that live as long as the process keep
/// some of what they had in their busiest moment.
const TOLERANCE: i64 = 4 << 10;

fn main() -> ExitCode {
    let args = Args::parse();
    let tally = Arc::<Tally>::default();
    let result = in_virtual_time(&args, &tally).and_then(|()| over_sockets(&args, &tally));
    if let Err(error) = result {
        tally.end_early(&error);
    }
    print(&tally.verdict());
    ExitCode::from(u8::from(!tally.is_clean()))
}

fn in_virtual_time(args: &Args, tally: &Arc<Tally>) -> Result<(), String> {
    let start = Instant::now();
    let plan = Plan {
        seed: args.seed,
        calls: args.calls,
        tally,
    };
    // With the first ones comes what lives as long as the process: on each executor twice.
    let warm = plan.rounds().min(2 * EXECUTORS.len());
    plan.run(0..warm)?;
    let mut result = Ok(());
    let Heap {
        allocations,
        live_bytes,
    } = heap(|| result = plan.run(warm..plan.rounds()));
    result?;
    leftovers::check_heap(live_bytes, TOLERANCE, tally);
    tally.demand_covered(Covered::ALL);
    let took = start.elapsed().as_secs();
    print(&format!(
        "In virtual time, in {took} s, with {allocations} allocations of which {live_bytes} bytes \
         are left:\n{}",
        tally.table(Covered::ALL)
    ));
    Ok(())
}

fn over_sockets(args: &Args, tally: &Tally) -> Result<(), String> {
    if args.minutes.is_zero() {
        return Ok(());
    }
    let own = Arc::default();
    let done = sockets::soak(args.seed, args.minutes, &own).map_err(|error| error.to_string())?;
    own.demand_covered(Covered::OVER_SOCKETS);
    tally.add_calls(&own);
    let table = own.table(Covered::OVER_SOCKETS);
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
        self.calls.div_ceil(CALLS_PER_ROUND)
    }

    fn run(&self, rounds: Range<usize>) -> Result<(), String> {
        for number in rounds {
            let round = Round {
                seed: self.seed,
                number,
                calls: CALLS_PER_ROUND.min(self.calls - number * CALLS_PER_ROUND),
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
