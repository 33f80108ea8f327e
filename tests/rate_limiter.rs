//! Calls that wait for their turn while a server throttles.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "serde",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, poll_once, request};
use crabllm_retry::{
    Config, Event, GiveUpReason, Instant, Operation, Operations, RateLimiter, RetryBudget,
    Retrying, Timer,
    crabllm_core_0_0_19::{EmbeddingInput, EmbeddingRequest, Error, Provider},
    test_util::{Step, VirtualTimer},
};
use futures::{FutureExt, future::join_all};
use futures_test::task::new_count_waker;
use std::{
    future::{Pending, pending},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake},
    time::Duration,
};

const MODEL: Option<&str> = Some("m");

/// The status of a failed result.
fn status<T>(result: Result<T, Error>) -> Option<u16> {
    match result {
        Err(Error::Provider { status, .. }) => Some(status),
        _ => None,
    }
}

/// The moments at which attempts started, in milliseconds.
fn starts(scene: &Scene) -> Vec<u128> {
    let begin = scene.clock.elapsed();
    let now = scene.clock.now();
    let starts = scene.scripted.attempts().into_iter();
    let starts = starts.map(|attempt| (begin - (now - attempt.started)).as_micros() as f64);
    starts
        .map(|micros| (micros / 1000.0).round() as u128)
        .collect()
}

/// A wrapper whose limiter has just been woken at the time zero by a call that was
/// refused, with a script for later calls. Its clock moves by hand.
fn awake(shareable: bool, script: impl IntoIterator<Item = Step>) -> (Scene, RateLimiter) {
    let limiter = RateLimiter::adaptive();
    let script = [Step::status(429)].into_iter().chain(script);
    let scene = Scene::by_hand(script).set(|r| r.rate_limiter(limiter.clone()));
    let scene = if shareable { scene.shareable() } else { scene };
    let refused = scene.retrying.clone().max_retries(0);
    let answer = refused.chat_completion(&request()).now_or_never();
    assert_eq!(status(answer.unwrap()), Some(429));
    assert_eq!(limiter.rate(MODEL), Some(4.0));
    (scene, limiter)
}

/// Moves the clock by hand, in steps of a millisecond.
fn advance(clock: &VirtualTimer, millis: u32) {
    (0..millis).for_each(|_| clock.advance(SECOND / 1000));
}

/// The events of a wrapper's calls that wait or end, in words.
fn events(retrying: Wrapper) -> (Wrapper, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    let retrying = retrying.observe(move |event| {
        let (attempt, at) = (event.attempt(), event.elapsed().as_millis());
        seen.lock().unwrap().push(match event {
            Event::Waiting { wait, .. } => {
                format!(
                    "{at}: waited {} ms after attempt {attempt}",
                    wait.as_millis()
                )
            }
            Event::Attempt { .. } => format!("{at}: attempt {attempt}"),
            Event::Success { .. } => format!("{at}: success {attempt}"),
            Event::GaveUp { reason, .. } => format!("{at}: {reason} {attempt}"),
            Event::Retry { .. } => format!("{at}: failure {attempt}"),
            other => format!("{other:?}"),
        });
    });
    (retrying, log)
}

#[test]
fn a_dormant_limiter_changes_nothing() {
    let limiter = RateLimiter::adaptive();
    let scene = Scene::new([Step::status(503), Step::ok(), Step::ok()])
        .set(|r| r.rate_limiter(limiter.clone()));
    for _ in 0..2 {
        assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    }
    assert_eq!(scene.sleeps.asked(), [SECOND]);
    assert_eq!(limiter.rate(MODEL), None);
}

