//! The events that observers receive.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, plain, request};
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

#[test]
fn each_attempt_and_each_end_is_told_with_the_time_so_far() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let script = [
        Step::hang(),
        Step::status(429).after(SECOND),
        Step::ok(),
        Step::invalid(),
    ];
    let scene = Scene::new(script).set(|r| {
        r.retry_after(|error| error.is_throttled().then_some(5 * SECOND))
            .observe(move |event| log.lock().unwrap().push(line(event)))
    });
    for _ in 0..2 {
        let _ = block_on(scene.retrying.chat_completion(&request()));
    }
    assert_eq!(
        *lines.lock().unwrap(),
        [
            "0ns: attempt 1 starts",
            "30s: attempt 1: request timed out, Backoff 1s",
            "31s: attempt 2 starts",
            "32s: attempt 2: provider error (HTTP 429): , RetryAfter 5s",
            "37s: attempt 3 starts",
            "37s: attempt 3 succeeded",
            "0ns: attempt 1 starts",
            "0ns: attempt 1: config error: no such thing, NotTransient",
        ]
    );
}

fn line(event: &Event<'_>) -> String {
    let what = match *event {
        Event::Attempt { .. } => " starts".into(),
        Event::Retry {
            delay,
            error,
            source,
            ..
        } => format!(": {error}, {source:?} {delay:?}"),
        Event::Success { .. } => " succeeded".into(),
        Event::GaveUp { error, reason, .. } => format!(": {error}, {reason:?}"),
        _ => panic!("{event:?}"),
    };
    format!("{:?}: attempt {}{what}", event.elapsed(), event.attempt())
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
fn the_clock_of_a_timer_that_is_not_shared_is_read_only_for_observers_and_deadlines() {
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
