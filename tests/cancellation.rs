//! Dropping, sharing, moving and panicking.

#![cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Sleeps, Wrapper, block_on, exactly, poll_once, request};
use crabllm_retry::{
    AsyncIoTimer, Event, FuturesTimer, Policy, RetryBudget, Retrying, Timer,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt};
use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

/// A scene for each kind of timer: not shareable, and shareable.
fn scenes<const N: usize>(script: [Step; N]) -> [Scene; 2] {
    let scene = || Scene::by_hand(script.clone());
    [scene(), scene().shareable()]
}

/// A task for its reference count.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

/// Polls a future, which has to wait, and drops it: it keeps no waker.
fn drop_waiting(future: impl Future) {
    let task = Arc::new(Task);
    let known = || Arc::strong_count(&task) > 1;
    let waiting = {
        let waker = Waker::from(task.clone());
        let mut future = Box::pin(future);
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        future
    };
    assert!(known(), "it will be woken");
    drop(waiting);
    assert!(!known());
}

/// Asserts that no sleep is left, except for a shared one that runs out in `time`.
fn assert_no_sleep_outlasts(scene: &Scene, time: Duration) {
    let shared = usize::from(scene.sleeps.is_shareable());
    assert!(scene.clock.sleeping() <= shared);
    scene.clock.advance(time);
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn dropping_a_call_or_a_stream_drops_all_that_it_waits_for() {
    let late = || Step::ok().after(1000 * SECOND);
    for scene in scenes([late(), Step::status(503), Step::stream([late()])]) {
        // In an attempt, in a delay, and in a wait for an item.
        drop_waiting(scene.retrying.chat_completion(&request()));
        assert!(scene.scripted.attempts()[0].cancelled);
        drop_waiting(scene.retrying.chat_completion(&request()));
        let mut items = block_on(scene.retrying.chat_completion_stream(&request())).unwrap();
        drop_waiting(async move { items.next().await });
        assert_no_sleep_outlasts(&scene, 90 * SECOND);
    }
}

#[test]
fn a_panic_refunds_a_retry_that_has_not_started() {
    let never: fn(&Event<'_>) -> bool = |_| false;
    let at_retry: fn(&Event<'_>) -> bool = |event| matches!(event, Event::Retry { .. });
    let at_start: fn(&Event<'_>) -> bool =
        |event| matches!(event, Event::Attempt { attempt: 2, .. });
    for (panics, second, tokens) in [
        (at_retry, Step::ok(), 100),
        (at_start, Step::ok(), 100),
        (never, Step::panic(), 100 - 14),
    ] {
        let budget = RetryBudget::new(100);
        let scene = Scene::new([Step::status(503), second]).set(|r| {
            r.budget(budget.clone())
                .observe(move |event| assert!(!panics(event), "as it should"))
        });
        let request = request();
        let call = AssertUnwindSafe(scene.retrying.chat_completion(&request));
        assert!(block_on(call.catch_unwind()).is_err());
        assert_eq!(budget.available(), tokens);
    }
}

/// A waker that panics, when it wakes or when it is dropped.
struct Panicking {
    on_wake: bool,
}

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        assert!(!self.on_wake, "as it should");
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(self.on_wake, "as it should");
    }
}

#[test]
fn a_waker_that_panics_harms_no_timer() {
    const MS: Duration = Duration::from_millis(1);

    /// Waits with such wakers in an attempt and in a delay, some to its end.
    fn harm(timer: impl Timer + Clone) {
        let retrying = |script: [Step; 2]| {
            Retrying::with_timer(Scripted::new(VirtualTimer::manual(), script), timer.clone())
                .timeout(20 * MS)
                .backoff(exactly(20 * MS))
        };
        let request = request();
        for first in [Step::hang(), Step::status(503)] {
            for on_wake in [true, false] {
                let retrying = retrying([first.clone(), Step::hang()]);
                let mut call = Box::pin(retrying.chat_completion(&request));
                let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    let waker = Waker::from(Arc::new(Panicking { on_wake }));
                    assert!(
                        call.as_mut()
                            .poll(&mut Context::from_waker(&waker))
                            .is_pending()
                    );
                    drop(waker);
                    if on_wake {
                        std::thread::sleep(60 * MS);
                    }
                    drop(call);
                }));
                assert!(polled.is_ok() || !on_wake);
            }
        }
        // The timer still works for later calls.
        let result =
            block_on(retrying([Step::hang(), Step::status(503)]).chat_completion(&request));
        assert!(result.is_ok());
    }
    harm(FuturesTimer);
    harm(AsyncIoTimer);
}

