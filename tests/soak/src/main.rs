//! A million calls under all faults, and the invariants that must hold all the same.
//!
//! ```sh
//! cargo run --release -p soak
//! cargo run --release -p soak -- --minutes 10
//! ```
//!
//! Rounds of a thousand calls run in virtual time, each on two of eleven executors. Calls and
//! streams meet errors, silence, early ends, panics and jumps of the clock; they are cancelled at
//! any poll, move to other executors, and in every third round wait for a rate limiter. [`script`]
//! draws all of it, and [`checks`] has the invariants. With `--minutes` the soak continues over real
//! sockets.
//!
//! The last line counts the calls, and the faults, which must be zero:
//!
//! - `lost`: calls without an end, with another result or other items than their last attempt's, or
//!   with a failure that was not retried;
//! - `double`: calls with an attempt too many, such as one after content, or a poll after an end;
//! - `leaked`: wakers, sleeps, wrappers, threads and bytes that are left;
//! - `early`: calls with a timeout or a retry before its time;
//! - `broken`, unless it is zero: anything else, such as a case that was never met.

#![deny(unsafe_code)]

#[path = "../../../benches/overhead/allocator.rs"]
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
mod allocator;
mod caller;
mod checks;
#[path = "../../../examples/support/client.rs"]
mod client;
#[path = "../../../examples/support/console.rs"]
mod console;
#[path = "../../executors/executors.rs"]
mod executors;
mod faulty;
#[path = "../../../examples/support/flaky_server.rs"]
mod flaky_server;
mod log;
#[path = "../../../examples/support/pool.rs"]
mod pool;
mod recorder;
mod round;
mod script;
mod sockets;
mod tally;
#[path = "../../../examples/support/wire.rs"]
mod wire;

use allocator::Heap;
use checks::{CASES, CASES_OVER_SOCKETS, check_process};
use clap::Parser;
use console::print;
use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tally::{Fault, Tally};

const CALLS_PER_ROUND: usize = 1024;

/// The bytes that may be left: executors that live as long as the process keep some.
const TOLERANCE: i64 = 4 << 10;

/// Make a great many calls under all faults, and count what went wrong.
#[derive(Parser)]
struct Args {
    /// How many calls to make in virtual time; with too few, some faults never happen, which is an
    /// error too
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    calls: usize,
    /// How long to continue over real sockets, on loopback
    #[arg(long, value_name = "M", default_value_t = 0.0)]
    minutes: f64,
    /// The seed of all randomness
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let tally = Arc::<Tally>::default();
    in_virtual_time(&args, &tally);
    if tally.is_clean() && args.minutes > 0.0 {
        let time = Duration::from_secs_f64(60.0 * args.minutes);
        match sockets::soak(args.seed, time, &tally) {
            Ok(heap) => report("Over sockets", heap, &tally, CASES_OVER_SOCKETS),
            Err(error) => tally.add(Fault::Broken, 1, &error.to_string()),
        }
    }
    print(&tally.verdict());
    ExitCode::from(u8::from(!tally.is_clean()))
}

fn in_virtual_time(args: &Args, tally: &Arc<Tally>) {
    let start = Instant::now();
    let rounds = args.calls.div_ceil(CALLS_PER_ROUND);
    let run = |number| {
        let calls = CALLS_PER_ROUND.min(args.calls - number * CALLS_PER_ROUND);
        round::run(args.seed, number, calls, tally)
    };
    // The first rounds, two on each executor, make what lives as long as the process.
    let warm = rounds.min(2 * executors::EXECUTORS.len());
    if !(0..warm).all(run) {
        return;
    }
    let heap = check_process(tally, TOLERANCE, || _ = (warm..rounds).all(run));
    let title = format!("In virtual time, in {} s", start.elapsed().as_secs());
    report(&title, heap, tally, CASES);
}

fn report(title: &str, left: Heap, tally: &Tally, cases: usize) {
    let (allocations, bytes) = (left.allocations, left.live_bytes);
    let covered = tally.take_covered(cases);
    print(&format!(
        "{title}, {allocations} allocations, {bytes} bytes left:\n{covered}"
    ));
}
