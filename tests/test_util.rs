//! The virtual clock and the scripted provider.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, block_on, request};
use crabllm_retry::{
    Timer,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step, VirtualSleep, VirtualTask, VirtualTimer},
};
use futures::{
    FutureExt,
    channel::oneshot,
    executor::ThreadPool,
    future::{BoxFuture, join, join_all, pending, ready, select},
    task::SpawnExt,
};
use proptest::{collection::vec, prelude::*};
use std::{
    future::poll_fn,
    mem,
    ops::Range,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

fn is_over(sleep: &mut VirtualSleep) -> bool {
    sleep.now_or_never().is_some()
}

fn register(sleep: &mut VirtualSleep, waker: &Waker) {
    let poll = sleep.poll_unpin(&mut Context::from_waker(waker));
    assert!(poll.is_pending());
}

async fn yield_times(times: usize) {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_manual_clock_moves_by_hand_only() {
    let timer = VirtualTimer::manual();
    let begin = timer.now();
    let mut sleep = timer.sleep(SECOND);
    assert!((0..1000).all(|_| !is_over(&mut sleep)));
    timer.advance(SECOND - Duration::from_nanos(1));
    assert!(!is_over(&mut sleep));
    timer.clone().advance(Duration::from_nanos(1));
    assert!(is_over(&mut sleep));
    assert_eq!((timer.elapsed(), timer.now() - begin), (SECOND, SECOND));

    let mut zero = timer.sleep(Duration::ZERO);
    assert!(is_over(&mut zero));
    assert_eq!(timer.sleeping(), 0);
}

/// Sleeps and yields in turn. Only the sleeps take time.
async fn act(timer: VirtualTimer, steps: Vec<(u32, usize)>) {
    let mut expected = Duration::ZERO;
    for (seconds, yields) in steps {
        timer.sleep(seconds * SECOND).await;
        yield_times(yields).await;
        expected += seconds * SECOND;
        assert_eq!(timer.elapsed(), expected);
    }
}

/// The seconds and the yields of several tasks.
fn tasks(yields: Range<usize>) -> impl Strategy<Value = Vec<Vec<(u32, usize)>>> {
    vec(vec((0..5_u32, yields), 1..10), 1..8)
}

proptest! {
    #[test]
    fn the_clock_moves_to_each_deadline_while_all_tasks_are_asleep(tasks in tasks(0..95)) {
        let timer = VirtualTimer::new();
        block_on(join_all(tasks.into_iter().map(|steps| act(timer.clone(), steps))));
        prop_assert_eq!(timer.sleeping(), 0);
    }

    #[test]
    fn the_clock_waits_for_watched_tasks_on_all_threads(tasks in tasks(0..1000)) {
        let timer = VirtualTimer::new();
        let pool = ThreadPool::builder().pool_size(2).create().unwrap();
        let tasks = tasks.into_iter().map(|steps| timer.task(act(timer.clone(), steps)));
        // All are watched before the first one runs.
        let tasks: Vec<_> = tasks.collect();
        let handles = tasks.into_iter().map(|task| pool.spawn_with_handle(task).unwrap());
        block_on(join_all(handles));
        prop_assert_eq!(timer.sleeping(), 0);
    }
}

#[test]
fn making_and_dropping_sleeps_holds_the_clock() {
    const TURNS: usize = 1000;
    let seen = |turn: fn(&VirtualTimer, &mut Vec<VirtualSleep>)| {
        let timer = VirtualTimer::new();
        let later = || timer.sleep(3600 * SECOND);
        let mut kept: Vec<_> = (0..TURNS).map(|_| later()).collect();
        let busy = async {
            for _ in 0..TURNS {
                turn(&timer, &mut kept);
                yield_times(1).await;
            }
            timer.elapsed()
        };
        block_on(join(busy, timer.sleep(SECOND))).0
    };
    let made = seen(|timer, kept| kept.push(timer.sleep(3600 * SECOND)));
    let dropped = seen(|_, kept| drop(kept.pop()));
    let made_and_dropped = seen(|timer, _| drop(timer.sleep(3600 * SECOND)));
    assert_eq!([made, dropped, made_and_dropped], [Duration::ZERO; 3]);
}

#[test]
fn a_sleep_that_nobody_polls_any_more_does_not_hold_the_clock() {
    for watched in [false, true] {
        let timer = VirtualTimer::new();
        let dropped = timer.sleep(SECOND);
        let _never_polled = timer.sleep(SECOND);
        let mut polled_once = timer.sleep(SECOND);
        assert!(!is_over(&mut polled_once));
        assert_eq!(timer.sleeping(), 3);
        drop(dropped);
        assert_eq!(timer.sleeping(), 2);
        let mut awaited = [1, 2].map(|n| timer.sleep(n * SECOND));
        for sleep in &mut awaited {
            if watched {
                block_on(timer.task(sleep));
            } else {
                block_on(sleep);
            }
        }
        assert_eq!((timer.elapsed(), timer.sleeping()), (2 * SECOND, 0));
        assert!(is_over(&mut polled_once));
    }
}

#[test]
fn a_sleep_outside_of_watched_tasks_goes_on_while_they_are_asleep_and_when_they_are_done() {
    let timer = VirtualTimer::new();
    let (sender, receiver) = oneshot::channel();
    let outside = async {
        timer.sleep(SECOND).await;
        sender.send(()).unwrap();
        timer.sleep(SECOND).await;
    };
    let (received, ()) = block_on(join(timer.task(receiver), outside));
    assert_eq!(received, Ok(()));
    assert_eq!(timer.elapsed(), 2 * SECOND);
}

#[test]
fn a_dropped_task_does_not_move_the_clock_to_its_own_deadlines() {
    let timer = VirtualTimer::new();
    drop(timer.task(timer.sleep(SECOND)));
    assert_eq!(timer.elapsed(), Duration::ZERO);

    let (wake, woken) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel::<()>();
    let mut dropped = timer.task(select(woken, timer.sleep(SECOND)));
    let mut other = timer.task(async {
        told.await.unwrap();
        timer.elapsed()
    });
    assert!((&mut dropped).now_or_never().is_none());
    wake.send(()).unwrap();
    assert!((&mut other).now_or_never().is_none());
    // It is still awake, and takes its sleep with it.
    drop(dropped);
    tell.send(()).unwrap();
    assert_eq!(block_on(other), Duration::ZERO);
}

#[test]
fn a_move_by_hand_is_over_before_the_clock_moves_itself() {
    let timer = VirtualTimer::new();
    let seen = |n: u32| {
        let clock = timer.clone();
        timer.task(async move {
            clock.sleep(n * SECOND).await;
            clock.elapsed()
        })
    };
    let (mut first, mut second) = (seen(10), seen(20));
    // Holds the clock while both are polled.
    let holding = timer.task(pending::<()>());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    timer.advance(15 * SECOND);
    assert_eq!(first.now_or_never(), Some(15 * SECOND));
    assert!((&mut second).now_or_never().is_none());
    drop(holding);
    assert_eq!(second.now_or_never(), Some(20 * SECOND));
}

#[test]
fn a_waker_that_panics_does_not_hold_the_clock() {
    struct Panicking;

    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    let timer = VirtualTimer::new();
    let mut sleep = timer.sleep(SECOND);
    let holding = timer.task(pending::<()>());
    let waker = Waker::from(Arc::new(Panicking));
    register(&mut sleep, &waker);
    let hand = timer.clone();
    assert!(thread::spawn(move || hand.advance(SECOND)).join().is_err());
    drop(holding);
    block_on(timer.task(timer.sleep(SECOND)));
    assert_eq!(timer.elapsed(), 2 * SECOND);
}

#[test]
fn a_task_that_is_gone_does_not_hold_the_clock() {
    type Task = VirtualTask<BoxFuture<'static, ()>>;

    fn assert_freed(future: impl Future<Output = ()> + Send + 'static, end: fn(Task)) {
        let timer = VirtualTimer::new();
        let task = timer.task(future.boxed());
        let sleeping = timer.task(timer.sleep(SECOND));
        let ending = thread::spawn(move || end(task));
        block_on(sleeping);
        let _panic = ending.join();
        assert_eq!(timer.elapsed(), SECOND);
    }

    assert_freed(pending(), drop);
    assert_freed(async { panic!("on purpose") }, block_on);
    assert_freed(ready(()), |mut task| {
        block_on(&mut task);
        assert!((&mut task).now_or_never().is_none(), "polled after its end");
        mem::forget(task);
    });
}

#[test]
fn equal_deadlines_wake_their_last_wakers_in_the_order_of_their_creation() {
    struct Named(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    let timer = VirtualTimer::manual();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut sleeps: Vec<_> = (0..5).map(|_| timer.sleep(SECOND)).collect();
    for i in [3, 0, 4, 1, 2] {
        for name in [usize::MAX, i] {
            let waker = Waker::from(Arc::new(Named(name, woken.clone())));
            register(&mut sleeps[i], &waker);
        }
    }
    timer.advance(SECOND);
    assert_eq!(*woken.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[test]
fn the_clock_saturates_and_never_goes_back() {
    let timer = VirtualTimer::manual();
    let mut endless = timer.sleep(Duration::MAX);
    timer.advance(SECOND);
    let before = timer.now();
    timer.advance(Duration::MAX);
    timer.advance(Duration::MAX);
    assert!(is_over(&mut endless));
    assert!(timer.now() > before);
}

// The model in `tests/model` checks the steps, and the times of attempts that have ended.

#[test]
fn an_attempt_that_runs_has_neither_ended_nor_been_cancelled() {
    let provider = Scripted::new(VirtualTimer::new(), [Step::hang()]);
    let request = request();
    let mut call = Box::pin(provider.chat_completion(&request));
    assert!((&mut call).now_or_never().is_none());
    let running = provider.attempts()[0].clone();
    assert_eq!((running.ended, running.cancelled), (None, false));
    drop(call);
    assert!(provider.attempts()[0].cancelled);
}
