//! The same random scripts through crabllm-core's own `Retrying`, on tokio with
//! paused time, and through this crate's, on the virtual timer.
//!
//! They agree on the result, the items of streams, the number of attempts, and
//! how long each takes; the delays of both lie within the same bounds. This crate differs
//! only on purpose, and each difference is a test.
//!
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_CASES` choose other scripts and more.

#![cfg(all(
    feature = "crabllm-core-0_0_25",
    feature = "futures-timer",
    feature = "test-util"
))]

#[path = "common/mod.rs"]
mod common;
#[path = "common/random.rs"]
mod random;
#[path = "common/scripts.rs"]
mod scripts;

use common::{Sleeps, block_on};
use crabllm_retry::{
    Operation, Operations, Policy, Retrying, Timer,
    crabllm_core_0_0_25::{self as upstream, ChatCompletionRequest, Provider, json},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::StreamExt;
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use random::for_random_cases;
use scripts::{
    Behavior, Kind, Run, TokioTimer, attempt, describe, error, millis, panic_message,
    tokio_with_paused_time,
};
use std::{ops::RangeInclusive, time::Duration};

/// A call, and the behavior of its attempts.
#[derive(Clone, Debug)]
struct Case {
    streams: bool,
    max_retries: u32,
    timeout: Duration,
    max_retry_after: Duration,
    stream_idle: Duration,
    attempts: Vec<Behavior>,
}

prop_compose! {
    fn cases()(
        streams in any::<bool>(),
        max_retries in 0u32..5,
        timeout in millis(1, 60_000),
        max_retry_after in seconds(100),
        stream_idle in millis(1, 60_000),
        attempts in vec(attempt(failure(), failure()), 0..7),
    ) -> Case {
        Case { streams, max_retries, timeout, max_retry_after, stream_idle, attempts }
    }
}

fn failure() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => error(),
        1 => seconds(120).prop_map(Kind::RetryAfter),
        1 => Just(Kind::Hang),
    ]
}

fn seconds(most: u64) -> impl Strategy<Value = Duration> {
    (0..=most).prop_map(Duration::from_secs)
}

impl Case {
    fn script(&self) -> Vec<Step> {
        self.attempts.iter().map(Behavior::step).collect()
    }

    fn run_ours<T: Timer>(&self, clock: &VirtualTimer, timer: T) -> Run {
        let provider = Scripted::new(clock.clone(), self.script());
        let policy = Policy::default()
            .max_retries(self.max_retries)
            .timeout(self.timeout)
            .max_retry_after(self.max_retry_after)
            .stream_idle(self.stream_idle)
            .also_retry(Operations::STREAMS);
        let retrying = Retrying::with_timer(provider.clone(), timer).policy(policy);
        let result = block_on(clock.task(call(&retrying, self.streams)));
        Run::new(result, provider.attempts())
    }

    fn run_upstreams(&self, tokio: &tokio::runtime::Runtime) -> Run {
        let provider = Scripted::new(TokioTimer, self.script());
        let retrying = upstream::Retrying::new(provider.clone())
            .max_retries(self.max_retries)
            .timeout(self.timeout)
            .max_retry_after(self.max_retry_after)
            .stream_idle(self.stream_idle);
        let result = tokio.block_on(call(&retrying, self.streams));
        Run::new(result, provider.attempts())
    }

    /// The bounds of the delay after an attempt.
    fn delay(&self, attempt: usize) -> RangeInclusive<Duration> {
        let bound = Duration::from_millis(100) * (1 << attempt);
        match self.attempts.get(attempt).map(|outcome| &outcome.kind) {
            Some(Kind::RetryAfter(asked)) if self.reaches_its_end(attempt) => {
                *asked..=bound.max(*asked + (*asked / 4).min(Duration::from_secs(5)))
            }
            _ => bound / 2..=bound,
        }
    }

    /// Whether an attempt ends before its timeout.
    fn reaches_its_end(&self, attempt: usize) -> bool {
        self.attempts[attempt].latency <= self.timeout
    }
}

async fn call(provider: &impl Provider, streams: bool) -> Vec<String> {
    if !streams {
        let result = provider.chat_completion(&request()).await;
        return vec![describe(result)];
    }
    match provider.chat_completion_stream(&request()).await {
        Ok(items) => items.map(describe).collect().await,
        Err(error) => vec![format!("not opened: {error:?}")],
    }
}

fn request() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

#[test]
fn random_scripts_go_the_same_way() {
    let tokio = tokio_with_paused_time();
    for_random_cases("DIFFERENTIAL", 10_000, &cases(), |case| {
        let upstreams = case.run_upstreams(&tokio);
        // With a sleep for each call, and with one for all.
        let (clock, other) = (VirtualTimer::new(), VirtualTimer::new());
        let own = case.run_ours(&clock, clock.clone());
        let shared = case.run_ours(&other, Sleeps::by(&other).shareable());
        [own, shared].iter().try_for_each(|ours| {
            ours.agrees_with(&upstreams, |attempt| case.delay(attempt))
                .map_err(|error| TestCaseError::fail(format!("{error}\n{ours:?}\n{upstreams:?}")))
        })
    });
}

/// The intended differences.
mod differences {
    use super::*;

    /// A call through both wrappers, and the time that it took.
    fn both(script: impl Fn() -> Vec<Step>, max_retries: u32) -> [(Run, Duration); 2] {
        let timer = VirtualTimer::new();
        let provider = Scripted::new(timer.clone(), script());
        let retrying = Retrying::with_timer(provider.clone(), timer.clone());
        let retrying = retrying.max_retries(max_retries);
        let result = block_on(timer.task(call(&retrying, false)));
        let ours = (Run::new(result, provider.attempts()), timer.elapsed());

        let provider = Scripted::new(TokioTimer, script());
        let retrying = upstream::Retrying::new(provider.clone()).max_retries(max_retries);
        let (result, elapsed) = tokio_with_paused_time().block_on(async {
            let begin = TokioTimer.now();
            let result = call(&retrying, false).await;
            (result, TokioTimer.now() - begin)
        });
        [ours, (Run::new(result, provider.attempts()), elapsed)]
    }

    fn failures(n: usize) -> Vec<Step> {
        (0..n).map(|_| Step::status(503)).collect()
    }

    #[test]
    fn there_is_no_sleep_after_the_last_attempt_and_delays_have_a_maximum() {
        let [ours, upstreams] = both(|| failures(13), 12);
        let [longest, upstreams_longest] = [&ours, &upstreams].map(|run| run.0.delays.iter().max());
        assert!(longest.unwrap() <= &Duration::from_secs(20));
        assert!(upstreams_longest.unwrap() >= &Duration::from_secs(100));
        let [last, upstreams_last] = [&ours, &upstreams]
            .map(|(run, elapsed)| *elapsed - run.delays.iter().sum::<Duration>());
        assert!(last.is_zero() && upstreams_last >= Duration::from_secs(100));
    }

    #[test]
    fn a_requested_delay_is_spread_and_does_not_shorten_the_backoff() {
        let tick = Duration::from_millis(1);
        for (requested, least, most) in [(0, 50, 100), (8000, 8000, 10_000)] {
            let requested = tick * requested;
            let [ours, upstreams] = both(|| vec![Step::status(429).retry_after(requested)], 1);
            let delay = ours.0.delays[0];
            assert!((tick * least..=tick * most).contains(&delay), "{delay:?}");
            assert_ne!(delay, requested);
            assert!(upstreams.0.delays[0] <= requested + tick);
        }
    }

    #[test]
    fn openings_are_retried_only_on_request() {
        let ours = Retrying::with_timer(
            Scripted::new(VirtualTimer::new(), failures(1)),
            VirtualTimer::new(),
        );
        let items = block_on(call(&ours, true));
        assert_eq!((items.len(), ours.get_ref().attempts().len()), (1, 1));

        let upstreams = upstream::Retrying::new(Scripted::new(TokioTimer, failures(1)));
        let items = tokio_with_paused_time().block_on(call(&upstreams, true));
        assert_eq!((items.len(), upstreams.get_ref().attempts().len()), (0, 2));
    }

    #[test]
    fn every_method_is_the_inner_providers_own() {
        let provider = || Scripted::new(VirtualTimer::new(), []);
        let ours = Retrying::with_timer(provider(), VirtualTimer::new());
        let upstreams = upstream::Retrying::new(provider());
        assert!(ours.is_openai_compat() && !upstreams.is_openai_compat());

        let raw = || br#"{"model": "m", "messages": []}"#.as_slice().into();
        assert!(block_on(ours.chat_completion_raw("m", raw())).is_ok());
        tokio_with_paused_time()
            .block_on(upstreams.chat_completion_raw("m", raw()))
            .unwrap();
        let called = |provider: &Scripted<_>| provider.attempts()[0].operation;
        assert_eq!(called(ours.get_ref()), Operation::ChatCompletionRaw);
        assert_eq!(called(upstreams.get_ref()), Operation::ChatCompletion);
    }

    #[test]
    fn upstreams_wrapper_panics_on_smol_and_this_one_returns() {
        let provider = || Scripted::new(VirtualTimer::new(), failures(1));

        let ours = Retrying::new(provider());
        assert!(smol::block_on(ours.chat_completion(&request())).is_ok());

        let upstreams = upstream::Retrying::new(provider());
        let message = panic_message(|| smol::block_on(upstreams.chat_completion(&request())));
        assert!(message.contains("no reactor running"), "{message}");
    }
}
