//! Random scripts of attempts, for two wrappers that should do the same.

#![allow(dead_code, reason = "the releases have different errors")]

use crabllm_retry::{
    Instant, Timer,
    test_util::{ScriptedAttempt, Step},
};
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
    Status(u16),
    RetryAfter(Duration),
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
        4 => prop::sample::select(statuses).prop_map(Kind::Status),
        1 => Just(Kind::Disconnect),
        1 => Just(Kind::Invalid),
    ]
}

pub fn millis(least: u64, most: u64) -> impl Strategy<Value = Duration> {
    (least..=most).prop_map(Duration::from_millis)
}

impl Behavior {
    pub fn step(&self) -> Step {
        let step = match &self.kind {
            Kind::Answer(items) => Step::stream(items.iter().map(Self::step)),
            Kind::Status(status) => Step::status(*status),
            Kind::RetryAfter(asked) => Step::status(429).retry_after(*asked),
            Kind::Disconnect => Step::disconnect(),
            Kind::Invalid => Step::invalid(),
            Kind::Hang => Step::hang(),
        };
        step.after(self.latency)
    }
}

/// All that can be seen of a call.
#[derive(Debug, PartialEq)]
pub struct Run {
    /// The result, or the items of the stream.
    pub result: Vec<String>,

    /// The duration of each attempt.
    pub attempts: Vec<Duration>,

    /// The delays between them.
    pub delays: Vec<Duration>,
}

impl Run {
    pub fn new(result: Vec<String>, attempts: Vec<ScriptedAttempt>) -> Self {
        let end = |attempt: &ScriptedAttempt| attempt.ended.expect("all are over");
        let delays = attempts.windows(2).map(|two| two[1].started - end(&two[0]));
        Self {
            result,
            delays: delays.collect(),
            attempts: attempts.iter().map(|one| end(one) - one.started).collect(),
        }
    }

    /// Whether another wrapper, on tokio, did the same; `delay` has the bounds of the
    /// delay after each attempt, from 0.
    pub fn agrees_with(
        &self,
        other: &Self,
        delay: impl Fn(usize) -> RangeInclusive<Duration>,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(&self.result, &other.result);
        prop_assert_eq!(self.attempts.len(), other.attempts.len());
        // tokio's clock has a resolution of a millisecond, and rounds up.
        let tick = Duration::from_millis(1);
        for (our, their) in self.attempts.iter().zip(&other.attempts) {
            prop_assert!(our <= their && *their <= *our + tick, "{our:?} {their:?}");
        }
        for (attempt, (our, their)) in self.delays.iter().zip(&other.delays).enumerate() {
            let bounds = delay(attempt);
            prop_assert!(bounds.contains(our), "{our:?}, not in {bounds:?}");
            prop_assert!(
                bounds.start() <= their && *their <= *bounds.end() + tick,
                "{their:?}"
            );
        }
        Ok(())
    }
}

pub fn describe<T, E: fmt::Debug>(result: Result<T, E>) -> String {
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
