//! Memory: what calls allocate, and how large they are.

use crate::{
    TIMEOUT,
    allocator::heap,
    executor::{CALLS, Executor},
    in_flight::{Flock, within},
    peers,
    report::Report,
    server::{Large, Never, Once, Server, request, upstream_request},
};
use crabllm_retry::crabllm_core_0_0_25 as upstream;
use crabllm_retry::{AsyncIoTimer, Retrying, crabllm_core_0_0_19::Provider};
use tokio::time::timeout;

/// How many calls are in flight.
const IN_FLIGHT: usize = 100_000;

/// The heap that calls in flight need, beyond the futures themselves: what is
/// allocated while they are armed, by a wrapper that has armed none before.
///
/// The first to use a timer crate pays for what that crate keeps for all. Ours
/// goes first.
pub fn in_flight_heap(report: &mut Report) {
    let (server, request) = (Server(Never), request());
    let ours = Retrying::new(Server(Never));
    let ours_async_io = Retrying::with_timer(Server(Never), AsyncIoTimer);
    let call = || server.chat_completion(&request);
    let ours = heap_of_one(|| ours.chat_completion(&request));
    report.values(
        "heap bytes for each of 100,000 calls in flight, beyond the futures",
        [
            ("bare", heap_of_one(call)),
            ("ours, FuturesTimer", ours),
            (
                "ours, AsyncIoTimer",
                heap_of_one(|| ours_async_io.chat_completion(&request)),
            ),
            (
                "tokio::time::timeout",
                heap_of_one(|| timeout(TIMEOUT, call())),
            ),
            (
                "race, fresh futures_timer::Delay",
                heap_of_one(|| peers::naive_futures_timer(call(), TIMEOUT)),
            ),
            (
                "race, fresh async_io::Timer",
                heap_of_one(|| peers::naive_async_io(call(), TIMEOUT)),
            ),
        ],
    );
    report.count("inflight_heap_bytes", Some(ours));
}

fn heap_of_one<F: Future>(start: impl Fn() -> F) -> f64 {
    let executor = Executor::tokio();
    let mut flock = Flock::new(IN_FLIGHT, start);
    within(&executor, |_| ());
    let heap = heap(|| within(&executor, |cx| flock.arm(cx)));
    heap.live_bytes as f64 / IN_FLIGHT as f64
}

/// How often calls that pend once allocate, in steady state.
pub fn allocations(report: &mut Report) {
    let (server, request) = (Server(Once), request());
    let ours = Retrying::new(Server(Once));
    let ours_async_io = Retrying::with_timer(Server(Once), AsyncIoTimer);
    let original = upstream::Retrying::new(Server(Once));
    let upstream_request = upstream_request();

    let bare = allocations_of_one(async || server.chat_completion(&request).await);
    let ours = allocations_of_one(async || ours.chat_completion(&request).await) - bare;
    let rows = [
        ("bare", bare),
        ("ours, FuturesTimer", ours),
        (
            "ours, AsyncIoTimer",
            allocations_of_one(async || ours_async_io.chat_completion(&request).await) - bare,
        ),
        (
            "tokio::time::timeout",
            allocations_of_one(async || timeout(TIMEOUT, server.chat_completion(&request)).await)
                - bare,
        ),
        (
            "crabllm_core::Retrying 0.0.25",
            allocations_of_one(async || {
                upstream::Provider::chat_completion(&original, &upstream_request).await
            }) - bare,
        ),
        (
            "race, fresh futures_timer::Delay",
            allocations_of_one(async || {
                peers::naive_futures_timer(server.chat_completion(&request), TIMEOUT).await
            }) - bare,
        ),
        (
            "race, fresh async_io::Timer",
            allocations_of_one(async || {
                peers::naive_async_io(server.chat_completion(&request), TIMEOUT).await
            }) - bare,
        ),
    ];
    report.values(
        "allocations for each of 10,000 calls that pend once, beyond bare",
        rows,
    );
    report.count_up("allocations_per_call", ours);
}

/// The allocations of a call after as many others: the one sleep of a timeout is
/// theirs.
fn allocations_of_one<R>(mut call: impl AsyncFnMut() -> R) -> f64 {
    let executor = Executor::tokio();
    let mut many = || (0..10_000 / CALLS).for_each(|_| executor.repeat(&mut call));
    // The work that they leave to helper threads is done when this returns.
    heap(&mut many);
    heap(many).allocations as f64 / 10_000.0
}

/// How much larger the wrapper makes a future.
pub fn future_sizes(report: &mut Report) {
    let (server, request) = (Server(Large), request());
    let ours = Retrying::new(Server(Large));
    let ours_async_io = Retrying::with_timer(Server(Large), AsyncIoTimer);
    let original = upstream::Retrying::new(Server(Large));
    let upstream_request = upstream_request();

    let bare = size(&server.chat_completion(&request));
    let ours = size(&ours.chat_completion(&request));
    let bounded = |call| Executor::tokio().block_on(async { size(&timeout(TIMEOUT, call)) });
    let bare_upstream = size(&upstream::Provider::chat_completion(
        &server,
        &upstream_request,
    ));
    let original = size(&upstream::Provider::chat_completion(
        &original,
        &upstream_request,
    ));
    report.values(
        "bytes of a future around one of about 4 KiB, beyond that",
        [
            ("the inner future", bare),
            ("ours, FuturesTimer", ours - bare),
            (
                "ours, AsyncIoTimer",
                size(&ours_async_io.chat_completion(&request)) - bare,
            ),
            (
                "tokio::time::timeout",
                bounded(server.chat_completion(&request)) - bare,
            ),
            ("crabllm_core::Retrying 0.0.25", original - bare_upstream),
        ],
    );
    report.count("future_bytes_over_4k_inner", Some(ours - bare));
}

fn size<T>(value: &T) -> f64 {
    size_of_val(value) as f64
}
