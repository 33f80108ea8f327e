//! The executor of a web page, with all timers. It runs in Node as well.

use crate::{
    common::Sleeps,
    script::{Clock, Line, Play, Real, assert_in_real_time, assert_in_virtual_time},
};
use crabllm_retry::{FuturesTimer, Timer, test_util::VirtualTimer};
use futures::{FutureExt, StreamExt, future::ready};
use send_wrapper::SendWrapper;
use std::time::Duration;
use wasm_bindgen_futures::spawn_local;
use wasm_bindgen_test::wasm_bindgen_test;

/// Plays the script and returns what happened.
async fn play<C: Clock, T: Timer + Clone>(clock: C, timer: T) -> Vec<Line> {
    let play = Play::new(clock, timer);
    let (script, end) = play.script.remote_handle();
    spawn_local(script);
    spawn_local(play.tasks.for_each(|task| {
        spawn_local(task);
        ready(())
    }));
    end.await;
    play.trace.take()
}

/// Plays the script in virtual time, with a timer that is made from its clock.
async fn in_virtual_time_with<T: Timer + Clone>(timer: impl FnOnce(VirtualTimer) -> T) {
    let clock = VirtualTimer::new();
    let timer = timer(clock.clone());
    assert_in_virtual_time(&play(clock.clone(), timer).await);
    assert_eq!(clock.sleeping(), 0, "a sleep is left behind");
}

#[wasm_bindgen_test]
async fn in_virtual_time() {
    in_virtual_time_with(|clock| clock).await;
}

#[wasm_bindgen_test]
async fn in_virtual_time_that_is_shared() {
    in_virtual_time_with(|clock| Sleeps::by(&clock).shareable()).await;
}

#[wasm_bindgen_test]
async fn in_virtual_time_by_closure() {
    in_virtual_time_with(|clock| move |duration| clock.sleep(duration)).await;
}

#[wasm_bindgen_test]
async fn with_futures_timer() {
    assert_in_real_time(&play(Real::start(), FuturesTimer).await);
}

#[wasm_bindgen_test]
async fn with_a_closure() {
    // The page's own timers may end up to a millisecond early.
    let timer = |duration| {
        let late = duration + Duration::from_millis(1);
        SendWrapper::new(gloo_timers::future::sleep(late))
    };
    assert_in_real_time(&play(Real::start(), timer).await);
}
