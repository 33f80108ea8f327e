//! Random calls of a fallback go as a small model of the contract says: which side each one
//! asks and leaves, its result, the events, and each look at the clock.
//!
//! `FALLBACK_SEED` and `FALLBACK_CASES` choose other cases and more.

#![cfg(feature = "crabllm-core-0_0_19")]

#[path = "common/random.rs"]
mod random;

use crabllm_retry::{
    Fallback, Instant,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider, json,
    },
};
use proptest::{
    option::weighted,
    prelude::*,
    sample::{Index, select},
};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    task::{Context, Poll, Waker},
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    First,
    Second,
}

/// The end of a call at one side.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Answer,
    Transient,
    Permanent,
    Missing,
    Panic,
    /// The caller drops the call.
    Drop,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// A call arrives.
    Call,

    /// One of the pending calls ends at the side that it has asked.
    End(Index, Outcome),

    /// The clock moves by this many seconds.
    Wait(u64),
}

#[derive(Clone, Debug, Default)]
struct Case {
    /// The failures and the cooldown in seconds.
    breaker: (u32, u64),
    /// Whether errors fall; `None` keeps the default rule.
    fall_if: Option<bool>,
    observed: bool,
    actions: Vec<Action>,
}

const DEFAULT: (u32, u64) = (5, 30);

prop_compose! {
    fn cases()(
        breaker in prop_oneof![
            1 => Just(DEFAULT),
            5 => (0..4u32, prop_oneof![4 => 0..6u64, 1 => Just(u64::MAX)]),
        ],
        fall_if in weighted(0.2, any::<bool>()),
        observed: bool,
        actions in prop::collection::vec(actions(), 1..40),
    ) -> Case {
        Case { breaker, fall_if, observed, actions }
    }
}

fn actions() -> impl Strategy<Value = Action> {
    use Outcome::*;
    let outcome = prop_oneof![
        6 => Just(Transient),
        2 => Just(Answer),
        3 => select(vec![Permanent, Missing, Panic, Drop]),
    ];
    prop_oneof![
        3 => Just(Action::Call),
        5 => (any::<Index>(), outcome).prop_map(|(call, outcome)| Action::End(call, outcome)),
        1 => select(vec![0, 1, 2, 3, 15, 29, 30]).prop_map(Action::Wait),
    ]
}

/// All that can be seen from outside.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Asked(Side),
    Left(Side),
    ClockRead,
    Event(String),
    /// The result of a call.
    Ended(String),
    Panicked,
}

/// The contract, call by call.
#[derive(Default)]
struct Model {
    case: Case,
    calls: u64,
    /// In the order of their arrival.
    pending: Vec<Pending>,
    /// The failures in a row.
    failures: u32,
    /// While the breaker is open: when the next call may probe.
    open: Option<u64>,
    seen: Vec<Seen>,
}

struct Pending {
    number: u64,
    began: u64,
    side: Side,
    /// Whether the result of `first` counts; while the breaker is open, only a probe's does.
    counts: bool,
    failure: Option<Outcome>,
}

impl Model {
    fn arrives(&mut self) {
        self.calls += 1;
        let mut call = Pending {
            number: self.calls,
            began: NOW.get(),
            side: Side::First,
            counts: true,
            failure: None,
        };
        if self.case.observed {
            self.seen.push(Seen::ClockRead);
        }
        if let Some(end) = self.open {
            self.seen.push(Seen::ClockRead);
            if NOW.get() < end {
                call.side = Side::Second;
            } else {
                self.stays_open();
            }
        }
        self.seen.push(Seen::Asked(call.side));
        self.pending.push(call);
    }

    fn ends(&mut self, index: usize, outcome: Outcome) {
        let call = self.pending.remove(index);
        self.seen.push(Seen::Left(call.side));
        match (call.side, call.failure, outcome) {
            (Side::First, ..) => self.first_ends(index, call, outcome),
            (.., Outcome::Drop) => {}
            (_, Some(failure), Outcome::Missing) => self.seen.push(ended(Side::First, failure)),
            _ => self.seen.push(ended(Side::Second, outcome)),
        }
    }

    fn first_ends(&mut self, index: usize, mut call: Pending, outcome: Outcome) {
        let falls = match outcome {
            Outcome::Answer | Outcome::Panic | Outcome::Drop => false,
            Outcome::Permanent => self.case.fall_if == Some(true),
            Outcome::Transient | Outcome::Missing => self.case.fall_if != Some(false),
        };
        match outcome {
            _ if !call.counts => {}
            Outcome::Missing | Outcome::Panic | Outcome::Drop => {
                self.open = self.open.and(Some(NOW.get()));
            }
            _ if falls => self.fails(&call),
            _ => self.succeeds(&call),
        }
        if falls {
            let error = result(Side::First, outcome).unwrap_err();
            self.emit("FellBack", &call, &format!(", error: {error:?}"));
            self.seen.push(Seen::Asked(Side::Second));
            call.side = Side::Second;
            call.failure = Some(outcome);
            self.pending.insert(index, call);
        } else if !matches!(outcome, Outcome::Drop) {
            self.seen.push(ended(Side::First, outcome));
        }
    }

