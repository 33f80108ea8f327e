//! Dropping, sharing, moving and panicking.

#![cfg(feature = "crabllm-core-0_0_19")]

mod common;

use common::{SECOND, Scene, block_on, poll_once, request};
use crabllm_retry::{
    AsyncIoTimer, FuturesTimer, Retrying, Scripted, Step, VirtualTimer,
    crabllm_core_0_0_19::Provider,
};
use futures::{FutureExt, StreamExt};
use std::{panic::AssertUnwindSafe, pin::pin};

#[test]
fn dropping_a_call_in_an_attempt_drops_the_attempt_and_its_timer() {
    let scene = Scene::by_hand([Step::hang()]);
    assert!(
        scene
            .retrying
            .chat_completion(&request())
            .now_or_never()
            .is_none()
    );
    assert!(scene.scripted.attempts()[0].cancelled);
    assert_eq!(scene.sleeps.asked().len(), 1);
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn dropping_a_call_in_a_delay_drops_the_delay() {
    let scene = Scene::by_hand([Step::status(503)]);
    assert!(
        scene
            .retrying
            .chat_completion(&request())
            .now_or_never()
            .is_none()
    );
    assert_eq!(scene.sleeps.asked(), [SECOND]);
    assert_eq!(scene.clock.sleeping(), 0);
    assert_eq!(scene.attempts(), 1);
}

#[test]
fn dropping_a_stream_drops_the_inner_stream_and_the_bound() {
    let scene = Scene::by_hand([Step::stream([Step::ok().after(SECOND)])]);
    let mut items = block_on(scene.retrying.chat_completion_stream(&request())).unwrap();
    assert!(items.next().now_or_never().is_none());
    assert_eq!(scene.clock.sleeping(), 2, "the item's and the bound's");
    drop(items);
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn a_panic_passes_through_and_leaves_other_calls_working() {
    let scene = Scene::new([Step::ok().after(2 * SECOND), Step::panic().after(SECOND)]);
    let request = request();
    let mut earlier = pin!(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut earlier).is_pending());

    let panicking = AssertUnwindSafe(scene.retrying.chat_completion(&request)).catch_unwind();
    assert!(block_on(panicking).is_err());

    assert!(block_on(earlier).is_ok());
    assert!(block_on(scene.retrying.chat_completion(&request)).is_ok());
    assert_eq!(scene.clock.sleeping(), 0);
}

#[test]
fn clones_share_what_the_wrapper_was_given() {
    let scene = Scene::new([]);
    let clone = scene.retrying.clone();
    assert!(block_on(clone.chat_completion(&request())).is_ok());
    assert_eq!(scene.retrying.get_ref().attempts().len(), 1);
    assert_eq!(clone.into_inner().attempts().len(), 1);
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
fn a_timer_can_be_changed() {
    let scene = Scene::new([Step::ok().after(SECOND)]);
    let retrying = Retrying::new(scene.scripted).timer(scene.sleeps.clone());
    assert!(block_on(retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.sleeps.asked(), [30 * SECOND]);
}
