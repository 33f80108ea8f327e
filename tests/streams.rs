//! Streams: the commit, the items and their errors. The model in `tests/model` proves the
//! retries, the time limits, the events and which error ends a call or a stream.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, poll_once, request};
use crabllm_retry::{
    Event, Operation, Operations, Retrying,
    crabllm_core_0_0_19::{BoxStream, ChatCompletionChunk, Error, Provider},
    test_util::{Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt, stream};
use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

type Items = BoxStream<'static, Result<ChatCompletionChunk, Error>>;

/// A wrapper that retries streams, with delays of exactly 1, 2, 4, … seconds.
fn streams(script: impl IntoIterator<Item = Step>) -> Scene {
    Scene::new(script).set(|r| r.also_retry(Operations::STREAMS))
}

fn open(scene: &Scene) -> Items {
    block_on(scene.retrying.chat_completion_stream(&request())).expect("it opens")
}

/// The texts and errors of a stream, from here to its end.
fn rest(items: Items) -> Vec<String> {
    let described = items.map(|item| match item {
        Ok(chunk) => chunk.content().unwrap_or("-").to_owned(),
        Err(error) => error.to_string(),
    });
    block_on(described.collect())
}

#[test]
fn held_items_come_first_once_and_errors_after_them() {
    for held in [0, 1, 16, 17, 40] {
        let announcements = (0..held).map(|_| Step::announcement());
        let items = [Step::text("a"), Step::announcement(), Step::status(503)];
        let items = announcements.chain(items).chain([Step::text("b")]);
        let scene = streams([Step::stream(items)]);
        let mut expected = vec!["-"; held];
        expected.extend(["a", "-", "provider error (HTTP 503): ", "b"]);
        assert_eq!(rest(open(&scene)), expected);
        assert_eq!(scene.attempts(), 1);
    }
}

#[test]
fn the_seventeenth_item_commits() {
    for (announcements, attempts) in [(16, 2), (17, 1)] {
        let items = vec![Step::announcement(); announcements].into_iter();
        let scene = streams([Step::stream(items.chain([Step::status(503)]))]);
        rest(open(&scene));
        assert_eq!(scene.attempts(), attempts);
    }
}

#[test]
fn a_model_that_thinks_is_waited_for() {
    let thinking = Step::stream([Step::text("42").after(200 * SECOND)]);
    let scene = Scene::new([thinking]).set(Retrying::recommended);
    assert_eq!(rest(open(&scene)), ["42"]);
    assert_eq!(scene.attempts(), 1);
    assert_eq!(scene.clock.elapsed(), 200 * SECOND);
}

#[test]
fn the_stream_of_a_failed_attempt_is_dropped_before_its_delay() {
    let alive = Arc::new(());
    let (held, seen) = (alive.clone(), Arc::new(Mutex::new(Vec::new())));
    let log = seen.clone();
    let retrying = Retrying::with_timer((), VirtualTimer::new())
        .max_retries(1)
        .observe(move |event| {
            if let Event::Retry { .. } | Event::GaveUp { .. } = event {
                log.lock().unwrap().push(Arc::strong_count(&held));
            }
        });
    let is_content = |_: &Arc<()>| false;
    let opening = retrying.open(Operation::Other("feed"), None, is_content, |()| {
        // The first is held back; the last stays in the stream.
        let lost = Err(Error::Internal("lost".into()));
        let items = [Ok(alive.clone()), lost, Ok(alive.clone())];
        async { Ok(stream::iter(items).boxed()) }
    });
    assert!(block_on(opening).is_err());
    // This test's and the observer's.
    assert_eq!(*seen.lock().unwrap(), [2, 2]);
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
fn each_stream_of_a_wrapper_is_limited_by_itself() {
    let scene = Scene::new([
        Step::stream([Step::ok().after(50 * SECOND), Step::ok().after(50 * SECOND)]),
        Step::stream([Step::hang()]),
    ]);
    let both = stream::select(open(&scene), open(&scene));
    assert_eq!(rest(both.boxed()).len(), 3);
    assert_eq!(scene.clock.elapsed(), 100 * SECOND);
}
