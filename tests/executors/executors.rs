//! The executors under test. Each runs the script to its end, and beside it
//! the tasks that the script spawns.

use futures::{
    FutureExt, StreamExt,
    channel::mpsc::UnboundedReceiver,
    executor::{LocalPool, ThreadPool},
    future::{BoxFuture, join},
    task::{LocalSpawnExt, SpawnExt},
};
use std::{
    convert::identity,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

/// A task of an executor.
pub type Task = BoxFuture<'static, ()>;
pub type Tasks = UnboundedReceiver<Task>;
pub type Run = fn(Task, Tasks);

pub fn smol_global(script: Task, mut tasks: Tasks) {
    smol::spawn(async move {
        while let Some(task) = tasks.next().await {
            smol::spawn(task).detach();
        }
    })
    .detach();
    smol::block_on(smol::spawn(script));
}

pub fn smol_local(script: Task, mut tasks: Tasks) {
    let executor = Rc::new(smol::LocalExecutor::new());
    let spawner = executor.clone();
    let spawning = executor.spawn(async move {
        while let Some(task) = tasks.next().await {
            spawner.spawn(task).detach();
        }
    });
    smol::block_on(executor.run(async {
        executor.spawn(script).await;
        // The task has the executor, which has the task.
        spawning.cancel().await;
    }));
}

pub fn async_std(script: Task, mut tasks: Tasks) {
    async_std::task::spawn(async move {
        while let Some(task) = tasks.next().await {
            async_std::task::spawn(task);
        }
    });
    async_std::task::block_on(async_std::task::spawn(script));
}

pub fn tokio_current_thread_without_drivers(script: Task, tasks: Tasks) {
    tokio(tokio::runtime::Builder::new_current_thread(), script, tasks);
}

pub fn tokio_multi_thread(script: Task, tasks: Tasks) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2);
    tokio(builder, script, tasks);
}

/// A runtime whose timers and sockets are off.
fn tokio(mut builder: tokio::runtime::Builder, script: Task, mut tasks: Tasks) {
    let runtime = builder.build().unwrap();
    runtime.spawn(async move {
        while let Some(task) = tasks.next().await {
            tokio::spawn(task);
        }
    });
    runtime.block_on(runtime.spawn(script)).unwrap();
}

pub fn futures_block_on(script: Task, tasks: Tasks) {
    futures::executor::block_on(together(script, tasks));
}

pub fn futures_local_pool(script: Task, mut tasks: Tasks) {
    let mut pool = LocalPool::new();
    let spawner = pool.spawner();
    let spawning = spawner.clone();
    spawner
        .spawn_local(async move {
            while let Some(task) = tasks.next().await {
                spawning.spawn_local(task).unwrap();
            }
        })
        .unwrap();
    let script = spawner.spawn_local_with_handle(script).unwrap();
    pool.run_until(script);
}

pub fn futures_thread_pool(script: Task, mut tasks: Tasks) {
    let pool = ThreadPool::builder().pool_size(2).create().unwrap();
    let spawning = pool.clone();
    pool.spawn_ok(async move {
        while let Some(task) = tasks.next().await {
            spawning.spawn_ok(task);
        }
    });
    futures::executor::block_on(pool.spawn_with_handle(script).unwrap());
}

pub fn pollster(script: Task, tasks: Tasks) {
    pollster::block_on(together(script, tasks));
}

pub fn async_executor_on_own_threads(script: Task, mut tasks: Tasks) {
    let executor = Arc::new(async_executor::Executor::new());
    let spawner = executor.clone();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| futures::executor::block_on(executor.run(stopped.recv())));
        }
        let spawning = executor.spawn(async move {
            while let Some(task) = tasks.next().await {
                spawner.spawn(task).detach();
            }
        });
        futures::executor::block_on(async {
            executor.spawn(script).await;
            // The task has the executor, which has the task.
            spawning.cancel().await;
        });
        drop(stop);
    });
}

pub fn another_executor_at_every_wake(script: Task, tasks: Tasks) {
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

/// Polls once, and ends when the future is done or wants to be polled again.
async fn until_woken(future: &mut BoxFuture<'static, ()>) -> bool {
    let mut polled = false;
    poll_fn(|cx: &mut Context<'_>| {
        if polled {
            return Poll::Ready(false);
        }
        polled = true;
        future.poll_unpin(cx).map(|()| true)
    })
    .await
}

/// Script and tasks as one future, for executors that take only one.
fn together(script: Task, tasks: Tasks) -> BoxFuture<'static, ()> {
    let tasks = tasks.for_each_concurrent(None, identity::<Task>);
    join(script, tasks).map(drop).boxed()
}
