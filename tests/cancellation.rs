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

/// A scene for a timer whose sleeps are one call's each, and one for a timer
/// whose sleeps may be shared.
fn scenes<const N: usize>(script: [Step; N]) -> [Scene; 2] {
    let scene = || Scene::by_hand(script.clone());
    [scene(), scene().shareable()]
}

/// A task that nobody polls.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

/// Polls a future, which has to wait, and drops it: then it has let go of the
/// task that polled it.
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

/// Asserts that no sleep is left, but one that calls shared for up to its time.
fn assert_no_sleep_outlasts(scene: &Scene, time: Duration) {
    let shared = usize::from(scene.sleeps.is_shareable());
    assert!(scene.clock.sleeping() <= shared);
    scene.clock.advance(time);
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn dropping_a_call_in_an_attempt_drops_the_attempt_and_its_timer() {
    for scene in scenes([(); 3].map(|()| Step::hang().after(1000 * SECOND))) {
        for attempt in 0..3 {
            drop_waiting(scene.retrying.chat_completion(&request()));
            assert!(scene.scripted.attempts()[attempt].cancelled);
        }
        assert_no_sleep_outlasts(&scene, 30 * SECOND);
    }
}

#[test]
fn dropping_a_call_in_a_delay_drops_the_delay() {
    for scene in scenes([Step::status(503)]) {
        drop_waiting(scene.retrying.chat_completion(&request()));
        assert_eq!(scene.sleeps.asked(), [SECOND]);
        assert_eq!(scene.attempts(), 1);
        assert_no_sleep_outlasts(&scene, SECOND);
    }
}

#[test]
fn a_call_lets_go_of_its_task_whatever_it_waits_for() {
    fn in_a_delay(timer: impl Timer) {
        let provider = Scripted::new(VirtualTimer::manual(), [Step::status(503)]);
        let retrying = Retrying::with_timer(provider, timer).backoff(exactly(SECOND));
        drop_waiting(retrying.chat_completion(&request()));
    }
    in_a_delay(FuturesTimer);
    in_a_delay(AsyncIoTimer);
}

#[test]
fn a_retry_that_never_starts_gives_its_cost_back() {
    let budget = RetryBudget::default();
    let paid = budget.clone();
    let failing = (0..35).map(|_| Step::status(503));
    let scene = Scene::by_hand(failing).set(|r| r.budget(paid));
    for _ in 0..35 {
        let request = request();
        let mut call = Box::pin(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut call).is_pending());
        assert_eq!(budget.available(), 500 - 14);
        drop(call);
        assert_eq!(budget.available(), 500);
    }
}

