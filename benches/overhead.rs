//! The cost of the wrapper compared with its peers.
//!
//! ```sh
//! cargo bench --bench overhead
//! ```
//!
//! The sides of a comparison take turns in this one process, round after round; each figure
//! is the median of its rounds. *Overhead* is the time of a wrapped call less the time of
//! the same inner call bare, on the same executor, in the same round. The figures go to
//! standard output, one a line, and the times behind them to standard error. On a busy
//! machine trust the ratios, not the nanoseconds.
//!
//! Threads are counted in `/proc`, so this runs on Linux.

#[path = "overhead/allocator.rs"]
mod allocator;
#[path = "overhead/calls.rs"]
mod calls;
#[path = "overhead/contenders.rs"]
mod contenders;
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
#[path = "overhead/server.rs"]
mod server;
#[path = "overhead/streams.rs"]
mod streams;
#[path = "overhead/two_threads.rs"]
mod two_threads;

use std::{env, time::Duration};

/// The default timeout of a call.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test --benches` runs this too, without `--bench`.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }

    // Checks that may fail come before measurements that take long.
    process::crates();

    // Heap first: timer crates keep what they once allocated.
    footprint::in_flight_heap();
    footprint::allocations();
    footprint::future_size();
    streams::allocations();

    calls::ready();
    calls::armed_on_tokio();
    calls::armed_vs_naive();
    in_flight::cost();
    in_flight::cost_among_longer();
    two_threads::throughput();
    streams::cost();
    lateness::volleys();

    // All executors with threads of their own are gone by now.
    process::threads();
}

fn ratio(name: &str, value: f64) {
    println!("ratio {name} {value:.3}");
}

/// Prints a number, rounded to an integer.
fn count(name: &str, value: f64) {
    println!("count {name} {}", value.round() as i64);
}