    fn fails(&mut self, call: &Pending) {
        let probes = self.open.is_some();
        self.failures += 1;
        if probes || self.failures == self.case.breaker.0 {
            self.seen.push(Seen::ClockRead);
            self.stays_open();
        }
        if !probes && self.open.is_some() {
            self.emit("BreakerOpened", call, "");
        }
    }

    fn succeeds(&mut self, call: &Pending) {
        self.failures = 0;
        if self.open.take().is_some() {
            self.emit("BreakerClosed", call, "");
        }
    }

    /// The breaker is open for a cooldown from now. Calls sent earlier no longer count.
    fn stays_open(&mut self) {
        self.open = Some(NOW.get().saturating_add(self.case.breaker.1));
        self.pending.iter_mut().for_each(|call| call.counts = false);
    }

    fn emit(&mut self, kind: &str, call: &Pending, error: &str) {
        if self.case.observed {
            let about = "operation: ChatCompletion, model: Some(\"m\")";
            let (number, elapsed) = (call.number, Duration::from_secs(NOW.get() - call.began));
            let event =
                format!("{kind} {{ call: {number}, {about}, elapsed: {elapsed:?}{error} }}");
            self.seen.extend([Seen::ClockRead, Seen::Event(event)]);
        }
    }
}

/// The result of a side, whose errors name it.
fn result(side: Side, outcome: Outcome) -> Result<(), Error> {
    let body = format!("{side:?}");
    let status = match outcome {
        Outcome::Answer => return Ok(()),
        Outcome::Missing => return Err(Error::not_implemented(&body)),
        Outcome::Transient => 503,
        Outcome::Permanent => 400,
        Outcome::Panic | Outcome::Drop => resume_unwind(Box::new("without a message")),
    };
    Err(Error::Provider { status, body })
}

/// The end of a call with the result of a side.
fn ended(side: Side, outcome: Outcome) -> Seen {
    match outcome {
        Outcome::Panic => Seen::Panicked,
        _ => Seen::Ended(format!("{:?}", result(side, outcome))),
    }
}

thread_local! {
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };

    /// The seconds on the clock.
    static NOW: Cell<u64> = const { Cell::new(0) };

    /// The end of the call that is polled next.
    static NEXT: Cell<Option<Outcome>> = const { Cell::new(None) };
}

fn see(seen: Seen) {
    SEEN.with_borrow_mut(|all| all.push(seen));
}

/// A call that is pending at a side.
struct Asked(Side);

impl Drop for Asked {
    fn drop(&mut self) {
        see(Seen::Left(self.0));
    }
}

/// A provider that answers when it is told.
impl Provider for Side {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        see(Seen::Asked(*self));
        let _asked = Asked(*self);
        let outcome = poll_fn(|_| NEXT.take().map_or(Poll::Pending, Poll::Ready)).await;
        result(*self, outcome).map(|()| ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        unimplemented!()
    }
}

fn fallback(case: &Case) -> Fallback<Side, Side> {
    let epoch = Instant::now();
    let mut fallback = Fallback::new(Side::First, Side::Second).clock(move || {
        see(Seen::ClockRead);
        epoch + Duration::from_secs(NOW.get())
    });
    if case.breaker != DEFAULT {
        let (failures, cooldown) = case.breaker;
        fallback = fallback.breaker(failures, Duration::from_secs(cooldown));
    }
    if let Some(falls) = case.fall_if {
        fallback = fallback.fall_if(move |_| falls);
    }
    if case.observed {
        fallback = fallback.observe(|event| see(Seen::Event(format!("{event:?}"))));
    }
    fallback
}

fn goes_as_the_model_says(case: Case) -> Result<(), TestCaseError> {
    NOW.set(0);
    SEEN.take();
    let request = json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();
    let original = fallback(&case);
    // Clones share everything.
    let fallbacks = [original.clone(), original];
    let mut model = Model {
        case: case.clone(),
        ..Model::default()
    };
    let mut calls = Vec::new();
    for (action, fallback) in case.actions.into_iter().zip(fallbacks.iter().cycle()) {
        let index = match action {
            Action::Wait(seconds) => {
                NOW.set(NOW.get() + seconds);
                continue;
            }
            Action::Call => {
                model.arrives();
                calls.push(Box::pin(fallback.chat_completion(&request)));
                calls.len() - 1
            }
            Action::End(..) if calls.is_empty() => continue,
            Action::End(call, outcome) => {
                let index = call.index(calls.len());
                model.ends(index, outcome);
                NEXT.set(Some(outcome));
                index
            }
        };
        let mut call = calls.remove(index);
        let mut poll = || call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match NEXT.get() {
            Some(Outcome::Drop) => {
                NEXT.take();
                drop(call);
            }
            _ => match catch_unwind(AssertUnwindSafe(&mut poll)) {
                Ok(Poll::Pending) => calls.insert(index, call),
                Ok(Poll::Ready(result)) => {
                    prop_assert!(poll().is_pending(), "a call that is over");
                    see(Seen::Ended(format!("{:?}", result.map(drop))));
                }
                Err(_) => see(Seen::Panicked),
            },
        }
        prop_assert_eq!(SEEN.take(), take(&mut model.seen), "{:?}", action);
    }
    Ok(())
}

#[test]
fn random_calls_go_as_the_model_says() {
    random::for_random_cases("FALLBACK", 2000, &cases(), goes_as_the_model_says);
}
