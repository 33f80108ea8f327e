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
pub async fn repeat<F: Future>(call: impl Fn() -> F) {
    for _ in 0..CALLS {
        let call = pin!(call());
        black_box(call.await);
    }
}

/// A side that makes its calls on tokio.
fn on_tokio<'a, F: Future + 'a>(
    name: &'static str,
    runtime: &'a Runtime,
    call: impl Fn() -> F + 'a,
) -> Side<'a> {
    Side::new(name, CALLS, move || runtime.block_on(repeat(&call)))
}

/// A side that makes its calls without a runtime.
fn alone<'a, F: Future + 'a>(name: &'static str, call: impl Fn() -> F + 'a) -> Side<'a> {
    Side::new(name, CALLS, move || block_on(repeat(&call)))
}

/// Calls that are ready at once.
pub fn ready(rounds: usize) {
    let runtime = tokio();
    let ways = Contenders::new(server::ready);
    let [bare, ours, timeout] = measure(
        "ready at once",
        rounds,
        [
            on_tokio("bare", &runtime, || ways.bare()),
            on_tokio("ours", &runtime, || ways.ours()),
            on_tokio("tokio", &runtime, || ways.tokio()),
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
            on_tokio("bare", &runtime, || ways.bare()),
            on_tokio("ours", &runtime, || ways.ours()),
            on_tokio("tokio", &runtime, || ways.tokio()),
            on_tokio("floor", &runtime, || ways.floor()),
            on_tokio("bare, 0.0.25", &runtime, || ways.bare_upstream()),
            on_tokio("original, 0.0.25", &runtime, || ways.original()),
        ],
    );
    let ours = ours.beyond(&bare);
    ratio("armed_vs_tokio_timeout", ours.over(&timeout.beyond(&bare)));
    ratio("armed_vs_floor", ours.over(&floor.beyond(&bare)));
    let original = original.beyond(&bare_upstream);
    ratio("armed_vs_original", ours.over(&original));
}

/// Calls that pend once, and naive races of the same calls.
pub fn armed_vs_naive(rounds: usize) {
    let ways = Contenders::new(server::once);
    let compare = |figure, ours, naive| {
        let sides = [alone("bare", || ways.bare()), ours, naive];
        let [bare, ours, naive] = measure(figure, rounds, sides);
        ratio(figure, ours.beyond(&bare).over(&naive.beyond(&bare)));
    };
    compare(
        "armed_vs_naive_futures_timer",
        alone("ours", || ways.ours()),
        alone("naive race", || ways.naive_futures_timer()),
    );
    compare(
        "armed_vs_naive_async_io",
        alone("ours", || ways.ours_async_io()),
        alone("naive race", || ways.naive_async_io()),
    );
}
