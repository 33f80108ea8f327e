//! One wrapper, shared by two threads.

use crate::{contenders::Contenders, paired::Group, report::Report, server};
use futures::executor::block_on;
use std::{
    hint::black_box,
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};

/// The calls of each thread.
const CALLS: usize = 20_000;

/// Measures how many calls a second two threads get out of one wrapper.
pub fn throughput(rounds: usize, report: &mut Report) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime without I/O");
    // Tasks of the runtime cannot borrow.
    let ways: &'static _ = Box::leak(Box::new(Contenders::new(server::once)));
    let mut group = Group::new("pends once, two threads at it, on a two-worker tokio runtime");
    let bare = group.add("bare", None, 2 * CALLS, || {
        on_workers(&runtime, || calls(|| ways.bare()))
    });
    let ours = group.add("ours, FuturesTimer", bare, 2 * CALLS, || {
        on_workers(&runtime, || calls(|| ways.ours()))
    });
    let tokio = group.add("tokio::time::timeout", bare, 2 * CALLS, || {
        on_workers(&runtime, || calls(|| ways.tokio()))
    });
    let measured = group.measure(rounds);
    report.section(&measured, ours);
    report.ratio("two_threads_vs_tokio", measured.ratio(tokio, ours));
}

async fn calls<F: Future>(call: impl Fn() -> F) {
    for _ in 0..CALLS {
        black_box(call().await);
    }
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

/// Returns when the other task runs on another worker. Yields until then: a blocked worker
/// may keep the other task in its queue.
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