#[test]
fn calls_wait_for_evenly_spaced_turns_that_come_faster_and_faster() {
    for shareable in [false, true] {
        let limiter = RateLimiter::adaptive();
        let scene = Scene::new([Step::status(429)]).set(|r| r.rate_limiter(limiter.clone()));
        let scene = if shareable { scene.shareable() } else { scene };
        let request = request();
        let calls = (0..6).map(|_| scene.retrying.chat_completion(&request));
        let refused = scene.retrying.clone().max_retries(0);
        assert!(block_on(refused.chat_completion(&request)).is_err());
        assert!(block_on(join_all(calls)).iter().all(Result::is_ok));
        assert_eq!(starts(&scene), [0, 250, 375, 458, 521, 571, 613]);
        let rate = limiter.rate(MODEL).unwrap();
        assert!((rate - 28.0).abs() < 0.1, "{rate}");
    }
}

#[test]
fn a_retry_goes_before_calls_that_have_not_started() {
    let limiter = RateLimiter::adaptive();
    let script = [Step::status(429), Step::status(503)];
    let scene = Scene::new(script).set(|r| r.rate_limiter(limiter.clone()));
    let (retrying, log) = events(scene.retrying.clone().backoff(common::exactly(SECOND / 10)));
    let request = request();
    assert!(
        block_on(
            scene
                .retrying
                .clone()
                .max_retries(0)
                .chat_completion(&request)
        )
        .is_err()
    );
    let calls = (0..3).map(|_| retrying.chat_completion(&request));
    block_on(join_all(calls));
    // The retry joins at 350 ms, when two others wait for the turn at 375 ms.
    assert_eq!(
        *log.lock().unwrap(),
        [
            "250: waited 250 ms after attempt 0",
            "250: attempt 1",
            "250: failure 1",
            "375: waited 25 ms after attempt 1",
            "375: attempt 2",
            "375: success 2",
            "458: waited 458 ms after attempt 0",
            "458: attempt 1",
            "458: success 1",
            "520: waited 520 ms after attempt 0",
            "520: attempt 1",
            "520: success 1",
        ]
    );
}

#[test]
fn a_call_that_has_its_turn_and_is_never_polled_again_delays_nobody() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let request = request();
        let mut calls: Vec<_> = (0..3)
            .map(|_| Box::pin(scene.retrying.chat_completion(&request)))
            .collect();
        assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
        // The turns of the first two come, and nobody polls them.
        let mut millis = 0;
        while poll_once(&mut calls[2]).is_pending() {
            advance(&scene.clock, 1);
            millis += 1;
        }
        assert!((458..461).contains(&millis), "{millis} ms, {shareable}");
    }
}

#[test]
fn turns_are_granted_even_if_no_call_is_polled() {
    let (scene, limiter) = awake(true, []);
    let request = request();
    let mut calls = [(); 3].map(|()| Box::pin(scene.retrying.chat_completion(&request)));
    let wakers = [(); 3].map(|()| new_count_waker());
    for (call, (waker, _)) in calls.iter_mut().zip(&wakers) {
        let mut cx = Context::from_waker(waker);
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    let mut woken = Vec::new();
    for millis in [249, 2, 125, 84] {
        advance(&scene.clock, millis);
        woken.push(wakers.each_ref().map(|(_, count)| count.get()));
    }
    assert_eq!(woken, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]);
    assert_eq!(scene.attempts(), 1);
    assert!(limiter.rate(MODEL) > Some(12.0));
}

#[test]
fn a_waiting_call_that_is_dropped_costs_the_others_nothing() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let request = request();
        let mut first = Box::pin(scene.retrying.chat_completion(&request));
        let mut second = Box::pin(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        advance(&scene.clock, 100);
        drop(first);
        advance(&scene.clock, 149);
        assert!(poll_once(&mut second).is_pending());
        advance(&scene.clock, 2);
        assert!(poll_once(&mut second).is_ready(), "shareable: {shareable}");
    }
}

#[test]
fn a_call_that_is_dropped_at_its_turn_passes_it_on() {
    let (scene, _) = awake(true, []);
    let request = request();
    let mut calls: Vec<_> = (0..4)
        .map(|_| Box::pin(scene.retrying.chat_completion(&request)))
        .collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    advance(&scene.clock, 251);
    drop(calls.remove(0));
    assert!(poll_once(&mut calls[0]).is_ready());
    // The turn of the next one lapses if a later one was granted.
    advance(&scene.clock, 210);
    drop(calls.remove(1));
    assert_eq!(scene.attempts(), 2);
    assert!(poll_once(&mut calls[1]).is_ready());
}

