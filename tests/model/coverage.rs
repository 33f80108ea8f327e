//! That random cases come to all that can happen, so that they test it.

use crate::{
    case::{Case, Fault, Kind, cases},
    model::{Account, CENTURY, Try, What},
    random::runner,
    run::{Manner, Release, run},
};
use crabllm_retry::{DelaySource, GiveUpReason, Operation};
use std::{cell::RefCell, collections::BTreeMap, time::Duration};

/// How often each thing happened.
type Count = BTreeMap<String, u32>;

pub fn is_complete<R: Release>() {
    let count = RefCell::new(Count::new());
    let manner = Manner {
        shareable: false,
        observed: true,
    };
    let everything = runner(1, 2000).run(&cases(R::METHODS, R::HINTS), |case| {
        let accounts = run::<R>(&case, manner);
        let mut count = count.borrow_mut();
        let happened = accounts.iter().flat_map(|call| happened(&case, call));
        happened.for_each(|what| *count.entry(what).or_default() += 1);
        Ok(())
    });
    everything.unwrap();
    let count = count.into_inner();
    let missing = expected::<R>().filter(|what| !count.contains_key(what));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "{missing:?} of {count:#?}");
}

fn expected<R: Release>() -> impl Iterator<Item = String> {
    use DelaySource::*;
    use GiveUpReason::*;
    let gave_up = [
        NotTransient,
        NotRetried,
        Exhausted,
        RetryAfterTooLong,
        Deadline,
        Budget,
    ];
    let retried = |operation: &&Operation| **operation != NEVER_RETRIED;
    let named = SITUATIONS.iter().map(|(name, _)| name.to_string());
    let named = named.chain(STREAMS.iter().map(|(name, _)| name.to_string()));
    named
        .chain(gave_up.map(|why| format!("{why:?}")))
        .chain([Backoff, RetryAfter].map(|why| format!("{why:?}")))
        .chain(R::METHODS.iter().map(|method| format!("{method} succeeds")))
        .chain(R::METHODS.iter().map(|method| format!("{method} fails")))
        .chain(
            R::METHODS
                .iter()
                .filter(retried)
                .map(|method| format!("{method} is retried")),
        )
}

const NEVER_RETRIED: Operation = Operation::ChatCompletionStreamPassthrough;

/// What happened in a call, each with its name.
fn happened(case: &Case, call: &Account) -> Vec<String> {
    let mut names: Vec<_> = call
        .events
        .iter()
        .flat_map(|(_, told)| {
            let operation = told.operation;
            match &told.what {
                What::Retry { why, .. } => {
                    vec![format!("{why:?}"), format!("{operation} is retried")]
                }
                What::GaveUp { why, .. } => vec![format!("{why:?}"), format!("{operation} fails")],
                What::Success { .. } => vec![format!("{operation} succeeds")],
                What::StreamStalled { .. } => vec![],
            }
        })
        .collect();
    let situations = SITUATIONS.iter().filter(|(_, is)| is(case, call));
    names.extend(situations.map(|(name, _)| name.to_string()));
    let streams = STREAMS.iter().filter(|(_, is)| is(case, call));
    names.extend(streams.map(|(name, _)| name.to_string()));
    names
}

