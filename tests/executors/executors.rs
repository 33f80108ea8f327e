//! The executors under test. Each runs the script to its end, and the tasks that the
//! script spawns beside it.

use futures::{
    FutureExt, StreamExt,
    channel::mpsc::UnboundedReceiver,
    executor::{LocalPool, ThreadPool},
    future::{BoxFuture, join},
    task::{LocalSpawnExt, SpawnExt},
};
use std::{convert::identity, future::poll_fn, rc::Rc, sync::Arc, task::Poll, thread};

/// A task of an executor.
pub type Task = BoxFuture<'static, ()>;
pub type Tasks = UnboundedReceiver<Task>;
pub type Run = fn(Task, Tasks);

pub const EXECUTORS: [(&str, Run); 11] = [
    ("smol", smol_global),
    ("smol's LocalExecutor", smol_local),
    ("async-std", async_std),
    ("tokio on one thread", tokio_current_thread_without_drivers),
    ("tokio on two threads", tokio_multi_thread),
    ("futures' block_on", futures_block_on),
    ("futures' LocalPool", futures_local_pool),
    ("futures' ThreadPool", futures_thread_pool),
    ("pollster", pollster),
    ("async-executor", async_executor_on_own_threads),
    ("one after the other", another_executor_at_every_wake),
];

fn smol_global(script: Task, tasks: Tasks) {
    smol::spawn(spawn_each(tasks, |task| smol::spawn(task).detach())).detach();
    smol::block_on(smol::spawn(script));
}

fn smol_local(script: Task, tasks: Tasks) {
    let executor = Rc::new(smol::LocalExecutor::new());
    let spawner = executor.clone();
    let spawning = executor.spawn(spawn_each(tasks, move |task| spawner.spawn(task).detach()));
    smol::block_on(executor.run(async {
        executor.spawn(script).await;
        // This task holds the executor, which holds the task.
        spawning.cancel().await;
    }));
}

fn async_std(script: Task, tasks: Tasks) {
    async_std::task::spawn(spawn_each(tasks, |task| drop(async_std::task::spawn(task))));
    async_std::task::block_on(async_std::task::spawn(script));
}

fn tokio_current_thread_without_drivers(script: Task, tasks: Tasks) {
    tokio(tokio::runtime::Builder::new_current_thread(), script, tasks);
}

fn tokio_multi_thread(script: Task, tasks: Tasks) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2);
    tokio(builder, script, tasks);
}

/// A runtime with neither timers nor sockets.
fn tokio(mut builder: tokio::runtime::Builder, script: Task, tasks: Tasks) {
    let runtime = builder.build().unwrap();
    runtime.spawn(spawn_each(tasks, |task| drop(tokio::spawn(task))));
    runtime.block_on(runtime.spawn(script)).unwrap();
}

fn futures_block_on(script: Task, tasks: Tasks) {
    futures::executor::block_on(together(script, tasks));
}

fn futures_local_pool(script: Task, tasks: Tasks) {
    let mut pool = LocalPool::new();
    let spawner = pool.spawner();
    let spawning = spawn_each(tasks, move |task| spawner.spawn_local(task).unwrap());
    pool.spawner().spawn_local(spawning).unwrap();
    let script = pool.spawner().spawn_local_with_handle(script).unwrap();
    pool.run_until(script);
}

fn futures_thread_pool(script: Task, tasks: Tasks) {
    let pool = ThreadPool::builder().pool_size(2).create().unwrap();
    let spawner = pool.clone();
    pool.spawn_ok(spawn_each(tasks, move |task| spawner.spawn_ok(task)));
    futures::executor::block_on(pool.spawn_with_handle(script).unwrap());
}

fn pollster(script: Task, tasks: Tasks) {
    pollster::block_on(together(script, tasks));
}

fn async_executor_on_own_threads(script: Task, tasks: Tasks) {
    let executor = Arc::new(async_executor::Executor::new());
    let spawner = executor.clone();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| futures::executor::block_on(executor.run(stopped.recv())));
        }
        let spawning = executor.spawn(spawn_each(tasks, move |task| spawner.spawn(task).detach()));
        futures::executor::block_on(async {
            executor.spawn(script).await;
            // This task holds the executor, which holds the task.
            spawning.cancel().await;
        });
        drop(stop);
    });
}

fn another_executor_at_every_wake(script: Task, tasks: Tasks) {
    let mut whole = together(script, tasks);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    loop {
        for executor in 0..5 {
            let turn = until_woken(&mut whole);
            let done = match executor {
                0 => smol::block_on(turn),
                1 => futures::executor::block_on(turn),
                2 => async_std::task::block_on(turn),
                3 => runtime.block_on(turn),
                _ => {
                    thread::scope(|scope| scope.spawn(|| pollster::block_on(turn)).join().unwrap())
                }
            };
            if done {
                return;
            }
        }
    }
}

/// Spawns the tasks until the script can send no more.
async fn spawn_each(mut tasks: Tasks, spawn: impl Fn(Task)) {
    while let Some(task) = tasks.next().await {
        spawn(task);
    }
}

/// Polls once and ends when the future is done or wakes this task. Returns whether it is
/// done.
async fn until_woken(future: &mut Task) -> bool {
    let mut polled = false;
    poll_fn(|cx| {
        if polled {
            return Poll::Ready(false);
        }
        polled = true;
        future.poll_unpin(cx).map(|()| true)
    })
    .await
}

/// Joins script and tasks, for executors that run a single future.
fn together(script: Task, tasks: Tasks) -> Task {
    let tasks = tasks.for_each_concurrent(None, identity::<Task>);
    join(script, tasks).map(drop).boxed()
}