/// A timer that may be shared, and that wakes nobody.
struct Stopped(VirtualTimer);

impl Timer for Stopped {
    type Sleep = Pending<()>;

    fn sleep(&self, _: Duration) -> Pending<()> {
        pending()
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

#[test]
fn another_wrapper_looks_at_the_next_turn_when_the_first_call_is_gone() {
    let (scene, limiter) = awake(true, []);
    let stopped = Retrying::with_timer(scene.scripted.clone(), Stopped(scene.clock.clone()))
        .rate_limiter(limiter);
    let request = request();
    let mut first = Box::pin(stopped.chat_completion(&request));
    let mut second = Box::pin(scene.retrying.chat_completion(&request));
    let (waker, woken) = new_count_waker();
    assert!(poll_once(&mut first).is_pending());
    let mut cx = Context::from_waker(&waker);
    assert!(second.as_mut().poll(&mut cx).is_pending());
    advance(&scene.clock, 100);
    drop(first);
    drop(stopped);
    advance(&scene.clock, 151);
    assert_eq!(woken.get(), 1);
    assert!(poll_once(&mut second).is_ready());
}

#[test]
fn a_waker_that_panics_keeps_no_other_call_waiting() {
    struct Panicking;

    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("as it should");
        }
    }

    let (scene, _) = awake(true, []);
    let request = request();
    let mut first = Box::pin(scene.retrying.chat_completion(&request));
    let mut second = Box::pin(scene.retrying.chat_completion(&request));
    let panicking = Arc::new(Panicking).into();
    let (waker, woken) = new_count_waker();
    let first = first.as_mut().poll(&mut Context::from_waker(&panicking));
    let pending = second.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(first.is_pending() && pending.is_pending());
    advance(&scene.clock, 376);
    assert_eq!(woken.get(), 1);
}

#[test]
fn a_requested_delay_holds_back_all_calls_of_the_model() {
    for shareable in [false, true] {
        let body = r#"{"error": "try again in 20s"}"#;
        let (scene, _) = awake(shareable, [Step::status_with_body(429, body)]);
        let request = request();
        let mut refused = Box::pin(scene.retrying.chat_completion(&request));
        let mut other = Box::pin(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut refused).is_pending() && poll_once(&mut other).is_pending());
        advance(&scene.clock, 251);
        assert!(poll_once(&mut refused).is_pending());
        assert_eq!(scene.attempts(), 2);
        advance(&scene.clock, 19_998);
        assert!(poll_once(&mut other).is_pending());
        advance(&scene.clock, 3);
        // The retry joined at the same moment, and retries go first.
        assert!(poll_once(&mut refused).is_ready() || poll_once(&mut other).is_ready());
        assert_eq!(scene.attempts(), 3);
    }
}

#[test]
fn a_delay_that_is_too_long_holds_back_nobody() {
    let body = r#"{"error": "try again in 61s"}"#;
    let (scene, _) = awake(true, [Step::status_with_body(429, body)]);
    advance(&scene.clock, 250);
    let answer = scene.retrying.chat_completion(&request()).now_or_never();
    assert_eq!(status(answer.unwrap()), Some(429));
    advance(&scene.clock, 1000);
    let answer = scene.retrying.chat_completion(&request()).now_or_never();
    assert!(answer.unwrap().is_ok());
}

