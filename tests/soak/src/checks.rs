//! The invariants. This is the one place where they are checked; what exactly a call does is for
//! `tests/model` to say.

use crate::{
    allocator::{Heap, heap},
    flaky_server::REPLY,
    log::{Attempt, Call, End, Log, Outcome},
    tally::{
        Fault::{self, Broken, Double, Early, Leaked, Lost},
        Tally,
    },
};
use crabllm_retry::{Operation, Policy, RetryBudget};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// The cost of each retry that a budget pays for.
pub const COST: u32 = 14;

/// Checks the first calls of a round that is over.
pub fn check_calls<'a>(
    log: &Log,
    calls: usize,
    policy: impl Fn(usize) -> &'a Policy,
    tally: &Tally,
    place: &str,
) {
    for number in 0..calls {
        let (call, policy) = (&*log.call(number), policy(number));
        if let Some((fault, what)) = fault(call, policy) {
            let what = format!("{what}: call {number} of {place}, {policy:?}, {call:?}");
            tally.add(fault, 1, &what);
        }
        cover(call, tally);
    }
    tally.add_calls(calls);
}

/// The fault of a call that should be over.
fn fault(call: &Call, policy: &Policy) -> Option<(Fault, &'static str)> {
    fault_of_attempts(call, policy).or_else(|| fault_of_outcome(call, policy))
}

fn fault_of_attempts(call: &Call, policy: &Policy) -> Option<(Fault, &'static str)> {
    let attempts = &call.attempts;
    let mut earlier = attempts.iter().rev().skip(1);
    let mut retries = attempts.iter().skip(1).zip(&call.retries);
    if attempts.len() > max_attempts(call, policy) {
        Some((Double, "more attempts than the policy allows"))
    } else if !earlier.all(Attempt::failed) {
        Some((Double, "a retry after a success, or after content"))
    } else if attempts.len() > call.retries.len() + 1 {
        Some((Double, "a retry that was not announced"))
    } else if retries.any(|(retry, earliest)| retry.began < *earliest) {
        Some((Early, "a retry before its delay has passed"))
    } else if times_out_early(call, policy) {
        Some((Early, "a timeout before its time"))
    } else {
        None
    }
}

fn max_attempts(call: &Call, policy: &Policy) -> usize {
    let retried = !call.script.streams || policy.retry.contains(Operation::ChatCompletionStream);
    if retried {
        1 + policy.max_retries as usize
    } else {
        1
    }
}

fn fault_of_outcome(call: &Call, policy: &Policy) -> Option<(Fault, &'static str)> {
    let Some(outcome) = &call.outcome else {
        return Some((Lost, "no end"));
    };
    if call.attempts.iter().any(|attempt| attempt.end.is_none()) {
        return Some((Leaked, "an attempt that outlives its call"));
    }
    if let Outcome::Unexpected = outcome {
        return Some((Double, "a panic, perhaps because of a poll after an end"));
    }
    let last = call.attempts.last()?;
    let (text, right_end) = match outcome {
        Outcome::Unexpected | Outcome::Cancelled | Outcome::Panicked => return None,
        Outcome::Failed if !last.failed() => {
            return Some((Lost, "a failure that is not the last attempt's"));
        }
        Outcome::Failed => {
            let lost = must_be_retried(last, call, policy);
            return lost.then_some((Lost, "a failure that should have been retried"));
        }
        Outcome::Stalled(_, silence) if *silence < policy.stream_idle => {
            return Some((Early, "a stall before its time"));
        }
        Outcome::Answered(text) if !call.script.streams => (text, text == REPLY),
        Outcome::Answered(text) => (text, last.ran_out && !last.broke_off),
        Outcome::BrokeOff(text) => (text, last.broke_off),
        Outcome::Stalled(text, _) => (text, !last.ran_out && !last.broke_off),
    };
    if last.failed() {
        Some((Lost, "an answer that is not the last attempt's"))
    } else if !REPLY.starts_with(text) {
        Some((Lost, "items of others, or out of order"))
    } else if !right_end || call.read != last.items {
        Some((Lost, "items are missing, or the end is another"))
    } else {
        None
    }
}

/// Whether another attempt should have followed the failure of the last one.
fn must_be_retried(last: &Attempt, call: &Call, policy: &Policy) -> bool {
    let spread = last.asked.saturating_add(last.asked / 4);
    let next = call.ended.saturating_add(spread.max(policy.backoff.max));
    last.asked <= policy.max_retry_after
        && call.attempts.len() < max_attempts(call, policy)
        && !call.refused
        && (policy.deadline.is_zero() || next < call.began + policy.deadline)
}

