//! Random calls of a fallback go as a small model of the contract says: which side each one
//! asks and leaves, its result, the events, and each look at the clock.
//!
//! `FALLBACK_SEED` and `FALLBACK_CASES` choose other cases and more.

#![cfg(feature = "crabllm-core-0_0_19")]

#[path = "common/random.rs"]
mod random;

use crabllm_retry::{
    Event, Fallback, Instant,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider, json,
    },
};
use proptest::{option::weighted, prelude::*, sample};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
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
    End(sample::Index, Outcome),

    /// The clock moves by this many seconds.
    Wait(u64),
}

#[derive(Clone, Debug)]
struct Case {
    /// The failures and the cooldown in seconds.
    breaker: (u32, u64),
    /// Whether errors fall; `None` keeps the default rule.
    fall_if: Option<bool>,
    observed: bool,
    actions: Vec<Action>,
}

const DEFAULT: (u32, u64) = (5, 30);

fn actions() -> impl Strategy<Value = Action> {
    use Outcome::*;
    let outcome = prop_oneof![
        6 => Just(Transient),
        2 => Just(Answer),
        3 => sample::select(vec![Permanent, Missing, Panic, Drop]),
    ];
    prop_oneof![
        3 => Just(Action::Call),
        5 => (any::<sample::Index>(), outcome).prop_map(|(call, outcome)| Action::End(call, outcome)),
        1 => sample::select(vec![0, 1, 2, 3, 15, 29, 30]).prop_map(Action::Wait),
    ]
}

prop_compose! {
    fn cases()(
        breaker in prop_oneof![
            1 => Just(DEFAULT),
            4 => (0..4u32, 0..6u64),
            1 => (0..4u32, Just(u64::MAX)),
        ],
        fall_if in weighted(0.2, any::<bool>()),
        observed: bool,
        actions in prop::collection::vec(actions(), 1..40),
    ) -> Case {
        Case { breaker, fall_if, observed, actions }
    }
}

/// All that can be seen from outside.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Asked(Side),
    Left(Side),
    ClockRead,
    /// The kind of an event, its call, and the seconds since that began.
    Event(&'static str, u64, u64),
    /// The result of a call, or the text of its error.
    Ended(Result<(), String>),
    Panicked,
}

/// The contract, call by call.
struct Model<'c> {
    case: &'c Case,
    now: u64,
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
    /// Whether the result of `first` counts, or is that of a probe.
    counts: bool,
    probes: bool,
    failure: Option<Outcome>,
}

impl Model<'_> {
    fn act(&mut self, action: Action) {
        match action {
            Action::Call => self.arrives(),
            Action::Wait(seconds) => self.now += seconds,
            Action::End(..) if self.pending.is_empty() => {}
            Action::End(call, outcome) => {
                let index = call.index(self.pending.len());
                let call = self.pending.remove(index);
                self.seen.push(Seen::Left(call.side));
                match (call.side, call.failure, outcome) {
                    (.., Outcome::Drop) => self.ends_uncounted(&call),
                    (Side::First, ..) => self.first_ends(index, call, outcome),
                    (Side::Second, Some(failure), Outcome::Missing) => {
                        self.seen.push(ended(Side::First, failure));
                    }
                    (Side::Second, ..) => self.seen.push(ended(Side::Second, outcome)),
                }
            }
        }
    }

    fn arrives(&mut self) {
        self.calls += 1;
        let mut call = Pending {
            number: self.calls,
            began: self.now,
            side: Side::First,
            counts: self.open.is_none(),
            probes: false,
            failure: None,
        };
        if self.case.observed {
            self.seen.push(Seen::ClockRead);
        }
        if let Some(end) = self.open {
            self.seen.push(Seen::ClockRead);
            if self.now < end {
                call.side = Side::Second;
            } else {
                self.pending.iter_mut().for_each(|call| call.probes = false);
                call.probes = true;
                self.open = Some(self.cooldown_from_now());
            }
        }
        self.seen.push(Seen::Asked(call.side));
        self.pending.push(call);
    }

    fn first_ends(&mut self, index: usize, mut call: Pending, outcome: Outcome) {
        let falls = match outcome {
            Outcome::Answer | Outcome::Panic | Outcome::Drop => false,
            Outcome::Permanent => self.case.fall_if == Some(true),
            Outcome::Transient | Outcome::Missing => self.case.fall_if != Some(false),
        };
        match outcome {
            Outcome::Missing | Outcome::Panic => self.ends_uncounted(&call),
            _ if falls => self.fails(&call),
            _ => self.succeeds(&call),
        }
        if falls {
            self.emit("fell back", &call);
            self.seen.push(Seen::Asked(Side::Second));
            call.side = Side::Second;
            call.probes = false;
            call.failure = Some(outcome);
            self.pending.insert(index, call);
        } else {
            self.seen.push(ended(Side::First, outcome));
        }
    }

    fn fails(&mut self, call: &Pending) {
        if call.counts {
            self.failures += 1;
        }
        let opens = call.counts && self.failures == self.case.breaker.0;
        if opens || call.probes {
            self.seen.push(Seen::ClockRead);
            self.open = Some(self.cooldown_from_now());
        }
        if opens {
            self.pending.iter_mut().for_each(|call| call.counts = false);
            self.emit("opened", call);
        }
    }

    fn succeeds(&mut self, call: &Pending) {
        if call.counts || call.probes {
            self.failures = 0;
        }
        if call.probes {
            self.open = None;
            self.emit("closed", call);
        }
    }

    fn ends_uncounted(&mut self, call: &Pending) {
        if call.probes {
            self.open = Some(self.now);
        }
    }

    fn cooldown_from_now(&self) -> u64 {
        self.now.saturating_add(self.case.breaker.1)
    }

    fn emit(&mut self, kind: &'static str, call: &Pending) {
        if self.case.observed {
            let event = Seen::Event(kind, call.number, self.now - call.began);
            self.seen.extend([Seen::ClockRead, event]);
        }
    }
}