#[test]
fn a_call_waits_until_its_deadline_and_no_longer() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let (retrying, log) = events(scene.retrying.clone().deadline(SECOND / 5));
        let request = request();
        let mut call = Box::pin(retrying.chat_completion(&request));
        let (waker, woken) = new_count_waker();
        let mut poll = || call.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        advance(&scene.clock, 199);
        assert_eq!(woken.get(), 0);
        advance(&scene.clock, 1);
        assert_eq!(woken.get(), 1);
        assert!(matches!(poll(), Poll::Ready(Err(Error::Timeout))));
        assert_eq!(scene.attempts(), 1);
        let gave_up = format!("200: {} 0", GiveUpReason::Deadline);
        assert_eq!(*log.lock().unwrap(), [gave_up]);
    }
}

#[test]
fn a_call_that_is_held_back_beyond_its_deadline_ends_at_once() {
    let body = r#"{"error": "try again in 20s"}"#;
    let (scene, _) = awake(true, [Step::status_with_body(429, body)]);
    let request = request();
    let mut refused = Box::pin(scene.retrying.chat_completion(&request));
    let hasty = scene.retrying.clone().deadline(10 * SECOND);
    let mut waiting = Box::pin(hasty.chat_completion(&request));
    let (waker, woken) = new_count_waker();
    assert!(poll_once(&mut refused).is_pending());
    assert!(
        waiting
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    advance(&scene.clock, 251);
    assert!(poll_once(&mut refused).is_pending());
    assert_eq!(woken.get(), 1);
    let late = poll_once(&mut waiting);
    assert!(matches!(late, Poll::Ready(Err(Error::Timeout))));
    let late = hasty.chat_completion(&request).now_or_never();
    assert!(matches!(late, Some(Err(Error::Timeout))));
    assert_eq!(scene.attempts(), 2);
}

#[test]
fn a_retry_that_is_held_back_beyond_the_deadline_returns_its_error_and_its_cost() {
    let (scene, limiter) = awake(true, [Step::status(503)]);
    let budget = RetryBudget::default();
    let retrying = scene.retrying.clone().budget(budget.clone());
    let retrying = retrying.deadline(3 * SECOND / 2);
    let request = request();
    advance(&scene.clock, 1000);
    let mut failed = Box::pin(retrying.chat_completion(&request));
    assert!(poll_once(&mut failed).is_pending());
    assert_eq!(budget.available(), 486);
    // Another call is held back for longer meanwhile.
    let hold = scene
        .retrying
        .call(Operation::Other("x"), MODEL, |_| async {
            let body = "try again in 20s".to_owned();
            Err::<(), _>(Error::Provider { status: 429, body })
        });
    let mut hold = Box::pin(hold);
    advance(&scene.clock, 500);
    assert!(poll_once(&mut hold).is_pending());
    advance(&scene.clock, 500);
    let Poll::Ready(answer) = poll_once(&mut failed) else {
        panic!("it waits for its turn");
    };
    assert_eq!(status(answer), Some(503));
    assert_eq!(budget.available(), 500);
    assert!(limiter.rate(MODEL).is_some());
}

#[test]
fn at_most_ten_retries_are_free() {
    let refusals = || (0..20).map(|_| Step::status(429));
    let attempts = |retries, operations: Operations| {
        let budget = RetryBudget::default();
        let scene = Scene::new(refusals()).set(|r| {
            r.max_retries(retries)
                .retry(operations)
                .budget(budget.clone())
                .rate_limiter(RateLimiter::adaptive())
        });
        let answer = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(status(answer), Some(429));
        (scene.attempts(), 500 - budget.available())
    };
    assert_eq!(attempts(2, Operations::CHAT), (13, 10));
    assert_eq!(attempts(0, Operations::CHAT), (1, 0));
    assert_eq!(attempts(2, Operations::NONE), (1, 0));
}

#[test]
fn free_retries_keep_the_delay_of_the_first_and_counted_ones_their_own() {
    let script = [429, 503, 429, 503].map(Step::status);
    let scene = Scene::new(script).set(|r| r.rate_limiter(RateLimiter::adaptive()));
    let (retrying, log) = events(scene.retrying.clone());
    assert!(block_on(retrying.chat_completion(&request())).is_ok());
    assert_eq!(starts(&scene), [0, 1000, 2000, 3000, 5000]);
    assert_eq!(log.lock().unwrap().last().unwrap(), "5000: success 5");
}

#[test]
fn a_success_after_free_retries_neither_earns_nor_refunds() {
    let spent = |script: &[u16]| {
        let budget = RetryBudget::default();
        // One call that failed for good.
        let script = [503, 503, 503].iter().chain(script).copied();
        let scene = Scene::new(script.map(Step::status)).set(|r| {
            r.budget(budget.clone())
                .rate_limiter(RateLimiter::adaptive())
        });
        assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
        let before = budget.available();
        assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
        i64::from(budget.available()) - i64::from(before)
    };
    assert_eq!(spent(&[]), 1);
    assert_eq!(spent(&[429]), 0);
    assert_eq!(spent(&[503]), 0);
    assert_eq!(spent(&[503, 429]), -14);
    assert_eq!(spent(&[429, 503]), 0);
}

#[test]
fn a_failure_that_no_wait_mends_wakes_nothing() {
    let body = r#"{"error": {"code": "insufficient_quota"}}"#;
    let limiter = RateLimiter::adaptive();
    let steps = (0..9).map(|_| Step::status_with_body(429, body));
    let scene = Scene::new(steps).set(|r| r.retry_if(|_| true).rate_limiter(limiter.clone()));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
    assert_eq!(scene.attempts(), 3);
    assert_eq!(limiter.rate(MODEL), None);
}

#[test]
fn a_model_is_dormant_after_a_minute_and_the_next_call_notices() {
    let (scene, limiter) = awake(true, []);
    let call = |model| {
        let call = scene
            .retrying
            .call(Operation::Other("x"), model, |_| async {
                Ok::<_, Error>(())
            });
        assert!(call.now_or_never().is_some());
    };
    scene.clock.advance(60 * SECOND - SECOND / 1000);
    call(Some("another"));
    assert_eq!(limiter.rate(MODEL), Some(4.0));
    scene.clock.advance(SECOND / 1000);
    assert_eq!(limiter.rate(MODEL), Some(4.0));
    call(Some("another"));
    assert_eq!(limiter.rate(MODEL), None);
    assert_eq!(format!("{limiter:?}"), "RateLimiter { awake: 0, .. }");
}

#[test]
fn a_model_with_waiting_calls_stays_awake() {
    let body = "try again in 59s";
    let (scene, limiter) = awake(true, []);
    let request = request();
    let throttled = |body: &str| {
        let body = body.to_owned();
        let call = scene.retrying.call(Operation::Other("x"), MODEL, move |_| {
            let body = body.clone();
            async { Err::<(), _>(Error::Provider { status: 429, body }) }
        });
        let mut call = Box::pin(call);
        assert!(poll_once(&mut call).is_pending());
    };
    scene.clock.advance(SECOND);
    throttled(body);
    let mut waiting = Box::pin(scene.retrying.chat_completion(&request));
    scene.clock.advance(58 * SECOND);
    assert!(poll_once(&mut waiting).is_pending());
    scene.clock.advance(30 * SECOND);
    assert!(poll_once(&mut waiting).is_ready());
    // The wait ended 29 s ago at most, the last refusal was 88 s ago.
    assert!(limiter.rate(MODEL).is_some());
    scene.clock.advance(60 * SECOND);
    assert!(
        scene
            .retrying
            .chat_completion(&request)
            .now_or_never()
            .is_some()
    );
    assert_eq!(limiter.rate(MODEL), None);
}

#[test]
fn at_most_1024_models_are_awake_and_none_with_waiting_calls_is_forgotten() {
    let (scene, limiter) = awake(true, []);
    let request = request();
    let mut waiting = Box::pin(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut waiting).is_pending());
    let names: Vec<_> = (0..1100).map(|n| n.to_string()).collect();
    let retrying = scene.retrying.clone().max_retries(0);
    for name in &names {
        let call = retrying.call(Operation::Other("x"), Some(name), |_| async {
            let body = String::new();
            Err::<(), _>(Error::Provider { status: 429, body })
        });
        assert!(call.now_or_never().unwrap().is_err());
    }
    let awake: Vec<_> = names
        .iter()
        .map(|name| limiter.rate(Some(name)).is_some())
        .collect();
    assert_eq!(awake.iter().filter(|&&awake| awake).count(), 1023);
    assert!(
        awake[..77].iter().all(|&awake| !awake),
        "the oldest go first"
    );
    assert!(limiter.rate(MODEL).is_some());
}

