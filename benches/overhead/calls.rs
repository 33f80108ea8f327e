//! The cost of one call at a time.

use crate::{
    TIMEOUT,
    executor::{CALLS, Executor},
    paired::{Group, Measured, Side},
    peers,
    report::Report,
    server::{Once, Pace, Ready, Server, request, upstream_request},
};
use crabllm_retry::crabllm_core_0_0_25 as upstream;
use crabllm_retry::{AsyncIoTimer, Policy, RetryBudget, Retrying, crabllm_core_0_0_19::Provider};
use std::{
    future::poll_fn,
    hint::black_box,
    pin::pin,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::time::timeout;
use tower::{Service, ServiceExt};

/// A group whose sides make one call after the other.
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

    fn bare<P: Pace + Copy>(&mut self, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        self.add("bare", None, async move || {
            server.chat_completion(&request).await
        })
    }

    fn ours<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (provider, request) = (Retrying::new(Server(pace)), request());
        self.add("ours, FuturesTimer", bare, async move || {
            provider.chat_completion(&request).await
        })
    }

    /// Ours with all that costs something while a call goes well: an observer,
    /// a budget and a deadline.
    fn watched<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let policy = Policy::default().deadline(2 * TIMEOUT);
        let provider = Retrying::new(Server(pace))
            .policy(policy)
            .budget(RetryBudget::default())
            .observe(|event| {
                black_box(event);
            });
        let request = request();
        self.add("ours, watched", bare, async move || {
            provider.chat_completion(&request).await
        })
    }

    fn ours_async_io<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let provider = Retrying::with_timer(Server(pace), AsyncIoTimer);
        let request = request();
        self.add("ours, AsyncIoTimer", bare, async move || {
            provider.chat_completion(&request).await
        })
    }

    fn tokio<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        self.add("tokio::time::timeout", bare, async move || {
            timeout(TIMEOUT, server.chat_completion(&request)).await
        })
    }

    /// The least that a shared list of timeouts adds to a call that pends: the clock,
    /// the list's lock to add an entry and to remove it, and a waker in between.
    fn floor<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        let list = Mutex::new(());
        self.add("floor: clock, two locks, waker", bare, async move || {
            let mut call = pin!(server.chat_completion(&request));
            let mut waker = None;
            poll_fn(|cx| {
                let poll = call.as_mut().poll(cx);
                if poll.is_pending() {
                    black_box(Instant::now());
                    waker = black_box(Some(cx.waker().clone()));
                } else {
                    drop(waker.take());
                }
                drop(black_box(list.lock()));
                poll
            })
            .await
        })
    }

    /// The original, less a bare call of its own release.
    fn original<P: Pace + Copy>(&mut self, pace: P) -> Side {
        let (server, request) = (Server(pace), upstream_request());
        let bare = self.add("bare, 0.0.25", None, async move || {
            upstream::Provider::chat_completion(&server, &request).await
        });
        let provider = upstream::Retrying::new(Server(pace));
        let request = upstream_request();
        self.add("crabllm_core::Retrying 0.0.25", bare, async move || {
            upstream::Provider::chat_completion(&provider, &request).await
        })
    }

    fn tower<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (mut service, request) = (peers::tower(Server(pace)), Arc::new(request()));
        self.add("tower, retry and timeout", bare, async move || {
            let service = service.ready().await?;
            service.call(request.clone()).await
        })
    }

    fn naive_futures_timer<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        self.add("race, fresh futures_timer::Delay", bare, async move || {
            peers::naive_futures_timer(server.chat_completion(&request), TIMEOUT).await
        })
    }

    fn backon<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        self.add("backon around that race", bare, async move || {
            peers::backon(&server, &request).await
        })
    }

    fn naive_async_io<P: Pace>(&mut self, bare: Side, pace: P) -> Side {
        let (server, request) = (Server(pace), request());
        self.add("race, fresh async_io::Timer", bare, async move || {
            peers::naive_async_io(server.chat_completion(&request), TIMEOUT).await
        })
    }

    fn measure(self, rounds: usize) -> Measured {
        self.group.measure(rounds)
    }
}

