//! Streams whose silence is bounded.

use crate::{
    TIMEOUT,
    allocator::heap,
    executor::Executor,
    paired::Group,
    report::Report,
    server::{ITEMS, Ready, Server, request, upstream_request},
};
use crabllm_retry::crabllm_core_0_0_25 as upstream;
use crabllm_retry::{Retrying, crabllm_core_0_0_19::Provider};
use futures::{Stream, StreamExt};
use std::hint::black_box;
use tokio::time::timeout;

/// The cost of the limit for each item that is ready.
pub fn cost(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let (server, request) = (Server(Ready), request());
    let upstream_request = upstream_request();
    let ours = Retrying::new(Server(Ready));
    let original = upstream::Retrying::new(Server(Ready));

    let mut group = Group::new("a stream's item that is ready, on a tokio current-thread runtime");
    let bare = group.add("bare", None, ITEMS, || {
        executor.block_on(drain(server.chat_completion_stream(&request)))
    });
    let wrapped = group.add("ours, FuturesTimer", bare, ITEMS, || {
        executor.block_on(drain(ours.chat_completion_stream(&request)))
    });
    group.add("tokio::time::timeout", bare, ITEMS, || {
        executor.block_on(drain_in_time(server.chat_completion_stream(&request)))
    });
    let bare_upstream = group.add("bare, 0.0.25", None, ITEMS, || {
        executor.block_on(drain(upstream::Provider::chat_completion_stream(
            &server,
            &upstream_request,
        )))
    });
    group.add(
        "crabllm_core::Retrying 0.0.25",
        bare_upstream,
        ITEMS,
        || {
            executor.block_on(drain(upstream::Provider::chat_completion_stream(
                &original,
                &upstream_request,
            )))
        },
    );
    let measured = group.measure(rounds);
    report.section(&measured, wrapped);
    report.count("idle_stream_ns_per_item", measured.overhead(wrapped));
}

/// The allocations of the limit for each item that is ready.
pub fn allocations(report: &mut Report) {
    let (server, request) = (Server(Ready), request());
    let ours = Retrying::new(Server(Ready));
    let bare = allocations_per_item(|| server.chat_completion_stream(&request));
    let ours = allocations_per_item(|| ours.chat_completion_stream(&request));
    report.values(
        "allocations for each of a stream's 10,000 items, but for its opening",
        [("bare", bare), ("ours, FuturesTimer", ours)],
    );
    report.count_up("idle_stream_allocations_per_item", ours - bare);
}

/// The allocations of a stream that is read beyond one that is only opened.
fn allocations_per_item<S, E, F>(open: impl Fn() -> F) -> f64
where
    S: Stream + Unpin,
    E: std::fmt::Debug,
    F: Future<Output = Result<S, E>>,
{
    let executor = Executor::tokio();
    let opening = heap(|| drop(executor.block_on(open()).expect("a stream")));
    let all = heap(|| executor.block_on(drain(open())));
    (all.allocations as f64 - opening.allocations as f64) / ITEMS as f64
}

async fn drain<S, E>(open: impl Future<Output = Result<S, E>>)
where
    S: Stream + Unpin,
    E: std::fmt::Debug,
{
    let mut items = open.await.expect("a stream");
    while let Some(item) = items.next().await {
        black_box(item);
    }
}

async fn drain_in_time<S, E>(open: impl Future<Output = Result<S, E>>)
where
    S: Stream + Unpin,
    E: std::fmt::Debug,
{
    let mut items = open.await.expect("a stream");
    while let Some(item) = timeout(TIMEOUT, items.next()).await.expect("in time") {
        black_box(item);
    }
}