#[test]
fn a_call_that_is_polled_after_its_end_stays_pending_and_makes_no_other_attempt() {
    fn stays_pending<T>(call: impl Future<Output = T>) {
        let mut call = pin!(call);
        assert!(poll_once(&mut call).is_ready());
        assert!(poll_once(&mut call).is_pending());
    }
    let scene = Scene::by_hand([]);
    stays_pending(scene.retrying.chat_completion(&request()));
    stays_pending(scene.retrying.chat_completion_stream(&request()));
    stays_pending(scene.retrying.chat_completion_raw("m", "{}".into()));
    stays_pending(scene.retrying.anthropic_messages_raw("{}".into()));
    assert_eq!(scene.attempts(), 4);
}

#[test]
fn a_panic_passes_through_and_leaves_other_calls_working() {
    for scene in scenes([Step::ok().after(2 * SECOND), Step::panic().after(SECOND)]) {
        let request = request();
        let mut earlier = pin!(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut earlier).is_pending());

        let mut panicking = AssertUnwindSafe(scene.retrying.chat_completion(&request))
            .catch_unwind()
            .boxed();
        assert!(poll_once(&mut panicking).is_pending());
        scene.clock.advance(SECOND);
        assert!(matches!(panicking.now_or_never(), Some(Err(_))));

        scene.clock.advance(SECOND);
        assert!(matches!(earlier.now_or_never(), Some(Ok(_))));
        let later = scene.retrying.chat_completion(&request).now_or_never();
        assert!(matches!(later, Some(Ok(_))));
        assert_no_sleep_outlasts(&scene, 28 * SECOND);
    }
}

#[test]
fn clones_and_wrappers_with_another_timer_keep_all_else() {
    let changes: [fn(Wrapper, &Sleeps) -> Wrapper; 2] =
        [|r, _| r.clone(), |r, other| r.timer(other.clone())];
    for change in changes {
        let budget = RetryBudget::new(100);
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        let scene = Scene::new([Step::status(418), Step::status(418)]);
        let other = Sleeps::by(&scene.clock);
        let scene = scene.set(|r| {
            let furnished = r
                .max_retries(1)
                .budget(budget.clone())
                .retry_if(|error| error.status() == Some(418))
                .retry_after(|_| Some(7 * SECOND))
                .observe(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            change(furnished, &other)
        });
        assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
        assert_eq!([scene.sleeps.asked(), other.asked()].concat(), [7 * SECOND]);
        assert_eq!(budget.available(), 100 - 14);
        // Two attempts, the retry and the end.
        assert_eq!(told.load(Ordering::Relaxed), 4);
        assert_eq!(scene.retrying.into_inner().attempts().len(), 2);
    }
}

#[test]
fn clones_and_other_timers_go_on_with_the_same_seed() {
    let drawn = |change: fn(Wrapper, Sleeps) -> Wrapper| {
        let scene = Scene::new((0..4).map(|_| Step::status(503)));
        let sleeps = scene.sleeps.clone();
        let scene = scene.set(|r| change(r.policy(Policy::default()).seed(7), sleeps));
        assert!(block_on(scene.retrying.clone().chat_completion(&request())).is_err());
        let first = scene.sleeps.asked();
        assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
        (first, scene.sleeps.asked())
    };
    let (first, all) = drawn(|r, _| r);
    assert_ne!(first[0], all[2], "the clone has moved the sequence on");
    let expected = (first, all);
    assert_eq!(drawn(|r, _| r.clone()), expected);
    assert_eq!(drawn(|r, sleeps| r.timer(sleeps)), expected);
}

#[test]
fn a_timer_in_an_arc_is_that_timer() {
    let clock = VirtualTimer::manual();
    for sleeps in [Sleeps::by(&clock), Sleeps::by(&clock).shareable()] {
        let in_an_arc = Arc::new(sleeps.clone());
        assert_eq!(in_an_arc.is_shareable(), sleeps.is_shareable());
        clock.advance(SECOND);
        assert_eq!(in_an_arc.now(), clock.now());
        drop(in_an_arc.sleep(2 * SECOND));
        assert_eq!(sleeps.asked(), [2 * SECOND]);
    }
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn sent<T: Send>(_: T) {}
    fn shared<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}

    /// Compiled for every timer.
    fn all<T: Timer>(retrying: Retrying<Scripted<T>, T>) {
        let request = request();
        sent(retrying.chat_completion(&request));
        sent(retrying.chat_completion_stream(&request));
        sent(retrying.chat_completion_raw("m", "{}".into()));
        sent(block_on(retrying.chat_completion_stream(&request)).unwrap());
    }
    shared(&Scene::new([]).retrying);
    all(Retrying::new(Scripted::new(FuturesTimer, [])));
}

#[test]
fn a_wrapper_can_be_shown_whatever_its_timer() {
    let retrying = Retrying::with_timer(Scene::new([]).scripted, |_| std::future::pending::<()>());
    let shown = format!("{retrying:?}");
    assert!(shown.contains("max_retries: 2"), "{shown}");
}