type Situation = (&'static str, fn(&Case, &Account) -> bool);

const SITUATIONS: &[Situation] = &[
    ("an attempt hangs", |_, call| call.result.is_none()),
    (
        "an attempt is cancelled and followed by another",
        |_, call| call.attempts.windows(2).any(|two| two[0].cancelled),
    ),
    ("an answer comes at the very timeout", |case, call| {
        let answered = call.attempts.iter().filter(|attempt| !attempt.cancelled);
        answered
            .filter_map(took)
            .any(|took| !took.is_zero() && took == case.rules.timeout)
    }),
    ("an answer comes at the very deadline", |case, call| {
        let last = call.attempts.last();
        case.has_deadline()
            && call.result == Some(Ok(()))
            && last.is_some_and(|last| last.ended == Some(case.rules.deadline))
    }),
    ("a deadline cuts an attempt", |case, call| {
        let cancelled = call.attempts.iter().filter(|attempt| attempt.cancelled);
        cancelled
            .filter_map(took)
            .any(|took| took < case.rules.timeout)
    }),
    ("an attempt starts at the very deadline", |case, call| {
        case.has_deadline()
            && call
                .attempts
                .iter()
                .any(|attempt| attempt.started == case.rules.deadline)
    }),
    (
        "a deadline is a nanosecond too early for a retry",
        |case, call| {
            let tick = Duration::from_nanos(1);
            let delay = case.rules.backoff.initial.min(case.rules.backoff.max);
            gave_up(call, GiveUpReason::Deadline)
                .is_some_and(|elapsed| elapsed.saturating_add(delay) == case.rules.deadline + tick)
        },
    ),
    ("a retry has no delay", |_, call| {
        delays(call).any(|delay| delay.is_zero())
    }),
    ("a retry has an endless delay", |_, call| {
        delays(call).any(|delay| delay >= CENTURY)
    }),
    ("a wait is asked for up to the limit", |case, call| {
        chosen(call, DelaySource::RetryAfter).any(|delay| delay == case.rules.max_retry_after)
    }),
    (
        "a throttled attempt has a backoff of its own",
        |case, call| {
            case.rules.throttle_backoff.is_some() && retried_faults(call).any(is_throttling)
        },
    ),
    (
        "a call is retried with endless retries left",
        |case, call| case.rules.max_retries == u32::MAX && delays(call).next().is_some(),
    ),
    (
        "a retry is paid for and its cost comes back",
        |case, call| {
            case.budget.is_some() && call.attempts.len() > 1 && call.result == Some(Ok(()))
        },
    ),
    ("a budget of nothing is refused", |_, call| {
        call.tokens == Some(0) && gave_up(call, GiveUpReason::Budget).is_some()
    }),
    ("a call ends well after three retries", |_, call| {
        call.attempts.len() > 3 && call.result == Some(Ok(()))
    }),
];

const STREAMS: &[Situation] = &[
    ("a stream stalls", |_, call| {
        call.events
            .iter()
            .any(|(_, told)| matches!(told.what, What::StreamStalled { .. }))
    }),
    ("a stream stalls after an item", |_, call| {
        matches!(call.items[..], [.., _, (_, Err(Fault::Timeout))])
    }),
    ("a stream hangs", |_, call| {
        call.result == Some(Ok(())) && call.ended.is_none()
    }),
    ("a stream goes on after an error", |_, call| {
        call.items
            .windows(2)
            .any(|two| matches!(two, [(_, Err(_)), (_, Ok(()))]))
    }),
    (
        "an item comes at the very bound of silence",
        |case, call| {
            let idle = case.rules.stream_idle;
            let items = case.script.iter().flat_map(|outcome| match &outcome.kind {
                Kind::Answer(items) => &items[..],
                _ => &[],
            });
            let mut in_time = items.filter(|item| item.latency == idle && !idle.is_zero());
            in_time.next().is_some() && !call.items.is_empty()
        },
    ),
];

impl Case {
    fn has_deadline(&self) -> bool {
        !self.rules.deadline.is_zero()
    }
}

fn took(attempt: &Try) -> Option<Duration> {
    Some(attempt.ended? - attempt.started)
}

fn delays(call: &Account) -> impl Iterator<Item = Duration> {
    call.events.iter().filter_map(|(_, told)| match told.what {
        What::Retry { delay, .. } => Some(delay),
        _ => None,
    })
}

fn chosen(call: &Account, by: DelaySource) -> impl Iterator<Item = Duration> {
    call.events
        .iter()
        .filter_map(move |(_, told)| match told.what {
            What::Retry { delay, why, .. } => Some(delay).filter(|_| why == by),
            _ => None,
        })
}

fn retried_faults(call: &Account) -> impl Iterator<Item = &Fault> {
    call.events.iter().filter_map(|(_, told)| match &told.what {
        What::Retry { error, .. } => Some(error),
        _ => None,
    })
}

fn is_throttling(fault: &Fault) -> bool {
    matches!(fault, Fault::Status { status: 429, .. })
}

/// When a call was given up for this reason.
fn gave_up(call: &Account, reason: GiveUpReason) -> Option<Duration> {
    call.events.iter().find_map(|(_, told)| match told.what {
        What::GaveUp { elapsed, why, .. } => Some(elapsed).filter(|_| why == reason),
        _ => None,
    })
}
