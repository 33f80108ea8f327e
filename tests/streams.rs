//! Open streams.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, Sleeps, Wrapper, block_on, plain, poll_once, request, yield_now};
use crabllm_retry::{
    Event, Operations, Retrying, Timer,
    crabllm_core_0_0_19::{BoxStream, ChatCompletionChunk, Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt, stream};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

type Items = BoxStream<'static, Result<ChatCompletionChunk, Error>>;

fn open(scene: &Scene) -> Items {
    block_on(scene.retrying.chat_completion_stream(&request())).expect("it opens")
}

/// The items of a stream, from here to its end.
fn rest(items: Items) -> Vec<String> {
    let described = items.map(|item| match item {
        Ok(_) => "item".into(),
        Err(Error::Timeout) => "timeout".into(),
        Err(Error::Provider { status, .. }) => status.to_string(),
        Err(other) => other.to_string(),
    });
    block_on(described.collect())
}

#[test]
fn items_and_errors_pass_through_in_order() {
    let items = [
        Step::ok(),
        Step::status(503),
        Step::ok(),
        Step::invalid(),
        Step::ok(),
    ];
    let scene = Scene::new([Step::stream(items)]);
    let passed = rest(open(&scene));
    assert_eq!(
        passed,
        ["item", "503", "item", "config error: no such thing", "item"]
    );
    assert_eq!(scene.attempts(), 1);
}

#[test]
fn streams_and_calls_wait_for_one_sleep_that_may_be_shared() {
    let scene = Scene::by_hand([Step::stream([Step::hang()]), Step::hang()]).shareable();
    let mut items = open(&scene);
    assert!(items.next().now_or_never().is_none());
    let request = request();
    let mut call = pin!(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(scene.sleeps.asked(), [90 * SECOND, 30 * SECOND]);
    assert_eq!(scene.clock.sleeping(), 1);
}

#[test]
fn items_that_are_ready_make_no_timer() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::ok()])]);
    assert_eq!(rest(open(&scene)), ["item", "item"]);
    assert!(scene.sleeps.asked().is_empty());
}

#[test]
fn a_silent_stream_ends_with_one_timeout() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::hang(), Step::ok()])]);
    assert_eq!(rest(open(&scene)), ["item", "timeout"]);
    assert_eq!(scene.clock.elapsed(), 90 * SECOND);
}

#[test]
fn a_stream_that_has_ended_stays_ended() {
    for items in [vec![Step::ok()], vec![Step::hang()]] {
        let scene = Scene::new([Step::stream(items)]);
        let mut items = open(&scene);
        assert!(block_on(items.next()).is_some());
        for _ in 0..3 {
            assert!(block_on(items.next()).is_none());
        }
    }
}

#[test]
fn every_wait_has_the_whole_bound() {
    let items = [80, 80, 80, 91].map(|seconds| Step::ok().after(seconds * SECOND));
    let scene = Scene::new([Step::stream(items)]);
    assert_eq!(rest(open(&scene)), ["item", "item", "item", "timeout"]);
    assert_eq!(scene.clock.elapsed(), (80 + 80 + 80 + 90) * SECOND);
}

#[test]
fn a_slow_consumer_never_trips_the_bound() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::ok().after(89 * SECOND)])]);
    let mut items = open(&scene);
    scene.clock.advance(1000 * SECOND);
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    scene.clock.advance(1000 * SECOND);
    assert_eq!(rest(items), ["item"]);
}

#[test]
fn an_item_that_is_ready_wins_over_the_bound() {
    let scene = Scene::by_hand([Step::stream([Step::ok().after(90 * SECOND)])]);
    let mut items = open(&scene);
    assert!(items.next().now_or_never().is_none());
    scene.clock.advance(1000 * SECOND);
    assert_eq!(rest(items), ["item"]);
}

#[test]
fn a_consumer_that_was_away_gets_an_item_that_takes_two_polls() {
    for shareable in [false, true] {
        let clock = VirtualTimer::manual();
        let inner = clock.clone();
        let in_two_polls = move |duration| {
            let sleep = inner.sleep(duration);
            async move {
                sleep.await;
                yield_now().await;
            }
        };
        let items = [SECOND, 90 * SECOND, SECOND].map(|latency| Step::ok().after(latency));
        let provider = Scripted::new(in_two_polls, [Step::stream(items)]);
        let sleeps = Sleeps::by(&clock);
        let sleeps = if shareable {
            sleeps.shareable()
        } else {
            sleeps
        };
        let retrying = Retrying::with_timer(provider, sleeps);
        let mut items = block_on(retrying.chat_completion_stream(&request())).unwrap();
        for _ in 0..3 {
            assert!(items.next().now_or_never().is_none());
            clock.advance(1000 * SECOND);
            assert!(items.next().now_or_never().is_none(), "one more turn");
            assert!(matches!(items.next().now_or_never(), Some(Some(Ok(_)))));
        }
    }
}

