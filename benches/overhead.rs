//! The cost of the wrapper, beside its peers.
//!
//! ```sh
//! cargo bench --bench overhead
//! ```
//!
//! The sides of a comparison run in this one process and take turns, round after round;
//! each figure is the median of its rounds. *Overhead* is the time of a wrapped call less
//! the time of the same inner call bare, on the same executor, in the same round. The
//! output is a table for each comparison, then one line for each figure.
//!
//! `OVERHEAD_ROUNDS` asks for another number of rounds, at least nine. Threads are counted
//! in `/proc`, so this runs on Linux.

#[path = "overhead/allocator.rs"]
mod allocator;
#[path = "overhead/calls.rs"]
mod calls;
#[path = "overhead/contenders.rs"]
mod contenders;
#[path = "overhead/executor.rs"]
mod executor;
#[path = "overhead/footprint.rs"]
mod footprint;
#[path = "overhead/in_flight.rs"]
mod in_flight;
#[path = "overhead/lateness.rs"]
mod lateness;
#[path = "overhead/paired.rs"]
mod paired;
#[path = "overhead/process.rs"]
mod process;
#[path = "overhead/report.rs"]
mod report;
#[path = "overhead/server.rs"]
mod server;
#[path = "overhead/streams.rs"]
mod streams;
#[path = "overhead/two_threads.rs"]
mod two_threads;

use report::Report;
use std::{env, time::Duration};

/// The default timeout of a call.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test --benches` runs this too, without `--bench`.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds = paired::rounds();
    let mut report = Report::new(rounds);

    // Checks that may fail come before measurements that take long.
    process::expect_threads();
    process::crates(&mut report);

    // Heap first: timer crates keep what they once allocated.
    footprint::in_flight_heap(&mut report);
    footprint::allocations(&mut report);
    footprint::future_sizes(&mut report);
    streams::allocations(&mut report);

    calls::ready(rounds, &mut report);
    calls::armed_on_tokio(rounds, &mut report);
    calls::armed_with_futures_timer(rounds, &mut report);
    calls::armed_with_async_io(rounds, &mut report);
    in_flight::cost(rounds, &mut report);
    in_flight::cost_among_longer(rounds, &mut report);
    two_threads::throughput(rounds, &mut report);
    streams::cost(rounds, &mut report);
    lateness::volleys(rounds, &mut report);

    process::threads(&mut report);
    report.finish();
}
