//! Open streams.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, poll_once, request};
use crabllm_retry::{
    Event, Operations,
    crabllm_core_0_0_19::{BoxStream, ChatCompletionChunk, Error, Provider},
    test_util::Step,
};
use futures::{FutureExt, StreamExt, stream};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
    let items = [Step::ok(), Step::status(503), Step::ok(), Step::invalid()];
    let scene = Scene::new([Step::stream(items)]);
    let invalid = "config error: no such thing";
    assert_eq!(rest(open(&scene)), ["item", "503", "item", invalid]);
    assert_eq!(scene.attempts(), 1);
}

#[test]
fn each_wait_for_an_item_is_limited_and_nothing_else() {
    // The opening has a timeout of its own.
    let slow = [60, 90, 91, 0].map(|seconds| Step::ok().after(seconds * SECOND));
    let scene = Scene::new([Step::stream(slow).after(30 * SECOND)]);
    let mut items = open(&scene);
    // A slow consumer does not count.
    scene.clock.advance(1000 * SECOND);
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    assert_eq!(rest(items), ["item", "timeout"]);
    assert_eq!(scene.clock.elapsed(), (30 + 1000 + 60 + 90 + 90) * SECOND);
}

#[test]
fn a_stream_is_retried_only_on_request() {
    let scene = Scene::new([Step::status(503)]);
    assert!(block_on(scene.retrying.chat_completion_stream(&request())).is_err());
    assert_eq!(scene.attempts(), 1);

    let scene = Scene::new([Step::status(503)]).set(|r| r.also_retry(Operations::STREAMS));
    assert_eq!(rest(open(&scene)), ["item"]);
    assert_eq!(scene.attempts(), 2);
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
fn each_stream_of_a_wrapper_is_limited_by_itself() {
    let scene = Scene::new([
        Step::stream([Step::ok().after(50 * SECOND), Step::ok().after(50 * SECOND)]),
        Step::stream([Step::hang()]),
    ]);
    let both = stream::select(open(&scene), open(&scene));
    assert_eq!(rest(both.boxed()), ["item", "timeout", "item"]);
    assert_eq!(scene.clock.elapsed(), 100 * SECOND);
}
