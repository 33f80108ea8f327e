//! The invariants. This is the one place where they are checked; what exactly a call does is for
//! `tests/model` to say.

use crate::{
    allocator::{Heap, heap},
    flaky_server::REPLY,
    log::{Attempt, Call, End, Finish, Log, Outcome},
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
fn fault<'a>(call: &'a Call, policy: &Policy) -> Option<(Fault, &'a str)> {
    let attempts = &call.attempts;
    let failed = |attempt: &Attempt| matches!(attempt.end, Some(End::Failed | End::Dropped));
    let mut earlier = attempts.iter().rev().skip(1);
    let mut retries = attempts.iter().skip(1).zip(&call.retries);
    let Some(outcome) = &call.outcome else {
        return Some((Lost, "never ended"));
    };
    Some(if attempts.iter().any(|attempt| attempt.end.is_none()) {
        (Leaked, "an attempt outlives its call")
    } else if let Outcome::Unexpected(panic) = outcome {
        (Double, panic)
    } else if attempts.len() > most_attempts(call, policy) {
        (Double, "more attempts than the policy allows")
    } else if !earlier.all(failed) {
        (Double, "a retry after a success")
    } else if attempts.len() > call.retries.len() + 1 {
        (Double, "a retry that was not announced")
    } else if retries.any(|(retry, earliest)| retry.began < *earliest) {
        (Early, "a retry before its delay has passed")
    } else if times_out_early(call, policy) {
        (Early, "a timeout before its time")
    } else if let Outcome::Answered(text, finish) = outcome {
        match finish {
            _ if attempts.last().is_none_or(failed) => (Lost, "answered by no attempt"),
            _ if !REPLY.starts_with(text) => (Lost, "items of others, or out of order"),
            Finish::Complete if text != REPLY => (Lost, "some items are missing"),
            Finish::Stalled(silence) if *silence < policy.stream_idle => {
                (Early, "a stall before its time")
            }
            _ => return None,
        }
    } else if matches!(outcome, Outcome::Failed) && !attempts.last().is_some_and(failed) {
        (Lost, "failed without its last attempt")
    } else {
        return None;
    })
}

fn most_attempts(call: &Call, policy: &Policy) -> usize {
    let operation = match call.script.streams {
        true => Operation::ChatCompletionStream,
        false => Operation::ChatCompletion,
    };
    match policy.retry.contains(operation) {
        true => 1 + policy.max_retries as usize,
        false => 1,
    }
}

fn times_out_early(call: &Call, policy: &Policy) -> bool {
    let cancelled = matches!(call.outcome, Some(Outcome::Cancelled));
    let not_cancelled = call.attempts.iter().rev().skip(usize::from(cancelled));
    let mut timed_out = not_cancelled.filter(|attempt| attempt.end == Some(End::Dropped));
    timed_out.any(|Attempt { began, ended, .. }| {
        let past_deadline = !policy.deadline.is_zero() && *ended - call.began >= policy.deadline;
        *ended - *began < policy.timeout && !past_deadline
    })
}

/// The number of cases in [`cover`] and beside it. A soak must meet all of them.
pub const CASES: usize = 16;

/// The number of cases that are possible over sockets.
pub const CASES_OVER_SOCKETS: usize = 12;

/// Counts the case of a call.
fn cover(call: &Call, tally: &Tally) {
    let last = call.attempts.last().and_then(|attempt| attempt.end);
    let retried = call.attempts.len() > 1;
    tally.cover(match &call.outcome {
        Some(Outcome::Answered(_, Finish::Complete)) if retried => "answered after retries",
        Some(Outcome::Answered(_, Finish::Complete)) => "answered",
        Some(Outcome::Answered(_, Finish::Failed)) => "streams that broke off",
        Some(Outcome::Answered(_, Finish::Stalled(_))) => "streams that stalled",
        Some(Outcome::Failed) if last == Some(End::Dropped) => "timed out",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Cancelled) => match last {
            None => "cancelled before the first poll",
            Some(End::Answered) => "cancelled in a stream",
            _ if call.retries.len() < call.attempts.len() => "cancelled in an attempt",
            _ => "cancelled in a delay",
        },
        Some(Outcome::Panicked) => match last {
            Some(End::Panicked) => "panicked in an attempt",
            Some(End::Answered) => "panicked after an answer",
            _ => "panicked in an observer",
        },
        Some(Outcome::Unexpected(_)) | None => return,
    });
}

/// Checks a budget that paid for these retries: the others have given back what they cost.
pub fn check_budget(budget: &RetryBudget, capacity: u32, retries: usize, tally: &Tally) {
    let least = capacity.saturating_sub(COST * retries as u32);
    let available = budget.available();
    if !(least..=capacity).contains(&available) {
        let what = format!("{available} of {capacity} tokens left after {retries} retries");
        tally.add(Broken, 1, &what);
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

    const MS: Duration = Duration::from_millis(1);

    /// Demands that a fault is found after a change of a call that failed, timed out, and was
    /// answered.
    fn finds(expected: Option<Fault>, change: impl FnOnce(&mut Call, &mut Policy)) {
        let attempt = |began, ended, end| Attempt {
            began: began * MS,
            ended: ended * MS,
            end: Some(end),
        };
        let mut call = Call {
            attempts: vec![
                attempt(0, 0, End::Failed),
                attempt(100, 1100, End::Dropped),
                attempt(1300, 1400, End::Answered),
            ],
            retries: vec![100 * MS, 1300 * MS],
            outcome: Some(Outcome::Answered(REPLY.into(), Finish::Complete)),
            ..Call::default()
        };
        let mut policy = Policy::default().timeout(1000 * MS);
        change(&mut call, &mut policy);
        let found = fault(&call, &policy);
        assert_eq!(found.map(|(fault, _)| fault), expected, "{call:?}");
    }

    #[test]
    fn each_fault_is_found() {
        let answered = |text: &str, finish| Some(Outcome::Answered(text.into(), finish));
        finds(None, |_, _| ());
        finds(None, |_, policy| policy.deadline = 1100 * MS);
        finds(Some(Lost), |call, _| call.outcome = None);
        finds(Some(Lost), |call, _| call.outcome = Some(Outcome::Failed));
        finds(Some(Lost), |call, _| call.attempts.truncate(2));
        finds(Some(Leaked), |call, _| call.attempts[2].end = None);
        finds(Some(Double), |_, policy| policy.max_retries = 1);
        finds(Some(Double), |call, _| call.script.streams = true);
        finds(Some(Double), |call, _| call.retries.truncate(1));
        finds(Some(Double), |call, _| call.attempts.swap(1, 2));
        finds(Some(Early), |call, _| call.attempts[2].began -= MS);
        finds(Some(Early), |_, policy| policy.timeout += MS);
        for (expected, text, finish) in [
            (None, "", Finish::Failed),
            (Some(Lost), "", Finish::Complete),
            (Some(Lost), "another", Finish::Failed),
            (Some(Early), "", Finish::Stalled(MS)),
        ] {
            finds(expected, |call, _| call.outcome = answered(text, finish));
        }
        let panic = Outcome::Unexpected(String::new());
        finds(Some(Double), |call, _| call.outcome = Some(panic));
    }

    #[test]
    fn a_budget_that_loses_tokens_is_found() {
        for (capacity, retries, kept) in [(20, 0, false), (20, 1, true), (0, 0, false)] {
            let tally = Tally::default();
            check_budget(&RetryBudget::new(7), capacity, retries, &tally);
            assert_eq!(tally.is_clean(), kept, "{capacity} {retries}");
        }
    }
}
