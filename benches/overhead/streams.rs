//! Streams whose silence is bounded.

use crate::{
    allocator::heap,
    contenders::{Contenders, tokio},
    count,
    paired::{Side, measure},
    server::{self, ITEMS},
};
use futures::{Stream, StreamExt};
use std::{fmt::Debug, hint::black_box};

/// Measures the cost of the limit for each item that is ready.
pub fn cost() {
    let runtime = tokio();
    let ways = Contenders::new(server::ready);
    let [bare, ours] = measure(
        "an item that is ready",
        [
            Side::new("bare", ITEMS, || {
                runtime.block_on(drain(ways.bare_stream()))
            }),
            Side::new("ours", ITEMS, || {
                runtime.block_on(drain(ways.ours_stream()))
            }),
        ],
    );
    count("idle_stream_ns_per_item", ours.beyond(&bare).median());
}

/// Counts the allocations of the limit for each item that is ready.
pub fn allocations() {
    let ways = Contenders::new(server::ready);
    let bare = allocations_per_item(|| ways.bare_stream());
    let ours = allocations_per_item(|| ways.ours_stream());
    // Rounded up: a rare allocation must not disappear.
    count("idle_stream_allocations_per_item", (ours - bare).ceil());
}

/// The allocations of a stream that is read beyond one that is only opened.
fn allocations_per_item<S, E, F>(open: impl Fn() -> F) -> f64
where
    S: Stream + Unpin,
    E: Debug,
    F: Future<Output = Result<S, E>>,
{
    let runtime = tokio();
    let opening = heap(|| drop(runtime.block_on(open()).expect("a stream")));
    let all = heap(|| runtime.block_on(drain(open())));
    (all.allocations as f64 - opening.allocations as f64) / ITEMS as f64
}

async fn drain<S: Stream + Unpin, E: Debug>(open: impl Future<Output = Result<S, E>>) {
    let mut items = open.await.expect("a stream");
    while let Some(item) = items.next().await {
        black_box(item);
    }
}
