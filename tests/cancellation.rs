//! Ends, panics and clones.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, Sleeps, Wrapper, block_on, poll_once, request};
use crabllm_retry::{
    Event, Operation, Policy, RetryBudget, Retrying, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::FutureExt;
use std::{
    future::ready,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

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
    let answer = |_: &_| ready(Ok::<_, Error>(()));
    stays_pending(scene.retrying.call(Operation::Other("x"), None, answer));
}

#[test]
fn a_panic_passes_through_and_leaves_other_calls_working() {
    let scene = || Scene::by_hand([Step::ok().after(2 * SECOND), Step::panic().after(SECOND)]);
    for scene in [scene(), scene().shareable()] {
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
        // A shared sleep runs out.
        scene.clock.advance(28 * SECOND);
        assert_eq!(scene.clock.sleeping(), 0);
    }
}

#[test]
fn clones_and_wrappers_with_another_timer_keep_all_else() {
    /// The delays and the times of the events of two calls, the second one by the original.
    fn times<T: Timer>(
        change: fn(Wrapper, Sleeps) -> Retrying<Scripted<VirtualTimer>, T>,
    ) -> [Vec<Duration>; 2] {
        let budget = RetryBudget::new(100);
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = events.clone();
        let scene = Scene::new(vec![Step::status(418); 4]).set(|r| {
            r.policy(Policy::default().max_retries(1))
                .budget(budget.clone())
                .seed(7)
                .retry_if(|error| error.status() == Some(418))
                .retry_after(|_| Some(7 * SECOND))
                .observe(move |event| log.lock().unwrap().push((event.call(), event.elapsed())))
        });
        let changed = change(scene.retrying.clone(), scene.sleeps.clone());
        assert!(block_on(changed.chat_completion(&request())).is_err());
        assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
        let delays = scene.sleeps.asked();
        assert_eq!(delays.len(), 2);
        assert_ne!(delays[0], delays[1], "both draw from one sequence");
        assert_eq!(budget.available(), 100 - 2 * 14);
        // Two attempts, the retry between them, and the end.
        let (calls, elapsed): (Vec<_>, _) = events.lock().unwrap().iter().copied().unzip();
        assert_eq!(calls, [[1; 4], [2; 4]].concat());
        assert_eq!(changed.into_inner().attempts().len(), 4);
        [delays, elapsed]
    }
    let by_itself = times(|r, _| r);
    assert_eq!(times(|r, sleeps| r.timer(sleeps)), by_itself);
    assert_eq!(times(|r, sleeps| r.timer(Arc::new(sleeps))), by_itself);
}
