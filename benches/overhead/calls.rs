//! The cost of one call at a time.

use crate::{
    contenders::{Contenders, tokio},
    paired::{Side, measure},
    ratio, server,
};
use futures::executor::block_on;
use std::{hint::black_box, pin::pin};
use tokio::runtime::Runtime;

/// The calls of one entry into an executor.
pub const CALLS: usize = 1_000;

/// Makes [`CALLS`] calls, one after the other.
pub async fn repeat<R>(call: impl AsyncFn() -> R) {
    for _ in 0..CALLS {
        let call = pin!(call());
        black_box(call.await);
    }
}

/// A side that makes its calls on tokio.
fn on_tokio<'a, R>(
    name: &'static str,
    runtime: &'a Runtime,
    call: impl AsyncFn() -> R + 'a,
) -> Side<'a> {
    Side::new(name, CALLS, move || runtime.block_on(repeat(&call)))
}

/// A side that makes its calls without a runtime.
fn alone<'a, R>(name: &'static str, call: impl AsyncFn() -> R + 'a) -> Side<'a> {
    Side::new(name, CALLS, move || block_on(repeat(&call)))
}

/// Calls that are ready at once.
pub fn ready() {
    let runtime = tokio();
    let ways = Contenders::new(server::ready);
    let [bare, ours, timeout] = measure(
        "ready at once",
        [
            on_tokio("bare", &runtime, async || ways.bare().await),
            on_tokio("ours", &runtime, async || ways.ours().await),
            on_tokio("tokio", &runtime, async || ways.tokio().await),
        ],
    );
    let ours = ours.beyond(&bare);
    ratio("ready_vs_tokio_timeout", ours.over(&timeout.beyond(&bare)));
}

/// Calls that pend once, on tokio.
pub fn armed_on_tokio() {
    let runtime = tokio();
    let ways = Contenders::new(server::once);
    let [
        bare,
        ours,
        everything,
        timeout,
        floor,
        bare_upstream,
        original,
    ] = measure(
        "pending once, on tokio",
        [
            on_tokio("bare", &runtime, async || ways.bare().await),
            on_tokio("ours", &runtime, async || ways.ours().await),
            on_tokio("everything", &runtime, async || ways.everything().await),
            on_tokio("tokio", &runtime, async || ways.tokio().await),
            on_tokio("floor", &runtime, async || ways.floor().await),
            on_tokio("bare, 0.0.25", &runtime, async || {
                ways.bare_upstream().await
            }),
            on_tokio("original, 0.0.25", &runtime, async || ways.original().await),
        ],
    );
    let ours = ours.beyond(&bare);
    ratio("armed_vs_tokio_timeout", ours.over(&timeout.beyond(&bare)));
    ratio("armed_vs_floor", ours.over(&floor.beyond(&bare)));
    let original = original.beyond(&bare_upstream);
    ratio("armed_vs_original", ours.over(&original));
    let everything = everything.beyond(&bare);
    ratio("armed_everything_vs_armed", everything.over(&ours));
}

/// Calls that pend once, and naive races of the same calls.
pub fn armed_vs_naive() {
    let ways = Contenders::new(server::once);
    let compare = |figure, ours, naive| {
        let sides = [alone("bare", async || ways.bare().await), ours, naive];
        let [bare, ours, naive] = measure(figure, sides);
        ratio(figure, ours.beyond(&bare).over(&naive.beyond(&bare)));
    };
    compare(
        "armed_vs_naive_futures_timer",
        alone("ours", async || ways.ours().await),
        alone("naive race", async || ways.naive_futures_timer().await),
    );
    compare(
        "armed_vs_naive_async_io",
        alone("ours", async || ways.ours_async_io().await),
        alone("naive race", async || ways.naive_async_io().await),
    );
}