fn times_out_early(call: &Call, policy: &Policy) -> bool {
    let cancelled = matches!(call.outcome, Some(Outcome::Cancelled));
    let not_cancelled = call.attempts.iter().rev().skip(usize::from(cancelled));
    let mut timed_out = not_cancelled.filter(|attempt| attempt.end == Some(End::Dropped));
    timed_out.any(|attempt| {
        let (since, limit) = match attempt.last_sign {
            _ if call.script.streams && !policy.first_content.is_zero() => {
                (attempt.began, policy.first_content)
            }
            Some(last_sign) => (last_sign, policy.stream_idle),
            None => (attempt.began, policy.timeout),
        };
        let past_deadline =
            !policy.deadline.is_zero() && attempt.ended - call.began >= policy.deadline;
        attempt.ended - since < limit && !past_deadline
    })
}

/// The number of cases in [`cover`] and beside it. A soak must meet all of them.
pub const CASES: usize = 21;

/// The number of cases that are possible over sockets.
pub const CASES_OVER_SOCKETS: usize = 12;

/// Counts the case of a call.
fn cover(call: &Call, tally: &Tally) {
    let last = call.attempts.last();
    let opened = last.is_some_and(|last| last.last_sign.is_some());
    let last = last.and_then(|last| last.end);
    let mut earlier = call.attempts.iter().rev().skip(1);
    tally.cover(match &call.outcome {
        Some(Outcome::Answered(_)) if earlier.any(|attempt| attempt.last_sign.is_some()) => {
            "answered after a stream without content"
        }
        Some(Outcome::Answered(_)) if call.attempts.len() > 1 => "answered after retries",
        Some(Outcome::Answered(text)) if text != REPLY => "streams that ended early",
        Some(Outcome::Answered(_)) => "answered",
        Some(Outcome::BrokeOff(_)) => "streams that broke off",
        Some(Outcome::Stalled(..)) => "streams that stalled",
        Some(Outcome::Failed) if opened => "failed before the first content",
        Some(Outcome::Failed) if last == Some(End::Dropped) => "timed out",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Cancelled) => match last {
            None => "cancelled before the first poll",
            Some(End::Answered) => "cancelled in a stream",
            _ if call.retries.len() >= call.attempts.len() => "cancelled in a delay",
            _ if opened => "cancelled before the first content",
            _ => "cancelled in an attempt",
        },
        Some(Outcome::Panicked) => match last {
            Some(End::Panicked) if opened => "panicked before the first content",
            Some(End::Panicked) => "panicked in an attempt",
            Some(End::Answered) => "panicked after an answer",
            _ => "panicked in an observer",
        },
        Some(Outcome::Unexpected) | None => return,
    });
}

/// Checks a budget that has paid for these calls and was neither full nor empty at any time.
pub fn check_budget(budget: &RetryBudget, before: u32, log: &Log, calls: usize, tally: &Tally) {
    let changes = (0..calls).map(|number| change(&log.call(number)));
    let expected = i64::from(before) + changes.sum::<i64>();
    let available = budget.available();
    if i64::from(available) != expected {
        let what = format!("{available} tokens in place of {expected}");
        tally.add(Broken, 1, &what);
    }
    let refused = (0..calls).filter(|call| log.call(*call).refused);
    tally.add(
        Broken,
        refused.count(),
        "refused, although there are tokens",
    );
}

/// The tokens that a call adds: started retries cost, a success after them refunds the last one.
fn change(call: &Call) -> i64 {
    let retries = call.attempts.len().saturating_sub(1) as i64;
    let answered = call
        .attempts
        .last()
        .is_some_and(|last| last.end == Some(End::Answered));
    match retries {
        0 => i64::from(answered),
        _ => i64::from(COST) * (i64::from(answered) - retries),
    }
}

/// Checks that nothing is left, after ten seconds at most.
pub fn check_none(left: impl Fn() -> usize, what: &str, tally: &Tally) {
    let start = Instant::now();
    while left() > 0 && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_micros(100));
    }
    tally.add(Leaked, left(), what);
}

/// Runs something, and checks that it leaves no thread, and no more than `tolerance` bytes.
pub fn check_process(tally: &Tally, tolerance: i64, run: impl FnOnce()) -> Heap {
    let before = threads();
    let left = heap(|| {
        run();
        check_none(|| threads().saturating_sub(before), "threads", tally);
    });
    let beyond = usize::try_from(left.live_bytes - tolerance).unwrap_or(0);
    tally.add(Leaked, beyond, "bytes on the heap");
    left
}

