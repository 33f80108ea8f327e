//! The executor of a web page, with all timers. It runs in Node as well.

use crate::script::{Clock, Play, Real, Shareable, assert_in_real_time, assert_in_virtual_time};
use crabllm_retry::{FuturesTimer, Timer, test_util::VirtualTimer};
use futures::{FutureExt, StreamExt, future::ready};
use send_wrapper::SendWrapper;
use std::time::Duration;
use wasm_bindgen_futures::spawn_local;
use wasm_bindgen_test::wasm_bindgen_test;

async fn played<C: Clock, T: Timer + Clone>(clock: C, timer: T) -> Vec<(f64, String)> {
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

async fn played_in_virtual_time<T: Timer + Clone>(timer: impl FnOnce(VirtualTimer) -> T) {
    let clock = VirtualTimer::new();
    let timer = timer(clock.clone());
    assert_in_virtual_time(&played(clock.clone(), timer).await);
    assert_eq!(clock.sleeping(), 0, "a sleep is left behind");
}

#[wasm_bindgen_test]
async fn in_virtual_time() {
    played_in_virtual_time(|clock| clock).await;
    played_in_virtual_time(Shareable).await;
    played_in_virtual_time(|clock| move |duration| clock.sleep(duration)).await;
}

#[wasm_bindgen_test]
async fn with_futures_timer() {
    assert_in_real_time(&played(Real::start(), FuturesTimer).await);
}

#[wasm_bindgen_test]
async fn with_a_closure() {
    // The page's own timers may end up to a millisecond early.
    let timer = |duration| {
        let late = duration + Duration::from_millis(1);
        SendWrapper::new(gloo_timers::future::sleep(late))
    };
    assert_in_real_time(&played(Real::start(), timer).await);
}
