//! The executor of a web page, with all timers. It runs in Node as well.

use crate::script::Play;
use crabllm_retry::FuturesTimer;
use futures::{FutureExt, StreamExt, future::ready};
use send_wrapper::SendWrapper;
use std::time::Duration;
use wasm_bindgen_futures::spawn_local;
use wasm_bindgen_test::wasm_bindgen_test;

async fn assert_plays(play: Play) {
    let (script, end) = play.script.remote_handle();
    spawn_local(script);
    spawn_local(play.tasks.for_each(|task| {
        spawn_local(task);
        ready(())
    }));
    end.await;
    play.trace.assert_expected();
}

#[wasm_bindgen_test]
async fn in_virtual_time() {
    assert_plays(Play::in_virtual_time()).await;
}

#[wasm_bindgen_test]
async fn with_futures_timer() {
    assert_plays(Play::in_real_time(FuturesTimer)).await;
}

#[wasm_bindgen_test]
async fn with_a_closure() {
    // The page's own timers may end up to a millisecond early.
    let timer = |duration| {
        let late = duration + Duration::from_millis(1);
        SendWrapper::new(gloo_timers::future::sleep(late))
    };
    assert_plays(Play::in_real_time(timer)).await;
}
