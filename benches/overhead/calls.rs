//! The cost of one call at a time.

use crate::{
    contenders::{Contenders, tokio},
    paired::{Side, measure},
    ratio,
    server::{self, Pace},
};
use futures::executor::block_on;
use std::{hint::black_box, pin::pin};

/// The calls of one entry into an executor.
pub const CALLS: usize = 1_000;

/// Makes [`CALLS`] calls, one after the other.
pub async fn repeat<R>(mut call: impl AsyncFnMut() -> R) {
    for _ in 0..CALLS {
        let call = pin!(call());
        black_box(call.await);
    }
}

/// Calls that are ready at once.
pub fn ready(rounds: usize) {
    let runtime = tokio();
    let ways = Contenders::new(server::ready);
    let [bare, ours, timeout] = measure(
        "ready at once",
        rounds,
        [
            Side::new("bare", CALLS, || {
                runtime.block_on(repeat(async || ways.bare().await))
            }),
            Side::new("ours", CALLS, || {
                runtime.block_on(repeat(async || ways.ours().await))
            }),
            Side::new("tokio", CALLS, || {
                runtime.block_on(repeat(async || ways.tokio().await))
            }),
        ],
    );
    let ours = ours.beyond(&bare);
    ratio("ready_vs_tokio_timeout", ours.over(&timeout.beyond(&bare)));
}

/// Calls that pend once, on tokio.
pub fn armed_on_tokio(rounds: usize) {
    let runtime = tokio();
    let ways = Contenders::new(server::once);
    let [bare, ours, timeout, floor, bare_upstream, original] = measure(
        "pending once, on tokio",
        rounds,
        [
            Side::new("bare", CALLS, || {
                runtime.block_on(repeat(async || ways.bare().await))
            }),
            Side::new("ours", CALLS, || {
                runtime.block_on(repeat(async || ways.ours().await))
            }),
            Side::new("tokio", CALLS, || {
                runtime.block_on(repeat(async || ways.tokio().await))
            }),
            Side::new("floor", CALLS, || {
                runtime.block_on(repeat(async || ways.floor().await))
            }),
            Side::new("bare, 0.0.25", CALLS, || {
                runtime.block_on(repeat(async || ways.bare_upstream().await))
            }),
            Side::new("original, 0.0.25", CALLS, || {
                runtime.block_on(repeat(async || ways.original().await))
            }),
        ],
    );
    let ours = ours.beyond(&bare);
    ratio("armed_vs_tokio_timeout", ours.over(&timeout.beyond(&bare)));
    ratio("armed_vs_floor", ours.over(&floor.beyond(&bare)));
    let original = original.beyond(&bare_upstream);
    ratio("armed_vs_original", ours.over(&original));
}

/// Calls that pend once, timed by `futures-timer`.
pub fn armed_with_futures_timer(rounds: usize) {
    let ways = Contenders::new(server::once);
    let ours = Side::new("ours", CALLS, || {
        block_on(repeat(async || ways.ours().await))
    });
    let naive = Side::new("naive race", CALLS, || {
        block_on(repeat(async || ways.naive_futures_timer().await))
    });
    armed_vs_naive("armed_vs_naive_futures_timer", rounds, &ways, ours, naive);
}

/// Calls that pend once, timed by `async-io`.
pub fn armed_with_async_io(rounds: usize) {
    let ways = Contenders::new(server::once);
    let ours = Side::new("ours", CALLS, || {
        block_on(repeat(async || ways.ours_async_io().await))
    });
    let naive = Side::new("naive race", CALLS, || {
        block_on(repeat(async || ways.naive_async_io().await))
    });
    armed_vs_naive("armed_vs_naive_async_io", rounds, &ways, ours, naive);
}

fn armed_vs_naive<'a, P: Pace>(
    figure: &'static str,
    rounds: usize,
    ways: &'a Contenders<P>,
    ours: Side<'a>,
    naive: Side<'a>,
) {
    let bare = Side::new("bare", CALLS, || {
        block_on(repeat(async || ways.bare().await))
    });
    let [bare, ours, naive] = measure(figure, rounds, [bare, ours, naive]);
    ratio(figure, ours.beyond(&bare).over(&naive.beyond(&bare)));
}