#[test]
fn a_zero_or_endless_bound_is_none() {
    for idle in [Duration::ZERO, Duration::MAX] {
        let scene = Scene::by_hand([Step::stream([Step::hang()])]).set(|r| r.stream_idle(idle));
        let mut items = open(&scene);
        assert!(items.next().now_or_never().is_none());
        scene.clock.advance(Duration::MAX);
        assert!(items.next().now_or_never().is_none());
        assert!(scene.sleeps.asked().is_empty());
    }
}

#[test]
fn a_stall_drops_the_inner_stream_before_the_timeout_is_seen() {
    let scene = Scene::by_hand([Step::stream([Step::hang().after(1000 * SECOND)])]);
    let mut items = open(&scene);
    assert!(items.next().now_or_never().is_none());
    assert_eq!(scene.clock.sleeping(), 2, "the item's and the bound's");
    scene.clock.advance(90 * SECOND);
    assert!(items.next().now_or_never().is_none(), "one more turn");
    assert!(matches!(
        items.next().now_or_never(),
        Some(Some(Err(Error::Timeout)))
    ));
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn a_stall_is_told_when_the_inner_stream_is_gone() {
    let stalls = Arc::new(AtomicUsize::new(0));
    let counted = stalls.clone();
    let scene = Scene::new([Step::stream([Step::ok().after(1000 * SECOND)])]);
    let clock = scene.clock.clone();
    let scene = scene.set(|r| {
        r.observe(move |event| {
            if let Event::StreamStalled { model, idle, .. } = event {
                assert_eq!((*model, *idle), (Some("m"), 90 * SECOND));
                assert_eq!(clock.sleeping(), 0);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    assert_eq!(rest(open(&scene)), ["timeout"]);
    assert_eq!(stalls.load(Ordering::Relaxed), 1);
}

#[test]
fn the_timeout_bounds_the_opening_only() {
    let slow = Step::stream([Step::ok().after(80 * SECOND)]).after(29 * SECOND);
    let scene = Scene::new([slow]);
    assert_eq!(rest(open(&scene)), ["item"]);
    assert_eq!(scene.clock.elapsed(), 109 * SECOND);
}

#[test]
fn an_opening_is_retried_only_if_asked_for() {
    let script = || [Step::status(503), Step::hang(), Step::stream([Step::ok()])];

    let scene = Scene::new(script());
    assert!(block_on(scene.retrying.chat_completion_stream(&request())).is_err());
    assert_eq!(scene.attempts(), 1);

    let scene = Scene::new(script()).set(|r| r.also_retry(Operations::STREAMS));
    assert_eq!(rest(open(&scene)), ["item"]);
    assert_eq!(scene.attempts(), 3);
}

#[test]
fn chats_are_retried_beside_streams_unless_streams_are_all_that_is_asked_for() {
    for (set, attempts) in [
        (Wrapper::also_retry as fn(_, _) -> _, 2),
        (Wrapper::retry, 1),
    ] {
        let scene = Scene::new([Step::status(503)]).set(|r| set(r, Operations::STREAMS));
        let _ = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(scene.attempts(), attempts);
    }
}

#[test]
fn what_was_opened_is_never_opened_again() {
    for (end, seen) in [(Step::status(503), "503"), (Step::hang(), "timeout")] {
        let scene = Scene::new([Step::stream([Step::ok(), end])])
            .set(|r| r.policy(plain().retry(Operations::ALL)));
        assert_eq!(rest(open(&scene)), ["item", seen]);
        assert_eq!(scene.attempts(), 1);
    }
}

#[test]
fn streams_of_one_wrapper_are_bounded_each_by_itself() {
    let scene = Scene::new([
        Step::stream([Step::ok().after(50 * SECOND), Step::ok().after(50 * SECOND)]),
        Step::stream([Step::hang()]),
    ]);
    let both = stream::select(open(&scene), open(&scene));
    assert_eq!(rest(both.boxed()), ["item", "timeout", "item"]);
    assert_eq!(scene.clock.elapsed(), 100 * SECOND);
}
