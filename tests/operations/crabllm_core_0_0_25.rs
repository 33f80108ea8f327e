//! Claims about streams of bytes and about hints in errors, which older releases lack.

use crate::{
    common::{SECOND, Scene, block_on},
    methods::Sample,
};
use crabllm_retry::{
    crabllm_core_0_0_25::{ChatCompletionRequest, Error, Provider},
    test_util::Step,
};
use futures::StreamExt;
use std::io;

fn chat() -> &'static ChatCompletionRequest {
    Sample::sample()
}

#[test]
fn a_retry_is_never_earlier_than_the_error_asks() {
    let asking = |seconds: u32| Step::status(429).retry_after(seconds * SECOND);
    for (script, sleeps) in [
        (asking(7), vec![7 * SECOND]),
        (asking(0), vec![SECOND]),
        (asking(60), vec![60 * SECOND]),
        (asking(61), vec![]),
    ] {
        let scene = Scene::new([script]);
        let answered = block_on(scene.retrying.chat_completion(chat())).is_ok();
        assert_eq!(scene.sleeps.asked(), sleeps);
        assert_eq!(answered, !sleeps.is_empty());
    }
}

#[test]
fn the_users_word_goes_before_the_errors() {
    let scene = Scene::new([Step::status(429).retry_after(7 * SECOND)])
        .set(|r| r.retry_after(|_| Some(9 * SECOND)));
    block_on(scene.retrying.chat_completion(chat())).unwrap();
    assert_eq!(scene.sleeps.asked(), [9 * SECOND]);
}

#[test]
fn a_stalled_stream_of_bytes_ends_with_a_timeout_of_io() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::hang()])]);
    let opened = scene.retrying.chat_completion_stream_raw("m", "{}".into());
    let mut items = block_on(opened).unwrap();
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    let error = block_on(items.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let inner = error.get_ref().unwrap().downcast_ref();
    assert!(matches!(inner, Some(Error::Timeout)));
    assert!(block_on(items.next()).is_none());
    assert_eq!(scene.clock.elapsed(), 90 * SECOND);
}
