//! Streams of bytes, which older releases lack.

use crate::common::{SECOND, Scene, block_on};
use crabllm_retry::{
    crabllm_core_0_0_25::{Error, Provider},
    test_util::Step,
};
use futures::StreamExt;
use std::io;

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
