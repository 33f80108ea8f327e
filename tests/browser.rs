//! The clock, the timers and the entropy of a browser. It runs in Node as well, whose are
//! much the same.

#![cfg(all(target_family = "wasm", target_os = "unknown"))]
#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use crabllm_retry::{
    Backoff, FuturesTimer, Instant, Policy, Retrying, Timer,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step},
};
use futures::future::{FutureExt, join_all, select_all};
use js_sys::{Array, Function, Reflect};
use std::time::Duration;
use wasm_bindgen::JsValue;
use wasm_bindgen_test::wasm_bindgen_test;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Evaluates an expression of JavaScript.
fn js(expression: &str) -> JsValue {
    Function::new_no_args(&format!("return {expression}"))
        .call0(&JsValue::NULL)
        .unwrap()
}

/// The arguments of each call of a function of the page while `f` runs.
fn calls<R>(object: &str, function: &str, f: impl FnOnce() -> R) -> (Vec<Array>, R) {
    let object = js(object);
    let original = Reflect::get(&object, &function.into()).unwrap();
    let log = Array::new();
    let spy = Function::new_with_args(
        "log, original",
        "return function (...args) { log.push(args); return original.apply(this, args); }",
    )
    .call2(&JsValue::NULL, &log, &original)
    .unwrap();
    Reflect::set(&object, &function.into(), &spy).unwrap();
    let result = f();
    Reflect::set(&object, &function.into(), &original).unwrap();
    (log.iter().map(|args| Array::from(&args)).collect(), result)
}

/// The milliseconds of the timer that a new sleep asks the page for.
fn asked_for(duration: Duration) -> f64 {
    let (calls, _sleep) = calls("globalThis", "setTimeout", || FuturesTimer.sleep(duration));
    assert_eq!(calls.len(), 1, "{duration:?}");
    calls[0].get(1).as_f64().unwrap()
}

#[wasm_bindgen_test]
fn a_sleep_asks_for_whole_milliseconds_rounded_up_and_no_more_than_the_page_can_count() {
    let longest = f64::from(i32::MAX);
    for (duration, expected) in [
        (Duration::from_nanos(1), 1.0),
        (MS, 1.0),
        (MS + Duration::from_nanos(1), 2.0),
        (Duration::from_micros(49_001), 50.0),
        (50 * MS, 50.0),
        (24 * DAY, 24.0 * 86_400_000.0),
        (25 * DAY, longest),
        (50 * DAY, longest),
        (Duration::MAX, longest),
    ] {
        assert_eq!(asked_for(duration), expected, "{duration:?}");
    }
}

#[wasm_bindgen_test]
async fn no_sleep_ends_early() {
    join_all((1..=1000).map(async |i| {
        let duration = Duration::from_micros(97 * i);
        let begun = Instant::now();
        FuturesTimer.sleep(duration).await;
        let slept = begun.elapsed();
        assert!(slept >= duration, "{slept:?} of {duration:?}");
    }))
    .await;
}

/// The page takes 2³¹ ms and more as zero.
#[wasm_bindgen_test]
async fn a_timeout_of_months_does_not_end_at_once() {
    for timeout in [25 * DAY, 50 * DAY, 10_000 * DAY] {
        let slow = Scripted::new(FuturesTimer, [Step::ok().after(20 * MS)]);
        let retrying = Retrying::new(slow).policy(Policy::default().timeout(timeout));
        assert!(retrying.chat_completion(&common::request()).await.is_ok());
        assert_eq!(retrying.get_ref().attempts().len(), 1, "{timeout:?}");

        let sleep = FuturesTimer.sleep(timeout);
        let enough = FuturesTimer.sleep(20 * MS);
        let (_, first, _) = select_all([sleep.boxed(), enough.boxed()]).await;
        assert_eq!(first, 1, "{timeout:?}");
    }
}

/// Otherwise all visitors of a page would draw the same delays. No other test of this file
/// draws any.
#[wasm_bindgen_test]
fn jitter_is_seeded_by_the_page() {
    let draw = || Backoff::default().delays().next();
    let (calls, _delay) = calls("globalThis.crypto", "getRandomValues", draw);
    assert!(!calls.is_empty());
}
