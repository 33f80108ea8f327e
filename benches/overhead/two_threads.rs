//! One wrapper, shared by two threads.

use crate::{
    TIMEOUT,
    paired::Group,
    report::Report,
    server::{Once, Server, request},
};
use crabllm_retry::{Retrying, crabllm_core_0_0_19::Provider};
use futures::executor::block_on;
use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::timeout,
};

/// How many calls each of the two makes.
const CALLS: usize = 20_000;

/// How many calls a second two threads get out of one wrapper.
pub fn throughput(rounds: usize, report: &mut Report) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime without I/O");
    let server = Arc::new(Server(Once));
    let ours = Arc::new(Retrying::new(Server(Once)));
    let mut group = Group::new("pends once, two threads at it, on a two-worker tokio runtime");
    let bare = group.add("bare", None, 2 * CALLS, || {
        on_workers(&runtime, || calls(server.clone()))
    });
    let wrapped = group.add("ours, FuturesTimer", bare, 2 * CALLS, || {
        on_workers(&runtime, || calls(ours.clone()))
    });
    let tokio = group.add("tokio::time::timeout", bare, 2 * CALLS, || {
        on_workers(&runtime, || bounded_calls(server.clone()))
    });
    let bare_threads = group.add("bare, two plain threads", None, 2 * CALLS, || {
        on_threads(|| calls(server.clone()))
    });
    group.add("ours, two plain threads", bare_threads, 2 * CALLS, || {
        on_threads(|| calls(ours.clone()))
    });
    let measured = group.measure(rounds);
    report.section(&measured, wrapped);
    report.ratio("two_threads_vs_tokio", Some(measured.ratio(tokio, wrapped)));
}

/// Runs two tasks at the same time, each on a worker of its own.
fn on_workers<F: Future<Output = ()> + Send + 'static>(runtime: &Runtime, task: impl Fn() -> F) {
    let workers = Arc::new(Mutex::new([None; 2]));
    let tasks = [0, 1].map(|side| {
        let (workers, task) = (workers.clone(), task());
        runtime.spawn(async move {
            apart(&workers, side).await;
            task.await;
        })
    });
    for task in tasks {
        block_on(task).expect("a task that does not panic");
    }
}

/// Ends when the other task has begun on another worker. It gives way while it
/// waits: a worker that is blocked may keep the other task in its queue.
async fn apart(workers: &Mutex<[Option<ThreadId>; 2]>, side: usize) {
    loop {
        let here = thread::current().id();
        let other = {
            let mut workers = workers.lock().expect("a lock that no panic has poisoned");
            workers[side] = Some(here);
            workers[1 - side]
        };
        if other.is_some_and(|other| other != here) {
            return;
        }
        yield_now().await;
    }
}

/// Runs two threads at the same time, each with an executor of its own.
fn on_threads<F: Future<Output = ()>>(task: impl Fn() -> F + Sync) {
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| block_on(task()));
        }
    });
}

async fn calls(provider: Arc<impl Provider>) {
    let request = request();
    for _ in 0..CALLS {
        black_box(provider.chat_completion(&request).await).expect("an answer");
    }
}

async fn bounded_calls(provider: Arc<impl Provider>) {
    let request = request();
    for _ in 0..CALLS {
        black_box(timeout(TIMEOUT, provider.chat_completion(&request)).await)
            .expect("in time")
            .expect("an answer");
    }
}
