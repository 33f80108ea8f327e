//! The cost of one call at a time.

use crate::{
    contenders::Contenders,
    executor::{CALLS, Executor},
    paired::{Group, Side},
    report::Report,
    server,
};

/// Sides that make one call after the other.
struct Calls<'a> {
    group: Group<'a>,
    executor: &'a Executor,
}

impl<'a> Calls<'a> {
    fn new(title: &str, executor: &'a Executor) -> Self {
        Self {
            group: Group::new(title),
            executor,
        }
    }

    fn add<R: 'a>(
        &mut self,
        name: &str,
        bare: impl Into<Option<Side>>,
        mut call: impl AsyncFnMut() -> R + 'a,
    ) -> Side {
        let executor = self.executor;
        let run = move || executor.repeat(&mut call);
        self.group.add(name, bare, CALLS, run)
    }
}

/// Calls that are ready at once.
pub fn ready(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let ways = Contenders::new(server::ready);
    let mut calls = Calls::new(
        "ready at once, on a tokio current-thread runtime",
        &executor,
    );
    let bare = calls.add("bare", None, async || ways.bare().await);
    let ours = calls.add("ours, FuturesTimer", bare, async || ways.ours().await);
    calls.add("ours, watched", bare, async || ways.watched().await);
    calls.add("ours, AsyncIoTimer", bare, async || {
        ways.ours_async_io().await
    });
    let tokio = calls.add("tokio::time::timeout", bare, async || ways.tokio().await);
    let upstream = calls.add("bare, 0.0.25", None, async || ways.bare_upstream().await);
    calls.add("crabllm_core::Retrying 0.0.25", upstream, async || {
        ways.original().await
    });
    calls.add("tower, retry and timeout", bare, ways.tower());
    calls.add("race, fresh futures_timer::Delay", bare, async || {
        ways.naive_futures_timer().await
    });
    calls.add("backon around that race", bare, async || {
        ways.backon().await
    });
    calls.add("race, fresh async_io::Timer", bare, async || {
        ways.naive_async_io().await
    });
    let measured = calls.group.measure(rounds);
    report.section(&measured, ours);
    report.overhead_ratio("ready_vs_tokio_timeout", &measured, ours, tokio);
}

/// Calls that pend once, beside those of tokio.
pub fn armed_on_tokio(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let ways = Contenders::new(server::once);
    let mut calls = Calls::new("pends once, on a tokio current-thread runtime", &executor);
    let bare = calls.add("bare", None, async || ways.bare().await);
    let ours = calls.add("ours, FuturesTimer", bare, async || ways.ours().await);
    let tokio = calls.add("tokio::time::timeout", bare, async || ways.tokio().await);
    let upstream = calls.add("bare, 0.0.25", None, async || ways.bare_upstream().await);
    let original = calls.add("crabllm_core::Retrying 0.0.25", upstream, async || {
        ways.original().await
    });
    calls.add("tower, retry and timeout", bare, ways.tower());
    let floor = calls.add("floor: clock, two locks, waker", bare, async || {
        ways.floor().await
    });
    let measured = calls.group.measure(rounds);
    report.section(&measured, ours);
    report.overhead_ratio("armed_vs_tokio_timeout", &measured, ours, tokio);
    report.overhead_ratio("armed_vs_floor", &measured, ours, floor);
    report.overhead_ratio("armed_vs_original", &measured, ours, original);
}

/// Calls that pend once, timed by `futures-timer`.
pub fn armed_with_futures_timer(rounds: usize, report: &mut Report) {
    let executor = Executor::Futures;
    let ways = Contenders::new(server::once);
    let mut calls = Calls::new("pends once, on futures::executor::block_on", &executor);
    let bare = calls.add("bare", None, async || ways.bare().await);
    let ours = calls.add("ours, FuturesTimer", bare, async || ways.ours().await);
    calls.add("ours, watched", bare, async || ways.watched().await);
    let naive = calls.add("race, fresh futures_timer::Delay", bare, async || {
        ways.naive_futures_timer().await
    });
    calls.add("backon around that race", bare, async || {
        ways.backon().await
    });
    let measured = calls.group.measure(rounds);
    report.section(&measured, ours);
    report.overhead_ratio("armed_vs_naive_futures_timer", &measured, ours, naive);
}

/// Calls that pend once, timed by `async-io`.
pub fn armed_with_async_io(rounds: usize, report: &mut Report) {
    let executor = Executor::Futures;
    let ways = Contenders::new(server::once);
    let mut calls = Calls::new(
        "pends once, on futures::executor::block_on, timed by async-io",
        &executor,
    );
    let bare = calls.add("bare", None, async || ways.bare().await);
    let ours = calls.add("ours, AsyncIoTimer", bare, async || {
        ways.ours_async_io().await
    });
    let naive = calls.add("race, fresh async_io::Timer", bare, async || {
        ways.naive_async_io().await
    });
    let measured = calls.group.measure(rounds);
    report.section(&measured, ours);
    report.overhead_ratio("armed_vs_naive_async_io", &measured, ours, naive);
}