#[test]
fn operations_that_are_not_retried_wait_and_teach_too() {
    let (scene, _) = awake(true, []);
    let embedding = EmbeddingRequest {
        model: "m".into(),
        input: EmbeddingInput::Single("x".into()),
    };
    assert!(
        scene
            .retrying
            .embedding(&embedding)
            .now_or_never()
            .is_none()
    );
    advance(&scene.clock, 250);
    assert!(
        scene
            .retrying
            .embedding(&embedding)
            .now_or_never()
            .is_some()
    );

    let limiter = RateLimiter::adaptive();
    let scene = Scene::new([Step::status(429)]).set(|r| r.rate_limiter(limiter.clone()));
    assert!(block_on(scene.retrying.embedding(&embedding)).is_err());
    assert_eq!(limiter.rate(MODEL), Some(4.0));
}

#[test]
fn a_stream_that_is_refused_before_its_first_content_counts() {
    let limiter = RateLimiter::adaptive();
    let script = [Step::stream([Step::announcement(), Step::status(429)])];
    let scene = Scene::new(script).set(|r| {
        r.also_retry(Operations::STREAMS)
            .rate_limiter(limiter.clone())
    });
    let (retrying, log) = events(scene.retrying.clone());
    assert!(block_on(retrying.chat_completion_stream(&request())).is_ok());
    assert_eq!(limiter.rate(MODEL), Some(4.0));
    assert_eq!(log.lock().unwrap().last().unwrap(), "1000: success 2");
}

