//! The events that observers receive.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, given_up, plain, request};
use crabllm_retry::{
    Event, Instant, Retrying, Timer,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step, VirtualSleep, VirtualTimer},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The events of one call, a line each.
fn told(scene: Scene) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let scene = scene.set(|r| r.observe(move |event| log.lock().unwrap().push(line(event))));
    let _ = block_on(scene.retrying.chat_completion(&request()));
    lines.lock().unwrap().clone()
}

fn line(event: &Event<'_>) -> String {
    match *event {
        Event::Attempt {
            attempt, elapsed, ..
        } => format!("{elapsed:?}: {attempt} starts"),
        Event::Retry {
            attempt,
            delay,
            elapsed,
            error,
            source,
            ..
        } => format!("{elapsed:?}: {attempt} failed ({error}), {source:?} {delay:?}"),
        Event::Success {
            attempt, elapsed, ..
        } => format!("{elapsed:?}: {attempt} succeeded"),
        Event::GaveUp {
            attempt,
            elapsed,
            error,
            reason,
            ..
        } => format!("{elapsed:?}: {attempt} failed ({error}), {reason:?}"),
        _ => format!("{event:?}"),
    }
}

#[test]
fn a_success_at_once_is_a_start_and_an_end() {
    assert_eq!(told(Scene::new([])), ["0ns: 1 starts", "0ns: 1 succeeded"]);
}

#[test]
fn each_retry_is_told_with_its_delay_and_the_time_so_far() {
    let scene = Scene::new([
        Step::hang(),
        Step::status_with_body(503, "busy").after(SECOND),
    ]);
    assert_eq!(
        told(scene),
        [
            "0ns: 1 starts",
            "30s: 1 failed (request timed out), Backoff 1s",
            "31s: 2 starts",
            "32s: 2 failed (provider error (HTTP 503): busy), Backoff 2s",
            "34s: 3 starts",
            "34s: 3 succeeded",
        ]
    );
}

#[test]
fn a_delay_that_the_server_chose_is_told_as_such() {
    let script = [
        Step::status_with_body(429, ""),
        Step::status_with_body(429, ""),
    ];
    let scene = Scene::new(script).set(|r| r.retry_after(|_| Some(2 * SECOND)));
    assert_eq!(
        told(scene),
        [
            "0ns: 1 starts",
            "0ns: 1 failed (provider error (HTTP 429): ), RetryAfter 2s",
            "2s: 2 starts",
            "2s: 2 failed (provider error (HTTP 429): ), Backoff 2s",
            "4s: 3 starts",
            "4s: 3 succeeded",
        ]
    );
}

#[test]
fn giving_up_is_told_with_the_reason() {
    for (scene, reason) in given_up() {
        let told = told(scene);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].ends_with(&format!(", {reason:?}")), "{told:?}");
    }
}

#[test]
fn observers_are_told_in_the_order_in_which_they_were_added() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let [first, second] = [log.clone(), log.clone()];
    let scene = Scene::new([]).set(|r| {
        r.observe(move |_| first.lock().unwrap().push("first"))
            .observe(move |_| second.lock().unwrap().push("second"))
    });
    block_on(scene.retrying.chat_completion(&request())).unwrap();
    assert_eq!(*log.lock().unwrap(), ["first", "second"].repeat(2));
}

#[test]
fn where_each_call_sleeps_by_itself_the_clock_is_read_only_for_observers_and_deadlines() {
    #[derive(Clone)]
    struct CountedClock(VirtualTimer, Arc<AtomicUsize>);

    impl Timer for CountedClock {
        type Sleep = VirtualSleep;

        fn sleep(&self, duration: Duration) -> VirtualSleep {
            self.0.sleep(duration)
        }

        fn now(&self) -> Instant {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.now()
        }
    }

    type Counted = Retrying<Scripted<VirtualTimer>, CountedClock>;
    let reads = |change: fn(Counted) -> Counted| {
        let clock = VirtualTimer::new();
        let script = [Step::status(503), Step::hang(), Step::ok().after(SECOND)];
        let provider = Scripted::new(clock.clone(), script);
        let counted = CountedClock(clock, Arc::default());
        let retrying = change(Retrying::with_timer(provider, counted.clone()));
        block_on(retrying.chat_completion(&request())).unwrap();
        counted.1.load(Ordering::Relaxed)
    };
    assert_eq!(reads(|r| r), 0);
    assert!(reads(|r| r.observe(|_| {})) > 0);
    assert!(reads(|r| r.policy(plain().deadline(1000 * SECOND))) > 0);
}
