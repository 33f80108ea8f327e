//! Streams whose silence is bounded.

use crate::{
    allocator::heap,
    contenders::Contenders,
    executor::Executor,
    paired::Group,
    report::Report,
    server::{self, ITEMS},
};
use futures::{Stream, StreamExt};
use std::{fmt::Debug, hint::black_box};

/// Measures the cost of the limit for each item that is ready.
pub fn cost(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let ways = Contenders::new(server::ready);
    let mut group = Group::new("a stream's item that is ready, on a tokio current-thread runtime");
    let bare = group.add("bare", None, ITEMS, || {
        executor.block_on(drain(ways.bare_stream()))
    });
    let ours = group.add("ours, FuturesTimer", bare, ITEMS, || {
        executor.block_on(drain(ways.ours_stream()))
    });
    let measured = group.measure(rounds);
    report.section(&measured, ours);
    let overhead = measured.overhead(ours).expect("a side that is not bare");
    report.count("idle_stream_ns_per_item", overhead);
}

/// Counts the allocations of the limit for each item that is ready.
pub fn allocations(report: &mut Report) {
    let ways = Contenders::new(server::ready);
    let bare = allocations_per_item(|| ways.bare_stream());
    let ours = allocations_per_item(|| ways.ours_stream());
    report.values(
        "allocations for each of a stream's 10,000 items, without its opening",
        [("bare", bare), ("ours, FuturesTimer", ours)],
    );
    // Rounded up: a rare allocation must not disappear.
    report.count("idle_stream_allocations_per_item", (ours - bare).ceil());
}

/// The allocations of a stream that is read beyond one that is only opened.
fn allocations_per_item<S, E, F>(open: impl Fn() -> F) -> f64
where
    S: Stream + Unpin,
    E: Debug,
    F: Future<Output = Result<S, E>>,
{
    let executor = Executor::tokio();
    let opening = heap(|| drop(executor.block_on(open()).expect("a stream")));
    let all = heap(|| executor.block_on(drain(open())));
    (all.allocations as f64 - opening.allocations as f64) / ITEMS as f64
}

async fn drain<S: Stream + Unpin, E: Debug>(open: impl Future<Output = Result<S, E>>) {
    let mut items = open.await.expect("a stream");
    while let Some(item) = items.next().await {
        black_box(item);
    }
}