#[test]
fn a_raw_body_is_known_by_its_model() {
    let limiter = RateLimiter::adaptive();
    let scene = Scene::new([Step::status(429)]).set(|r| r.rate_limiter(limiter.clone()));
    let body = || br#"{"model": "raw", "messages": []}"#.as_slice().into();
    assert!(block_on(scene.retrying.anthropic_messages_raw(body())).is_ok());
    assert_eq!(limiter.rate(Some("raw")), Some(4.0));
    assert_eq!(limiter.rate(None), None);
}

#[test]
fn calls_without_a_model_share_one_rate() {
    let limiter = RateLimiter::adaptive();
    let scene = Scene::new([]).set(|r| r.max_retries(0).rate_limiter(limiter.clone()));
    let call = scene.retrying.call(Operation::Other("x"), None, |_| async {
        let body = String::new();
        Err::<(), _>(Error::Provider { status: 429, body })
    });
    assert!(block_on(call).is_err());
    assert_eq!(limiter.rate(None), Some(4.0));
}

#[test]
fn a_file_sets_a_limiter_unless_there_is_one() {
    let config: Config = toml::from_str("[rate_limiter]").unwrap();
    assert_eq!(
        toml::from_str(&toml::to_string(&config).unwrap()),
        Ok(config.clone())
    );
    assert!(toml::from_str::<Config>("[rate_limiter]\nrate = 4").is_err());

    let refusals = || (0..4).map(|_| Step::status(429));
    let scene = Scene::new(refusals()).set(|r| r.config(config.clone()));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());

    let limiter = RateLimiter::adaptive();
    let scene = Scene::new(refusals()).set(|r| r.rate_limiter(limiter.clone()).config(config));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert!(limiter.rate(MODEL).is_some());
}

#[test]
fn the_recommended_settings_have_a_limiter() {
    let scene = Scene::new((0..8).map(|_| Step::status(429))).set(Retrying::recommended);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.attempts(), 9);
}
