//! Which failures are retried, how often, and after which delays.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, exactly, poll_once, request};
use crabllm_retry::{
    Backoff, Failure, FuturesTimer, Operations, Policy, Retrying, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

fn failures(n: usize) -> impl Iterator<Item = Step> {
    (0..n).map(|_| Step::status(503))
}

fn after(seconds: u32, step: Step) -> Step {
    step.after(seconds * SECOND)
}

/// The start and the end of each attempt of a call, in seconds, and its result.
fn call<const N: usize>(script: [Step; N], change: impl FnOnce(Wrapper) -> Wrapper) -> String {
    let scene = Scene::new(script).set(change);
    let result = match block_on(scene.retrying.chat_completion(&request())) {
        Ok(_) => "ok".into(),
        Err(Error::Timeout) => "timeout".into(),
        Err(error) => error.status().unwrap().to_string(),
    };
    let mut outcome = String::new();
    let [began, mut ended] = [scene.clock.now() - scene.clock.elapsed(); 2];
    for attempt in scene.scripted.attempts() {
        ended = attempt.ended.unwrap();
        let [start, end] = [attempt.started, ended].map(|moment| (moment - began).as_secs());
        outcome += &format!("{start}-{end} ");
    }
    assert_eq!(
        scene.clock.now(),
        ended,
        "there is no sleep after the last attempt"
    );
    outcome + &result
}

// The values of these tests were worked out by hand from the contract. The model of
// `tests/model` says the same, for random calls.

#[test]
fn delays_double_and_each_attempt_has_the_whole_timeout() {
    let script = [
        Step::hang(),
        after(5, Step::status(503)),
        after(29, Step::ok()),
    ];
    assert_eq!(call(script, |r| r), "0-30 31-36 38-67 ok");
}

#[test]
fn there_is_no_sleep_after_the_last_attempt() {
    let script = || [503, 500, 502, 504].map(Step::status);
    assert_eq!(call(script(), |r| r), "0-0 1-1 3-3 502");
    assert_eq!(call(script(), |r| r.max_retries(0)), "0-0 503");
    assert_eq!(call(script(), |r| r.max_retries(3)), "0-0 1-1 3-3 7-7 504");
}

#[test]
fn a_timeout_ends_an_attempt_unless_its_answer_is_ready_too() {
    assert_eq!(call([after(30, Step::ok())], |r| r), "0-30 ok");
    assert_eq!(call([after(31, Step::ok())], |r| r), "0-30 31-31 ok");
    let unlimited = |r: Wrapper| r.timeout(Duration::ZERO);
    assert_eq!(call([after(1000, Step::ok())], unlimited), "0-1000 ok");
}

#[test]
fn a_retry_is_never_earlier_than_the_server_asks() {
    for (requested, expected) in [
        (0, "0-0 1-1 ok"),
        (7, "0-0 7-7 ok"),
        (60, "0-0 60-60 ok"),
        (61, "0-0 429"),
    ] {
        let asked = |r: Wrapper| r.retry_after(move |_| Some(requested * SECOND));
        assert_eq!(call([Step::status(429)], asked), expected);
    }
    let impatient = |r: Wrapper| r.retry_after(|_| Some(2 * SECOND)).max_retry_after(SECOND);
    assert_eq!(call([Step::status(429)], impatient), "0-0 429");
}

#[test]
fn a_deadline_limits_attempts_and_delays() {
    for (deadline, expected) in [
        (20, "0-20 timeout"),
        (30, "0-30 timeout"),
        // No delay ends at the deadline or after it.
        (31, "0-30 timeout"),
        (32, "0-30 31-32 timeout"),
        (38, "0-30 31-36 503"),
        (39, "0-30 31-36 38-39 timeout"),
    ] {
        let script = [Step::hang(), after(5, Step::status(503)), Step::hang()];
        let limited = |r: Wrapper| r.deadline(deadline * SECOND).max_retries(u32::MAX);
        assert_eq!(call(script, limited), expected);
    }
    let alone = |r: Wrapper| r.deadline(SECOND).timeout(Duration::ZERO);
    assert_eq!(call([Step::hang()], alone), "0-1 timeout");
}

#[test]
fn the_recommended_settings_survive_what_the_defaults_do_not() {
    let statuses = |status| vec![Step::status(status); 4];
    let exhausted = Step::status_with_body(429, r#"{"code": "insufficient_quota"}"#);
    for (script, ok, attempts, elapsed) in [
        (statuses(503), true, 5, 3.75..=7.5),
        (statuses(529), true, 5, 3.75..=7.5),
        (statuses(429), true, 5, 2.0..=4.0),
        (vec![after(599, Step::ok())], true, 1, 599.0..=599.0),
        (vec![Step::hang(); 2], false, 2, 900.0..=900.0),
        (vec![exhausted], false, 1, 0.0..=0.0),
    ] {
        let scene = Scene::new(script.clone()).set(Wrapper::recommended);
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(
            (result.is_ok(), scene.attempts()),
            (ok, attempts),
            "{script:?}"
        );
        let took = scene.clock.elapsed().as_secs_f64();
        assert!(elapsed.contains(&took), "{script:?}: {took}");
    }
}

#[test]
fn recommended_settings_keep_what_they_do_not_set() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let scene = Scene::new(failures(9)).set(|r| {
        r.policy_for("m", Policy::default().max_retries(1))
            .observe(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .recommended()
    });
    assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
    assert_eq!(scene.attempts(), 2);
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_poll_makes_at_most_one_attempt_however_short_the_delay() {
    fn polls(timer: impl Timer) {
        const RETRIES: usize = 1000;
        let provider = Scripted::new(VirtualTimer::manual(), failures(RETRIES));
        const TICK: Duration = Duration::from_nanos(1);
        let retrying = Retrying::with_timer(provider, timer)
            .backoff(Backoff::exponential(TICK, TICK))
            .max_retries(u32::MAX);
        let request = request();
        let mut call = pin!(retrying.chat_completion(&request));
        let mut made = 0;
        while poll_once(&mut call).is_pending() {
            let now = retrying.get_ref().attempts().len();
            assert!(now - made <= 1, "{} attempts in one poll", now - made);
            made = now;
        }
        assert_eq!(retrying.get_ref().attempts().len(), 1 + RETRIES);
    }
    polls(|_| std::future::ready(()));
    polls(FuturesTimer);
    #[cfg(feature = "async-io")]
    polls(crabllm_retry::AsyncIoTimer);
}

#[test]
fn each_setter_of_a_policy_is_one_of_the_wrapper_too() {
    macro_rules! set {
        ($settings:expr) => {
            $settings
                .max_retries(7)
                .timeout(SECOND)
                .deadline(2 * SECOND)
                .backoff(exactly(3 * SECOND))
                .throttle_backoff(exactly(4 * SECOND))
                .max_retry_after(5 * SECOND)
                .stream_idle(6 * SECOND)
                .first_content(7 * SECOND)
                .retry(Operations::EMBEDDING)
                .also_retry(Operations::MODELS)
        };
    }
    let policy = set!(Policy::default());
    let backoffs = [policy.backoff, policy.throttle_backoff.unwrap()];
    let limits = [
        policy.timeout,
        policy.deadline,
        policy.max_retry_after,
        policy.stream_idle,
        policy.first_content,
    ];
    assert_eq!(limits, [1, 2, 5, 6, 7].map(|seconds| seconds * SECOND));
    assert_eq!(backoffs, [3, 4].map(|seconds| exactly(seconds * SECOND)));
    assert_eq!(policy.retry, Operations::EMBEDDING | Operations::MODELS);
    assert_eq!(policy.max_retries, 7);
    let shown = format!("{:?}", set!(Retrying::with_timer((), VirtualTimer::new())));
    assert!(shown.contains(&format!("{policy:?}")), "{shown}");
}

#[test]
fn a_deadline_strikes_by_the_timer_even_if_the_clock_is_another() {
    let scene = Scene::new([Step::hang(), Step::hang()]);
    let sleeper = scene.clock.clone();
    // A closure's clock is the system's, which hardly moves in this test.
    let timer = move |duration| sleeper.sleep(duration);
    let retrying = scene.retrying.clone().timer(timer).deadline(10 * SECOND);
    let result = block_on(retrying.chat_completion(&request()));
    assert!(matches!(result, Err(Error::Timeout)));
    assert_eq!(scene.attempts(), 1);
}
