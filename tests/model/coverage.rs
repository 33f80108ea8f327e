//! The random cases reach the situations that matter and are rare.

use crate::{
    case::{Call, Case, CaseError, cases},
    model::{Account, CENTURY, What, none_if_endless},
    random::runner,
    run::{Manner, Subject, run},
};
use crabllm_retry::{DelaySource, GiveUpReason::*};
use std::{cell::RefCell, collections::BTreeMap, time::Duration};

const TICK: Duration = Duration::from_nanos(1);

pub fn random_cases_reach_every_situation<R: Subject>(hints: bool) {
    let counts = RefCell::new(BTreeMap::<&str, usize>::new());
    let all_ran = runner(1, 3000).run(&cases(R::METHODS, hints), |case| {
        let mut counts = counts.borrow_mut();
        let accounts = run::<R>(&case, Manner::default());
        for (call, account) in case.calls.iter().zip(&accounts) {
            for (name, reached) in situations(&case, call, account) {
                *counts.entry(name).or_default() += usize::from(reached);
            }
        }
        Ok(())
    });
    all_ran.unwrap();
    let counts = counts.into_inner();
    assert!(!counts.values().any(|count| *count == 0), "{counts:#?}");
}

/// The situations, and whether a call was in them.
fn situations(case: &Case, call: &Call, account: &Account) -> Vec<(&'static str, bool)> {
    let policy = case.policy_for(call.operation);
    let [timeout, deadline, idle] =
        [policy.timeout, policy.deadline, policy.stream_idle].map(none_if_endless);
    let Account {
        attempts, items, ..
    } = account;
    let hangs = account.ended.is_none();
    let succeeds = account.result == Some(Ok(()));
    let dropped = account.result.is_none() && !hangs;
    let end = account.events.last().map(|told| &told.what);
    let gave_up = |why| matches!(end, Some(What::GaveUp(reason, _)) if *reason == why);

    let retries = account.events.iter().filter_map(|told| match &told.what {
        What::Retry(delay, source, error) => Some((told.attempt - 1, *delay, error, *source)),
        _ => None,
    });
    let in_delay = retries.clone().count() == attempts.len();
    let requested = |least| {
        let mut retries = retries.clone();
        retries.any(|(_, delay, _, source)| source == DelaySource::RetryAfter && delay == least)
    };
    let delayed = |is: fn(Duration) -> bool| retries.clone().any(|(_, delay, ..)| is(delay));
    // An opening that came, and then too long a silence.
    let silent_openings = retries.clone().any(|(number, _, error, _)| {
        !attempts[number as usize].cancelled && *error == CaseError::Timeout
    });

    let last = attempts.last().and_then(|attempt| attempt.ended);
    let cut = attempts.last().is_some_and(|attempt| attempt.cancelled);
    let no_content = !cut && account.result == Some(Err(CaseError::Timeout));
    let next = last.map(|last| last.saturating_add(policy.backoff.initial));
    let at_deadline = |moment: Option<Duration>| moment.is_some() && moment == deadline;
    let mut later_starts = attempts.iter().skip(1).map(|attempt| attempt.started);
    let answered = attempts.iter().filter(|attempt| !attempt.cancelled);
    let answered = answered.map(|attempt| attempt.ended.unwrap() - attempt.started);
    let blocked = case.world.blocking;
    let overslept = timeout.is_some_and(|timeout| timeout < blocked);

    let moments = last.into_iter().chain(items.iter().map(|(came, _)| *came));
    let moments: Vec<_> = moments.collect();
    let waits = moments.windows(2).map(|two| two[1] - two[0]);
    let waits = waits.zip(items).filter(|(_, item)| item.1.is_ok());
    let mut waits = waits.map(|(wait, _)| wait.saturating_sub(call.pause));
    let came = items.iter().any(|(_, item)| item.is_ok());
    let slow = idle.is_some_and(|idle| idle < call.pause);
    let stalled = matches!(end, Some(What::StreamStalled(_)));
    let broke_off = matches!(end, Some(What::StreamBroken(None)));

    let mut waits_for_turns = account.events.iter().filter_map(|told| match told.what {
        What::Waiting(wait) => Some((told.attempt, wait)),
        _ => None,
    });
    let before_its_turn = attempts.is_empty();
    let refused = retries
        .clone()
        .filter(|(.., error, _)| error.is_throttled());
    let refusals = refused.count() * usize::from(case.limited);

    named! {
        "a retry waits for its turn": waits_for_turns.clone().any(|(attempt, _)| attempt > 0),
        "a call is held back": waits_for_turns.any(|(attempt, wait)| attempt == 0 && wait.subsec_nanos() == 0),
        "a call is held back beyond its deadline": before_its_turn && gave_up(Deadline) && account.ended < deadline,
        "a deadline ends a wait for a turn": before_its_turn && gave_up(Deadline) && account.ended >= deadline,
        "a call is dropped before its turn": before_its_turn && dropped,
        "the tenth free retry is the last": gave_up(Exhausted) && refusals >= 10,
        "a call has free retries and others": refusals > 0 && refusals < retries.clone().count(),
        "an operation is not retried": gave_up(NotRetried),
        "a wait is too long": gave_up(RetryAfterTooLong),
        "a wait is as long as allowed": requested(policy.max_retry_after),
        "an answer comes at the very timeout": answered.clone().any(|took| Some(took) == timeout),
        "an answer comes after a long block": overslept && answered.clone().any(|took| took > blocked),
        "an answer comes at the very deadline": succeeds && at_deadline(last),
        "a deadline cuts an attempt": cut && gave_up(Deadline) && at_deadline(last),
        "a delay would end at the very deadline": gave_up(Deadline) && at_deadline(next),
        "a delay ends just before the deadline": later_starts.any(|start| at_deadline(Some(start + TICK))),
        "a delay ends too late for the deadline": gave_up(Deadline) && in_delay,
        "a call is dropped in an attempt": dropped && !in_delay,
        "a call is dropped in a delay": dropped && in_delay,
        "a retry has no delay": delayed(|delay| delay.is_zero()),
        "a retry has an endless delay": delayed(|delay| delay >= CENTURY),
        "a call succeeds after three retries": succeeds && retries.clone().count() >= 3,
        "a budget has nothing left": gave_up(Budget) && account.tokens == Some(0),
        "a stream hangs": succeeds && hangs,
        "a stream without content is opened again": silent_openings,
        "a stream has no content in any attempt": no_content && gave_up(Exhausted),
        "a deadline ends a wait for content": no_content && gave_up(Deadline),
        "the wait for content hangs": account.result.is_none() && hangs && !cut,
        "a stream breaks off without an error": broke_off,
        "a stream stalls after an item": stalled && items.len() > 1,
        "a stream goes on after an error": items.windows(2).any(|two| two[0].1.is_err() && two[1].1.is_ok()),
        "an item comes at the very limit of silence": waits.clone().any(|wait| Some(wait) == idle),
        "an item comes in the last turn of its stream": waits.any(|wait| idle.is_some_and(|idle| idle < wait)),
        "a consumer is slower than a stream may be": slow && came,
    }
}

macro_rules! named {
    ($($name:literal: $reached:expr,)*) => {
        vec![$(($name, $reached)),*]
    };
}
use named;