/// Calls that are ready at once.
pub fn ready(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let mut calls = Calls::new(
        "ready at once, on a tokio current-thread runtime",
        &executor,
    );
    let bare = calls.bare(Ready);
    let ours = calls.ours(bare, Ready);
    calls.watched(bare, Ready);
    calls.ours_async_io(bare, Ready);
    let tokio = calls.tokio(bare, Ready);
    calls.original(Ready);
    calls.tower(bare, Ready);
    calls.naive_futures_timer(bare, Ready);
    calls.backon(bare, Ready);
    calls.naive_async_io(bare, Ready);
    let measured = calls.measure(rounds);
    report.section(&measured, ours);
    report.ratio(
        "ready_vs_tokio_timeout",
        measured.overhead_ratio(ours, tokio),
    );
}

/// Calls that pend once, ours and those of tokio.
pub fn armed_on_tokio(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let mut calls = Calls::new("pends once, on a tokio current-thread runtime", &executor);
    let sides = armed_beside_tokio(&mut calls);
    let floor = calls.floor(sides.bare, Once);
    let measured = calls.measure(rounds);
    report.section(&measured, sides.ours);
    report.ratio(
        "armed_vs_tokio_timeout",
        measured.overhead_ratio(sides.ours, sides.tokio),
    );
    report.ratio("armed_vs_floor", measured.overhead_ratio(sides.ours, floor));
    report.ratio(
        "armed_vs_original",
        measured.overhead_ratio(sides.ours, sides.original),
    );
}

/// The same, without what the runtime does between two polls: it looks at its
/// timers, which takes longer when there are some.
pub fn armed_on_impatient_tokio(rounds: usize, report: &mut Report) {
    let executor = Executor::impatient();
    let mut calls = Calls::new(
        "pends once, on a tokio current-thread runtime, polled again before that turns",
        &executor,
    );
    let sides = armed_beside_tokio(&mut calls);
    report.section(&calls.measure(rounds), sides.ours);
}

struct BesideTokio {
    bare: Side,
    ours: Side,
    tokio: Side,
    original: Side,
}

fn armed_beside_tokio(calls: &mut Calls<'_>) -> BesideTokio {
    let bare = calls.bare(Once);
    let ours = calls.ours(bare, Once);
    let tokio = calls.tokio(bare, Once);
    let original = calls.original(Once);
    calls.tower(bare, Once);
    BesideTokio {
        bare,
        ours,
        tokio,
        original,
    }
}

/// Calls that pend once, timed by `futures-timer`.
pub fn armed_with_futures_timer(rounds: usize, report: &mut Report) {
    let executor = Executor::Futures;
    let mut calls = Calls::new("pends once, on futures::executor::block_on", &executor);
    let bare = calls.bare(Once);
    let ours = calls.ours(bare, Once);
    calls.watched(bare, Once);
    let naive = calls.naive_futures_timer(bare, Once);
    calls.backon(bare, Once);
    let measured = calls.measure(rounds);
    report.section(&measured, ours);
    report.ratio(
        "armed_vs_naive_futures_timer",
        measured.overhead_ratio(ours, naive),
    );
}

/// Calls that pend once, timed by `async-io`.
pub fn armed_with_async_io(rounds: usize, report: &mut Report) {
    let executor = Executor::Futures;
    let mut calls = Calls::new(
        "pends once, on futures::executor::block_on, timed by async-io",
        &executor,
    );
    let bare = calls.bare(Once);
    let ours = calls.ours_async_io(bare, Once);
    let naive = calls.naive_async_io(bare, Once);
    let measured = calls.measure(rounds);
    report.section(&measured, ours);
    report.ratio(
        "armed_vs_naive_async_io",
        measured.overhead_ratio(ours, naive),
    );
}
