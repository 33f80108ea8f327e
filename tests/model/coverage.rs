//! That random cases come to all that can happen, so that they test it.

use crate::{
    case::{Call, Case, CaseError, Rules, cases},
    model::{Account, CENTURY, Try, What},
    random::runner,
    run::{Manner, Subject, run},
};
use crabllm_retry::{DelaySource, GiveUpReason, Jitter, Operation};
use std::{cell::RefCell, collections::BTreeMap, time::Duration};

const TICK: Duration = Duration::from_nanos(1);

pub fn is_complete<R: Subject>() {
    let count = RefCell::new(BTreeMap::<String, u32>::new());
    let manner = Manner {
        shareable: false,
        observed: true,
        stays: true,
    };
    let cases = cases(R::METHODS, R::HINTS);
    let all_ran = runner(1, 2000).run(&cases, |case| {
        let accounts = run::<R>(&case, manner);
        for (call, account) in case.calls.iter().zip(&accounts) {
            let seen = Seen {
                case: &case,
                call,
                account,
            };
            let mut count = count.borrow_mut();
            let names = seen.names().into_iter();
            names.for_each(|name| *count.entry(name).or_default() += 1);
        }
        Ok(())
    });
    all_ran.unwrap();
    let count = count.into_inner();
    let missing = expected(R::METHODS).filter(|name| !count.contains_key(name));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "{missing:?} of {count:#?}");
}

fn expected(methods: &[Operation]) -> impl Iterator<Item = String> {
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
    let reasons = gave_up.map(|reason| format!("{reason:?}"));
    let sources = [Backoff, RetryAfter].map(|source| format!("{source:?}"));
    let situations = SITUATIONS.iter().map(|(name, _)| name.to_string());
    let ends = |method| [format!("{method} succeeds"), format!("{method} fails")];
    let retried = methods
        .iter()
        .filter(|method| **method != Operation::ChatCompletionStreamPassthrough)
        .map(|method| format!("{method} is retried"));
    situations
        .chain(reasons)
        .chain(sources)
        .chain(methods.iter().flat_map(ends))
        .chain(retried)
}

/// A call that was made.
struct Seen<'a> {
    case: &'a Case,
    call: &'a Call,
    account: &'a Account,
}

/// A retry that was told.
struct Retry<'a> {
    number: u32,
    delay: Duration,
    error: &'a CaseError,
    source: DelaySource,
}

type Situation = (&'static str, fn(&Seen<'_>) -> bool);

const SITUATIONS: &[Situation] = &[
    ("an attempt hangs", |seen| seen.account.result.is_none()),
    ("a cancelled attempt is followed by another", |seen| {
        let mut attempts = seen.account.attempts.windows(2);
        attempts.any(|two| two[0].cancelled)
    }),
    ("an answer comes at the very timeout", |seen| {
        let timeout = seen.rules().timeout;
        seen.answers()
            .any(|took| took == timeout && !took.is_zero())
    }),
    ("an answer comes at the very deadline", |seen| {
        let last = seen.account.attempts.last();
        seen.succeeded() && last.is_some_and(|last| last.ended == seen.deadline())
    }),
    ("a deadline cuts an attempt", |seen| {
        let cancelled = |attempt: &&Try| attempt.cancelled;
        let mut took = seen
            .account
            .attempts
            .iter()
            .filter(cancelled)
            .filter_map(took);
        took.any(|took| took < seen.rules().timeout)
    }),
    ("a delay would end at the very deadline", |seen| {
        let Rules {
            backoff, deadline, ..
        } = seen.rules();
        seen.gave_up(GiveUpReason::Deadline)
            .is_some_and(|elapsed| elapsed.saturating_add(backoff.initial) == *deadline)
    }),
    ("a delay ends a nanosecond before the deadline", |seen| {
        let mut attempts = seen.account.attempts.iter();
        attempts.any(|attempt| Some(attempt.started + TICK) == seen.deadline())
    }),
    ("a delay ends too late for the deadline", |seen| {
        let last = seen.account.events.last_chunk();
        last.is_some_and(|[(_, retry), (_, end)]| {
            matches!(retry.what, What::Retry { .. })
                && matches!(end.what, What::GaveUp { .. })
                && seen.account.attempts.len() == seen.retries().count()
        })
    }),
    ("a call is dropped in an attempt", |seen| {
        seen.is_dropped() && seen.account.attempts.len() > seen.retries().count()
    }),
    ("a call is dropped in a delay", |seen| {
        seen.is_dropped() && seen.account.attempts.len() == seen.retries().count()
    }),
    ("an attempt blocks for longer than its timeout", |seen| {
        let timeout = seen.rules().timeout;
        let blocking = seen.case.world.blocking;
        !timeout.is_zero() && blocking > timeout && seen.answers().any(|took| took > blocking)
    }),
    ("a retry has no delay", |seen| {
        seen.retries().any(|retry| retry.delay.is_zero())
    }),
    ("a retry has an endless delay", |seen| {
        seen.retries().any(|retry| retry.delay >= CENTURY)
    }),
    ("full jitter draws the least", |seen| {
        seen.draws_the_least(Jitter::Full)
    }),
    ("full jitter draws the most", |seen| {
        seen.draws_the_most(Jitter::Full)
    }),
    ("equal jitter draws the least", |seen| {
        seen.draws_the_least(Jitter::Equal)
    }),
    ("equal jitter draws the most", |seen| {
        seen.draws_the_most(Jitter::Equal)
    }),
    ("a wait is asked for up to the limit", |seen| {
        let limit = seen.rules().max_retry_after;
        let mut asked = seen
            .retries()
            .filter(|retry| retry.source == DelaySource::RetryAfter);
        asked.any(|retry| retry.delay == limit)
    }),
    ("a throttled attempt has a backoff of its own", |seen| {
        let own = seen.rules().throttle_backoff.is_some();
        own && seen.retries().any(|retry| retry.error.is_throttled())
    }),
    ("a call is retried that may be without end", |seen| {
        seen.rules().max_retries == u32::MAX && seen.retries().next().is_some()
    }),
    ("the cost of a retry comes back", |seen| {
        seen.account.tokens.is_some() && seen.succeeded() && seen.retries().next().is_some()
    }),
    ("a budget has nothing left", |seen| {
        seen.account.tokens == Some(0) && seen.gave_up(GiveUpReason::Budget).is_some()
    }),
    ("a call ends well after three retries", |seen| {
        seen.succeeded() && seen.retries().count() >= 3
    }),
    ("a stream stalls after an item", |seen| {
        matches!(
            seen.account.items[..],
            [.., _, (_, Err(CaseError::Timeout))]
        )
    }),
    ("a stream hangs", |seen| {
        seen.succeeded() && seen.account.ended.is_none()
    }),
    ("a stream goes on after an error", |seen| {
        let mut items = seen.account.items.windows(2);
        items.any(|two| matches!(two, [(_, Err(_)), (_, Ok(()))]))
    }),
    ("an item comes at the very bound of silence", |seen| {
        let idle = seen.rules().stream_idle;
        let mut items = seen.account.items.windows(2);
        !idle.is_zero()
            && items.any(|two| {
                two[1].0 - two[0].0 == idle.saturating_add(seen.call.pause) && two[1].1.is_ok()
            })
    }),
    ("an item comes in the last turn of its stream", |seen| {
        let idle = seen.rules().stream_idle;
        let mut items = seen.account.items.windows(2);
        !idle.is_zero()
            && items.any(|two| {
                let took = two[1].0 - two[0].0;
                took > idle.saturating_add(seen.call.pause) && two[1].1.is_ok()
            })
    }),
    ("a consumer is slower than a stream may be", |seen| {
        let idle = seen.rules().stream_idle;
        let came = seen.account.items.iter().any(|(_, item)| item.is_ok());
        !idle.is_zero() && idle < seen.call.pause && came
    }),
];