#[test]
fn an_observer_that_panics_before_a_retry_starts_gives_its_cost_back() {
    let moments: [fn(&Event<'_>) -> bool; 2] = [
        |event| matches!(event, Event::Retry { .. }),
        |event| matches!(event, Event::Attempt { attempt: 2, .. }),
    ];
    for panics in moments {
        let budget = RetryBudget::new(100);
        let paid = budget.clone();
        let scene = Scene::new((0..5).map(|_| Step::status(503))).set(|r| {
            r.budget(paid)
                .observe(move |event| assert!(!panics(event), "as it should"))
        });
        for _ in 0..5 {
            let request = request();
            let call = AssertUnwindSafe(scene.retrying.chat_completion(&request));
            assert!(block_on(call.catch_unwind()).is_err());
        }
        assert_eq!((scene.attempts(), budget.available()), (5, 100));
    }
}

#[test]
fn a_retry_whose_attempt_panics_keeps_its_cost() {
    let budget = RetryBudget::new(100);
    let paid = budget.clone();
    let scene = Scene::new([Step::status(503), Step::panic()]).set(|r| r.budget(paid));
    let request = request();
    let call = AssertUnwindSafe(scene.retrying.chat_completion(&request));
    assert!(block_on(call.catch_unwind()).is_err());
    assert_eq!(budget.available(), 86);
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

    /// Has such wakers wait in an attempt and in a delay, to its end and not.
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
        // Later calls find the timer at work.
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
fn dropping_a_stream_drops_the_inner_stream_and_the_bound() {
    for scene in scenes([Step::stream([Step::ok().after(1000 * SECOND)])]) {
        let mut items = block_on(scene.retrying.chat_completion_stream(&request())).unwrap();
        drop_waiting(async move { items.next().await });
        assert_eq!(scene.sleeps.asked(), [90 * SECOND]);
        assert_no_sleep_outlasts(&scene, 90 * SECOND);
    }
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

/// A wrapper with a bit of everything, and how often its observer was told.
fn furnished() -> (Scene, RetryBudget, Arc<AtomicUsize>) {
    let budget = RetryBudget::new(100);
    let told = Arc::new(AtomicUsize::new(0));
    let (paid, count) = (budget.clone(), told.clone());
    let scene = Scene::new([Step::status(418), Step::status(418)]).set(|r| {
        r.policy(Policy::default().max_retries(1))
            .budget(paid)
            .seed(7)
            .retry_if(|error| error.status() == Some(418))
            .retry_after(|_| Some(SECOND))
            .observe(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
    });
    (scene, budget, told)
}

/// Asserts that a wrapper has all that [`furnished`] gives.
fn assert_furnished<T: Timer>(
    retrying: &Retrying<Scripted<VirtualTimer>, T>,
    sleeps: &Sleeps,
    (budget, told): (RetryBudget, Arc<AtomicUsize>),
) {
    assert!(block_on(retrying.chat_completion(&request())).is_err());
    assert_eq!(retrying.get_ref().attempts().len(), 2);
    // At least as long as asked, and spread.
    assert!(matches!(sleeps.asked()[..], [delay] if delay > SECOND));
    assert_eq!(budget.available(), 100 - 14);
    // Two attempts, the retry and the end.
    assert_eq!(told.load(Ordering::Relaxed), 4);
}

#[test]
fn clones_share_what_the_wrapper_was_given() {
    let (scene, budget, told) = furnished();
    assert_furnished(&scene.retrying.clone(), &scene.sleeps, (budget, told));
    assert_eq!(scene.retrying.into_inner().attempts().len(), 2);
}

#[test]
fn another_timer_leaves_everything_else_as_it_was() {
    let (scene, budget, told) = furnished();
    let sleeps = Sleeps::by(&scene.clock);
    let retrying = scene.retrying.timer(Arc::new(sleeps.clone()));
    assert_furnished(&retrying, &sleeps, (budget, told));
    assert!(scene.sleeps.asked().is_empty());
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
fn a_stream_outlives_its_wrapper_and_its_request() {
    let items = {
        let scene = Scene::new([Step::stream([Step::ok().after(SECOND)])]);
        block_on(scene.retrying.chat_completion_stream(&request())).unwrap()
    };
    assert_eq!(block_on(items.count()), 1);
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn sent<T: Send>(_: T) {}
    fn shared<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}

    fn all<T: crabllm_retry::Timer>(retrying: Retrying<Scripted<T>, T>) {
        let request = request();
        sent(retrying.chat_completion(&request));
        sent(retrying.chat_completion_stream(&request));
        sent(retrying.chat_completion_raw("m", "{}".into()));
        sent(block_on(retrying.chat_completion_stream(&request)).unwrap());
    }
    shared(&Scene::new([]).retrying);
    all(Retrying::new(Scripted::new(FuturesTimer, [])));
    all(Retrying::with_timer(
        Scripted::new(AsyncIoTimer, []),
        AsyncIoTimer,
    ));
    let clock = VirtualTimer::new();
    all(Retrying::with_timer(
        Scripted::new(clock.clone(), []),
        clock,
    ));
}

#[test]
fn a_wrapper_can_be_shown_whatever_its_timer() {
    let retrying = Retrying::with_timer(Scene::new([]).scripted, |_| std::future::pending::<()>());
    let shown = format!("{retrying:?}");
    assert!(shown.contains("max_retries: 2"), "{shown}");
}