/// The result of a side, whose errors name it.
fn result(side: Side, outcome: Outcome) -> Result<(), Error> {
    let body = format!("{side:?}");
    let status = match outcome {
        Outcome::Answer => return Ok(()),
        Outcome::Missing => return Err(Error::not_implemented(&body)),
        Outcome::Panic | Outcome::Drop => resume_unwind(Box::new("without a message")),
        Outcome::Transient => 503,
        Outcome::Permanent => 400,
    };
    Err(Error::Provider { status, body })
}

/// The end of a call with the result of a side.
fn ended(side: Side, outcome: Outcome) -> Seen {
    match outcome {
        Outcome::Panic => Seen::Panicked,
        _ => Seen::Ended(result(side, outcome).map_err(|error| error.to_string())),
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

/// A provider that answers when it is told.
#[derive(Clone)]
struct Told(Side);

/// A call that is pending at a side.
struct Asked(Side);

impl Drop for Asked {
    fn drop(&mut self) {
        see(Seen::Left(self.0));
    }
}

impl Provider for Told {
    async fn chat_completion(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        see(Seen::Asked(self.0));
        let _asked = Asked(self.0);
        let outcome = poll_fn(|_| NEXT.take().map_or(Poll::Pending, Poll::Ready)).await;
        result(self.0, outcome).map(|()| ChatCompletionResponse::default())
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        unimplemented!()
    }
}

/// Runs a case.
fn run(case: &Case, epoch: Instant, request: &ChatCompletionRequest) -> Vec<Seen> {
    NOW.set(0);
    let mut fallback = Fallback::new(Told(Side::First), Told(Side::Second)).clock(move || {
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
        fallback = fallback.observe(|event| {
            let kind = match event {
                Event::FellBack { .. } => "fell back",
                Event::BreakerOpened { .. } => "opened",
                Event::BreakerClosed { .. } => "closed",
                other => panic!("{other:?}"),
            };
            assert_eq!(event.model(), Some("m"));
            see(Seen::Event(kind, event.call(), event.elapsed().as_secs()));
        });
    }
    // Clones share everything.
    let fallbacks = [fallback.clone(), fallback];
    let context = &mut Context::from_waker(Waker::noop());
    let mut pending = Vec::new();
    for (action, fallback) in case.actions.iter().zip(fallbacks.iter().cycle()) {
        let index = match action {
            Action::Call => {
                pending.push(Box::pin(fallback.chat_completion(request)));
                pending.len() - 1
            }
            Action::Wait(seconds) => {
                NOW.set(NOW.get() + seconds);
                continue;
            }
            Action::End(..) if pending.is_empty() => continue,
            Action::End(call, Outcome::Drop) => {
                drop(pending.remove(call.index(pending.len())));
                continue;
            }
            Action::End(call, outcome) => {
                NEXT.set(Some(*outcome));
                call.index(pending.len())
            }
        };
        let call = pending[index].as_mut();
        let polled = catch_unwind(AssertUnwindSafe(|| call.poll(context)));
        if let Ok(Poll::Pending) = polled {
            continue;
        }
        let mut call = pending.remove(index);
        see(match polled {
            Ok(Poll::Ready(result)) => {
                assert!(
                    call.as_mut().poll(context).is_pending(),
                    "a call that is over"
                );
                Seen::Ended(result.map(drop).map_err(|error| error.to_string()))
            }
            _ => Seen::Panicked,
        });
    }
    drop(pending);
    SEEN.take()
}

#[test]
fn random_calls_go_as_the_model_says() {
    let epoch = Instant::now();
    let request = json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();
    random::for_random_cases("FALLBACK", 2000, &cases(), |case| {
        let mut model = Model {
            case: &case,
            now: 0,
            calls: 0,
            pending: Vec::new(),
            failures: 0,
            open: None,
            seen: Vec::new(),
        };
        for &action in &case.actions {
            model.act(action);
        }
        let left = model.pending.iter().map(|call| Seen::Left(call.side));
        model.seen.extend(left);
        prop_assert_eq!(run(&case, epoch, &request), model.seen);
        Ok(())
    });
}
