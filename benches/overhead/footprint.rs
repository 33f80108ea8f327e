//! Memory: the allocations of calls, and the size of their futures.

use crate::{
    allocator::heap,
    contenders::Contenders,
    executor::{CALLS, Executor},
    in_flight::{Flock, within},
    report::Report,
    server,
};

/// The number of calls in flight.
const IN_FLIGHT: usize = 100_000;

/// Measures every way to make a call. This crate goes first, because the first user of a
/// timer crate pays for what the crate keeps for all.
macro_rules! measure_all {
    ($ways:ident, $measure:ident) => {
        [
            ("ours, FuturesTimer", $measure(|| $ways.ours())),
            ("ours, AsyncIoTimer", $measure(|| $ways.ours_async_io())),
            ("bare", $measure(|| $ways.bare())),
            ("tokio::time::timeout", $measure(|| $ways.tokio())),
            ("bare, 0.0.25", $measure(|| $ways.bare_upstream())),
            (
                "crabllm_core::Retrying 0.0.25",
                $measure(|| $ways.original()),
            ),
            (
                "race, fresh futures_timer::Delay",
                $measure(|| $ways.naive_futures_timer()),
            ),
            (
                "race, fresh async_io::Timer",
                $measure(|| $ways.naive_async_io()),
            ),
        ]
    };
}

/// Measures the heap that calls in flight need beyond the futures themselves: what is
/// allocated while they are armed, by a wrapper that has armed none before.
pub fn in_flight_heap(report: &mut Report) {
    let ways = Contenders::new(server::never);
    let measured = measure_all!(ways, live_heap);
    let title = "heap bytes for each of 100,000 calls in flight, beyond the futures";
    report.values(title, measured);
    report.count("inflight_heap_bytes", measured[0].1);
}

fn live_heap<F: Future>(start: impl Fn() -> F) -> f64 {
    let executor = Executor::tokio();
    let mut flock = Flock::new(IN_FLIGHT, start);
    within(&executor, |_| ());
    let heap = heap(|| within(&executor, |cx| flock.arm(cx)));
    heap.live_bytes as f64 / IN_FLIGHT as f64
}

/// Counts the allocations of calls that pend once, in steady state.
pub fn allocations(report: &mut Report) {
    let ways = Contenders::new(server::once);
    let measured = measure_all!(ways, allocations_of_one);
    report.values(
        "allocations for each of 10,000 calls that pend once",
        measured,
    );
    let [(_, ours), _, (_, bare), ..] = measured;
    // Rounded up: a rare allocation must not disappear.
    report.count("allocations_per_call", (ours - bare).ceil());
}

/// The allocations of a call after as many others, which have made the shared sleep.
fn allocations_of_one<R>(mut call: impl AsyncFnMut() -> R) -> f64 {
    let executor = Executor::tokio();
    let mut many = || (0..10_000 / CALLS).for_each(|_| executor.repeat(&mut call));
    // `heap` also waits for the helper threads.
    heap(&mut many);
    heap(many).allocations as f64 / 10_000.0
}

/// Measures the size of the future of a call that holds about 4 KiB.
pub fn future_sizes(report: &mut Report) {
    let ways = Contenders::new(server::large);
    let measured = Executor::tokio().block_on(async { measure_all!(ways, size) });
    report.values("bytes of a future around one of about 4 KiB", measured);
    let [(_, ours), _, (_, bare), ..] = measured;
    report.count("future_bytes_over_4k_inner", ours - bare);
}

fn size<F: Future>(call: impl Fn() -> F) -> f64 {
    size_of_val(&call()) as f64
}
