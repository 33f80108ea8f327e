//! One wrapper, shared by two threads.

use crate::{
    contenders::Contenders,
    paired::{Side, measure},
    ratio, server,
};
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
pub fn throughput() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    // Tasks of the runtime cannot borrow.
    let ways: &'static _ = Box::leak(Box::new(Contenders::new(server::once)));
    let [ours, timeout] = measure(
        "pending once, on two threads",
        [
            Side::new("ours", 2 * CALLS, || {
                on_workers(&runtime, || calls(|| ways.ours()))
            }),
            Side::new("tokio", 2 * CALLS, || {
                on_workers(&runtime, || calls(|| ways.tokio()))
            }),
        ],
    );
    ratio("two_threads_vs_tokio", timeout.over(&ours));
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