/// The threads of the process, if the system tells.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;
    use crabllm_retry::Operations;

    const MS: Duration = Duration::from_millis(1);

    /// Demands that a fault is found after a change of a call that failed, timed out, and was
    /// answered.
    fn finds(expected: Option<Fault>, change: impl FnOnce(&mut Call, &mut Policy)) {
        let attempt = |began, ended, end| Attempt {
            began: began * MS,
            ended: ended * MS,
            end: Some(end),
            ..Attempt::default()
        };
        let mut call = Call {
            attempts: vec![
                attempt(0, 0, End::Failed),
                attempt(100, 1100, End::Dropped),
                attempt(1300, 1400, End::Answered),
            ],
            retries: vec![100 * MS, 1300 * MS],
            ended: 1400 * MS,
            outcome: Some(Outcome::Answered(REPLY.into())),
            ..Call::default()
        };
        let mut policy = Policy::default().timeout(1000 * MS);
        change(&mut call, &mut policy);
        let found = fault(&call, &policy);
        assert_eq!(found.map(|(fault, _)| fault), expected, "{call:?}");
    }

    #[test]
    fn each_fault_is_found() {
        finds(None, |_, _| ());
        finds(None, |_, policy| policy.deadline = 1100 * MS);
        finds(Some(Lost), |call, _| call.attempts.truncate(2));
        finds(Some(Leaked), |call, _| call.attempts[2].end = None);
        finds(Some(Double), |_, policy| policy.max_retries = 1);
        finds(Some(Double), |call, _| call.script.streams = true);
        finds(Some(Double), |call, _| call.retries.truncate(1));
        finds(Some(Double), |call, _| call.attempts.swap(1, 2));
        finds(Some(Early), |call, _| call.attempts[2].began -= MS);
        finds(Some(Early), |_, policy| policy.timeout += MS);
        for (expected, outcome) in [
            (Some(Lost), None),
            (Some(Lost), Some(Outcome::Failed)),
            (Some(Lost), Some(Outcome::Answered(String::new()))),
            (Some(Lost), Some(Outcome::BrokeOff("another".into()))),
            (Some(Lost), Some(Outcome::BrokeOff(String::new()))),
            (Some(Early), Some(Outcome::Stalled(String::new(), MS))),
            (Some(Double), Some(Outcome::Unexpected)),
        ] {
            finds(expected, |call, _| call.outcome = outcome);
        }
    }

    /// The same for a change of a stream with an item, whose first attempt ended without content,
    /// and whose second one was silent.
    fn finds_in_stream(expected: Option<Fault>, change: impl FnOnce(&mut Call, &mut Policy)) {
        finds(expected, |call, policy| {
            policy.retry = policy.retry | Operations::STREAMS;
            policy.stream_idle = 900 * MS;
            call.script.streams = true;
            call.attempts[1].last_sign = Some(200 * MS);
            (call.attempts[2].items, call.read) = (1, 1);
            call.attempts[2].ran_out = true;
            call.outcome = Some(Outcome::Answered("Patience ".into()));
            change(call, policy);
        });
    }

    #[test]
    fn each_fault_of_a_stream_is_found() {
        finds_in_stream(None, |_, _| ());
        finds_in_stream(Some(Lost), |call, _| call.read = 0);
        finds_in_stream(Some(Lost), |call, _| call.attempts[2].ran_out = false);
        finds_in_stream(Some(Lost), |call, _| call.attempts[2].broke_off = true);
        finds_in_stream(Some(Lost), |call, _| {
            call.attempts[2].end = Some(End::Failed)
        });
        finds_in_stream(Some(Double), |call, _| {
            call.attempts[0].end = Some(End::Answered)
        });
        finds_in_stream(Some(Early), |_, policy| policy.stream_idle += MS);
        finds_in_stream(Some(Early), |_, policy| policy.first_content = 1001 * MS);
        finds_in_stream(None, |_, policy| policy.first_content = 1000 * MS);
    }

    #[test]
    fn a_failure_needs_a_reason() {
        let finds = |expected, change: fn(&mut Call, &mut Policy)| {
            finds(expected, |call, policy| {
                policy.max_retries = 3;
                call.attempts[2].end = Some(End::Failed);
                call.outcome = Some(Outcome::Failed);
                change(call, policy);
            });
        };
        finds(Some(Lost), |_, _| ());
        finds(Some(Lost), |_, policy| policy.deadline = 22_000 * MS);
        finds(None, |_, policy| policy.deadline = 21_000 * MS);
        finds(None, |_, policy| policy.max_retries = 2);
        finds(None, |call, _| call.refused = true);
        finds(None, |call, _| call.attempts[2].asked = Duration::MAX);
    }

    #[test]
    fn a_budget_that_loses_tokens_is_found() {
        let log = Log::new([Script::default()].into_iter(), || Duration::ZERO);
        for (before, kept) in [(7, true), (8, false)] {
            let tally = Tally::default();
            check_budget(&RetryBudget::new(7), before, &log, 1, &tally);
            assert_eq!(tally.is_clean(), kept);
        }
    }
}