impl<'a> Seen<'a> {
    /// All that happened, by its name.
    fn names(&self) -> Vec<String> {
        let operation = self.call.operation;
        let told = self
            .account
            .events
            .iter()
            .flat_map(|(_, told)| match &told.what {
                What::Retry { source, .. } => {
                    vec![format!("{source:?}"), format!("{operation} is retried")]
                }
                What::GaveUp { reason, .. } => {
                    vec![format!("{reason:?}"), format!("{operation} fails")]
                }
                What::Success { .. } => vec![format!("{operation} succeeds")],
                What::Attempt { .. } | What::StreamStalled { .. } => vec![],
            });
        let situations = SITUATIONS.iter().filter(|(_, arises)| arises(self));
        told.chain(situations.map(|(name, _)| name.to_string()))
            .collect()
    }

    fn rules(&self) -> &'a Rules {
        &self.case.rules
    }

    fn deadline(&self) -> Option<Duration> {
        Some(self.rules().deadline).filter(|deadline| !deadline.is_zero())
    }

    fn is_dropped(&self) -> bool {
        self.account.result.is_none() && self.account.ended.is_some()
    }

    fn succeeded(&self) -> bool {
        self.account.result == Some(Ok(()))
    }

    /// How long each attempt took that was not cancelled.
    fn answers(&self) -> impl Iterator<Item = Duration> {
        let attempts = self.account.attempts.iter();
        attempts
            .filter(|attempt| !attempt.cancelled)
            .filter_map(took)
    }

    fn retries(&self) -> impl Iterator<Item = Retry<'a>> {
        let events = self.account.events.iter();
        events.filter_map(|(_, told)| match &told.what {
            What::Retry {
                attempt,
                delay,
                error,
                source,
                ..
            } => Some(Retry {
                number: attempt - 1,
                delay: *delay,
                error,
                source: *source,
            }),
            _ => None,
        })
    }

    /// When the call was given up, if for this reason.
    fn gave_up(&self, expected: GiveUpReason) -> Option<Duration> {
        match self.account.events.last()?.1.what {
            What::GaveUp {
                elapsed, reason, ..
            } => (reason == expected).then_some(elapsed),
            _ => None,
        }
    }

    fn draws_the_least(&self, jitter: Jitter) -> bool {
        self.draws(jitter).any(|(least, drawn, _)| drawn == least)
    }

    fn draws_the_most(&self, jitter: Jitter) -> bool {
        self.draws(jitter).any(|(_, drawn, most)| drawn == most)
    }

    /// The delays that such jitter drew where it had a choice, each between the
    /// least and the most that it might have drawn.
    fn draws(&self, jitter: Jitter) -> impl Iterator<Item = (Duration, Duration, Duration)> {
        let drawn = self
            .retries()
            .filter(|retry| retry.source == DelaySource::Backoff);
        drawn.filter_map(move |retry| {
            let delays = self.rules().delays(retry.error);
            let (least, most) = delays.range(retry.number).into_inner();
            let choice = delays.jitter == jitter && least < most;
            choice.then_some((least, retry.delay, most))
        })
    }
}

fn took(attempt: &Try) -> Option<Duration> {
    Some(attempt.ended? - attempt.started)
}
