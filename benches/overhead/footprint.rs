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

/// Measures the heap that calls in flight need beyond the futures themselves: what is
/// allocated while they are armed, by a wrapper that has armed none before.
///
/// The first user of a timer crate pays for what the crate keeps for all. This crate goes
/// first.
pub fn in_flight_heap(report: &mut Report) {
    let ways = Contenders::new(server::never);
    let ours = live_heap(|| ways.ours());
    report.values(
        "heap bytes for each of 100,000 calls in flight, beyond the futures",
        [
            ("bare", live_heap(|| ways.bare())),
            ("ours, FuturesTimer", ours),
            ("ours, AsyncIoTimer", live_heap(|| ways.ours_async_io())),
            ("tokio::time::timeout", live_heap(|| ways.tokio())),
            (
                "race, fresh futures_timer::Delay",
                live_heap(|| ways.naive_futures_timer()),
            ),
            (
                "race, fresh async_io::Timer",
                live_heap(|| ways.naive_async_io()),
            ),
        ],
    );
    report.count("inflight_heap_bytes", ours);
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
    let bare = allocations_of_one(|| ways.bare());
    let ours = allocations_of_one(|| ways.ours()) - bare;
    report.values(
        "allocations for each of 10,000 calls that pend once, beyond bare",
        [
            ("bare", bare),
            ("ours, FuturesTimer", ours),
            (
                "ours, AsyncIoTimer",
                allocations_of_one(|| ways.ours_async_io()) - bare,
            ),
            (
                "tokio::time::timeout",
                allocations_of_one(|| ways.tokio()) - bare,
            ),
            (
                "crabllm_core::Retrying 0.0.25",
                allocations_of_one(|| ways.original()) - bare,
            ),
            (
                "race, fresh futures_timer::Delay",
                allocations_of_one(|| ways.naive_futures_timer()) - bare,
            ),
            (
                "race, fresh async_io::Timer",
                allocations_of_one(|| ways.naive_async_io()) - bare,
            ),
        ],
    );
    // Rounded up: a rare allocation must not disappear.
    report.count("allocations_per_call", ours.ceil());
}

/// The allocations of a call after as many others, which have made the shared sleep.
fn allocations_of_one<R>(mut call: impl AsyncFnMut() -> R) -> f64 {
    let executor = Executor::tokio();
    let mut many = || (0..10_000 / CALLS).for_each(|_| executor.repeat(&mut call));
    // `heap` also waits for the helper threads.
    heap(&mut many);
    heap(many).allocations as f64 / 10_000.0
}

/// Measures how much the wrapper adds to the size of a future.
pub fn future_sizes(report: &mut Report) {
    let ways = Contenders::new(server::large);
    let bare = size(&ways.bare());
    let ours = size(&ways.ours()) - bare;
    let tokio = Executor::tokio().block_on(async { size(&ways.tokio()) });
    report.values(
        "bytes of a future around one of about 4 KiB, beyond that",
        [
            ("the inner future", bare),
            ("ours, FuturesTimer", ours),
            ("ours, AsyncIoTimer", size(&ways.ours_async_io()) - bare),
            ("tokio::time::timeout", tokio - bare),
            (
                "crabllm_core::Retrying 0.0.25",
                size(&ways.original()) - size(&ways.bare_upstream()),
            ),
        ],
    );
    report.count("future_bytes_over_4k_inner", ours);
}

fn size<T>(value: &T) -> f64 {
    size_of_val(value) as f64
}
