//! Memory: the allocations of calls, and the size of their futures.

use crate::{
    allocator::heap,
    calls::{CALLS, repeat},
    contenders::{Contenders, tokio},
    count,
    in_flight::{Flock, within},
    server,
};

/// Measures the heap that calls in flight need beyond the futures themselves: what is
/// allocated while they are armed, by a wrapper that has armed none before.
pub fn in_flight_heap() {
    const IN_FLIGHT: usize = 100_000;
    let runtime = tokio();
    let ways = Contenders::new(server::never);
    let mut flock = Flock::new(IN_FLIGHT, || ways.ours());
    within(&runtime, |_| ());
    let heap = heap(|| within(&runtime, |cx| flock.arm(cx)));
    count(
        "inflight_heap_bytes",
        heap.live_bytes as f64 / IN_FLIGHT as f64,
    );
}

/// Counts the allocations of calls that pend once, in steady state.
pub fn allocations() {
    let ways = Contenders::new(server::once);
    let ours = allocations_of_one(async || ways.ours().await);
    let bare = allocations_of_one(async || ways.bare().await);
    // Rounded up: a rare allocation must not disappear.
    count("allocations_per_call", (ours - bare).ceil());
}

/// The allocations of a call after as many others, which have made the shared sleep.
fn allocations_of_one<R>(call: impl AsyncFn() -> R) -> f64 {
    let runtime = tokio();
    let many = || (0..10_000 / CALLS).for_each(|_| runtime.block_on(repeat(&call)));
    // `heap` also waits for the helper threads.
    heap(many);
    heap(many).allocations as f64 / 10_000.0
}

/// Measures the size of the future of a call that holds about 4 KiB.
pub fn future_size() {
    let ways = Contenders::new(server::large);
    let beyond = size_of_val(&ways.ours()) - size_of_val(&ways.bare());
    count("future_bytes_over_4k_inner", beyond as f64);
}
