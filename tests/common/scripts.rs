//! Random scripts through this crate's wrapper, in virtual time, and through the one that it
//! replaces, on tokio with paused time.
//!
//! They agree on the result, the items of streams, the number of attempts, and how long each
//! takes; the delays of both lie within the same bounds.
//!
//! The file that includes this one has `Provider`, its requests and `original`, which makes
//! the wrapper that is replaced, at its root.

use crate::{
    ChatCompletionRequest, EmbeddingRequest, Provider, original, random::for_random_cases,
};
use crabllm_retry::{
    Instant, Operation, Policy, Retrying, Timer,
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{StreamExt, executor::block_on};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use std::{
    fmt,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// tokio's clock, which tests pause.
pub struct TokioTimer;

impl Timer for TokioTimer {
    type Sleep = tokio::time::Sleep;

    fn sleep(&self, duration: Duration) -> tokio::time::Sleep {
        tokio::time::sleep(duration)
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

pub fn tokio_with_paused_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// A call, and the behavior of its attempts.
#[derive(Clone, Debug)]
pub struct Case {
    pub method: Operation,
    pub policy: Policy,
    pub attempts: Vec<Behavior>,
}

impl Case {
    fn script(&self) -> Vec<Step> {
        self.attempts.iter().map(Behavior::step).collect()
    }

    /// The bounds of the delay after an attempt.
    fn delay(&self, attempt: usize) -> RangeInclusive<Duration> {
        let bound = Duration::from_millis(100) * (1 << attempt);
        match self.attempts.get(attempt) {
            Some(&Behavior {
                latency,
                kind: Kind::Status(_, Some(asked)),
            }) if latency <= self.policy.timeout => {
                asked..=bound.max(asked + (asked / 4).min(Duration::from_secs(5)))
            }
            _ => bound / 2..=bound,
        }
    }
}

/// The behavior of an attempt, or of the wait for an item of a stream.
#[derive(Clone, Debug)]
pub struct Behavior {
    pub latency: Duration,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// With the items of the stream, if it is one.
    Answer(Vec<Behavior>),
    /// With the delay that the error requests.
    Status(u16, Option<Duration>),
    Disconnect,
    Invalid,
    Hang,
}

/// An attempt that fails with one of `failures` or answers, as a stream with items
/// of `items`.
pub fn attempt(
    failures: impl Strategy<Value = Kind>,
    items: impl Strategy<Value = Kind>,
) -> impl Strategy<Value = Behavior> {
    let answer = vec(outcome(items, Just(Kind::Answer(Vec::new()))), 0..5);
    outcome(failures, answer.prop_map(Kind::Answer))
}

fn outcome(
    failures: impl Strategy<Value = Kind>,
    answers: impl Strategy<Value = Kind>,
) -> impl Strategy<Value = Behavior> {
    let latency = prop_oneof![Just(Duration::ZERO), millis(1, 90_000)];
    let kind = prop_oneof![3 => failures, 1 => answers];
    (latency, kind).prop_map(|(latency, kind)| Behavior { latency, kind })
}

/// A failure with an error that requests no delay.
pub fn error() -> impl Strategy<Value = Kind> {
    let statuses = vec![400u16, 401, 404, 408, 429, 500, 501, 502, 503, 504, 529];
    prop_oneof![
        4 => prop::sample::select(statuses).prop_map(|status| Kind::Status(status, None)),
        1 => Just(Kind::Disconnect),
        1 => Just(Kind::Invalid),
    ]
}

pub fn millis(least: u64, most: u64) -> impl Strategy<Value = Duration> {
    (least..=most).prop_map(Duration::from_millis)
}

impl Behavior {
    fn step(&self) -> Step {
        let step = match &self.kind {
            // Content at once, because only this crate waits for it.
            Kind::Answer(items) => {
                Step::stream([Step::ok()].into_iter().chain(items.iter().map(Self::step)))
            }
            Kind::Status(status, None) => Step::status(*status),
            Kind::Status(status, Some(asked)) => Step::status(*status).retry_after(*asked),
            Kind::Disconnect => Step::disconnect(),
            Kind::Invalid => Step::invalid(),
            Kind::Hang => Step::hang(),
        };
        step.after(self.latency)
    }
}

/// All that can be seen of a call.
#[derive(Debug)]
pub struct Run {
    /// The result, or the items of the stream.
    pub result: Vec<String>,

    /// The duration of each attempt.
    pub attempts: Vec<Duration>,

    /// The delays between them.
    pub delays: Vec<Duration>,

    /// The time from the last attempt's end to the call's.
    pub rest: Duration,
}

impl Run {
    /// A call through this crate's wrapper.
    pub fn ours(method: Operation, policy: &Policy, script: Vec<Step>) -> Self {
        let clock = VirtualTimer::new();
        let provider = Scripted::new(clock.clone(), script);
        let retrying = Retrying::with_timer(provider.clone(), clock.clone()).policy(policy.clone());
        let result = block_on(clock.task(call(&retrying, method)));
        Self::new(result, &provider, clock.now())
    }

    /// The same through the wrapper that it replaces.
    pub fn originals(method: Operation, policy: &Policy, script: Vec<Step>) -> Self {
        let provider = Scripted::new(TokioTimer, script);
        let retrying = original(provider.clone(), policy);
        let (result, end) = tokio_with_paused_time()
            .block_on(async { (call(&retrying, method).await, TokioTimer.now()) });
        Self::new(result, &provider, end)
    }

    fn new<T: Timer>(result: Vec<String>, provider: &Scripted<T>, end: Instant) -> Self {
        let attempts = provider.attempts().into_iter();
        let times: Vec<_> = attempts
            .map(|attempt| (attempt.started, attempt.ended.expect("all are over")))
            .collect();
        let delays = times.windows(2).map(|two| two[1].0 - two[0].1);
        Self {
            result,
            attempts: times.iter().map(|(start, end)| *end - *start).collect(),
            delays: delays.collect(),
            rest: end - times[times.len() - 1].1,
        }
    }

    fn agrees_with(&self, other: &Self, case: &Case) -> Result<(), TestCaseError> {
        prop_assert_eq!(&self.result, &other.result);
        prop_assert_eq!(self.attempts.len(), other.attempts.len());
        // tokio's clock has a resolution of a millisecond, and rounds up.
        let tick = Duration::from_millis(1);
        for (our, their) in self.attempts.iter().zip(&other.attempts) {
            prop_assert!(our <= their && *their <= *our + tick, "{our:?} {their:?}");
        }
        for (attempt, (our, their)) in self.delays.iter().zip(&other.delays).enumerate() {
            let bounds = case.delay(attempt);
            prop_assert!(bounds.contains(our), "{our:?}, not in {bounds:?}");
            prop_assert!(
                bounds.start() <= their && *their <= *bounds.end() + tick,
                "{their:?}"
            );
        }
        Ok(())
    }
}

/// Asserts that both wrappers agree on random cases.
pub fn assert_agree(subject: &str, cases: &impl Strategy<Value = Case>) {
    for_random_cases(subject, 10_000, cases, |case| {
        let ours = Run::ours(case.method, &case.policy, case.script());
        let originals = Run::originals(case.method, &case.policy, case.script());
        ours.agrees_with(&originals, &case)
            .map_err(|error| TestCaseError::fail(format!("{error}\n{ours:?}\n{originals:?}")))
    });
}

pub async fn call(provider: &impl Provider, method: Operation) -> Vec<String> {
    match method {
        Operation::ChatCompletion => vec![describe(provider.chat_completion(&request()).await)],
        Operation::ChatCompletionStream => {
            match provider.chat_completion_stream(&request()).await {
                Ok(items) => items.map(describe).collect().await,
                Err(error) => vec![format!("not opened: {error:?}")],
            }
        }
        Operation::Embedding => vec![describe(provider.embedding(&embedding()).await)],
        other => panic!("{other} is in no case"),
    }
}

pub fn request() -> ChatCompletionRequest {
    serde_json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

fn embedding() -> EmbeddingRequest {
    serde_json::from_str(r#"{"model": "m", "input": "text"}"#).unwrap()
}

fn describe<T, E: fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => format!("{error:?}"),
    }
}

/// The message of a closure's panic, empty if it returns.
pub fn panic_message<T>(f: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else {
        return String::new();
    };
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
