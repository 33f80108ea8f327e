//! The invariants. This is the one place where they are checked; what exactly a call does is for
//! `tests/model` to say.

use crate::{
    allocator::{Heap, heap},
    flaky_server::REPLY,
    log::{
        Attempt, Call,
        End::{self, Answered},
        Log, Outcome,
    },
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

/// The first fault of a call that should be over.
fn fault(call: &Call, policy: &Policy) -> Option<(Fault, &'static str)> {
    let (attempts, last) = (&call.attempts, call.attempts.last());
    let mut earlier = attempts.iter().rev().skip(1);
    let mut retries = attempts.iter().skip(1).zip(&call.retries);
    let answered = |stream_end| {
        last.is_some_and(|last| {
            (last.end, last.stream_end, last.items) == (Some(Answered), stream_end, call.read)
        })
    };
    let right_end = match call.outcome {
        Some(Outcome::Answered) => answered(call.script.streams.then_some(Answered)),
        Some(Outcome::BrokeOff) => answered(Some(End::Failed)),
        Some(Outcome::Stalled) => answered(None),
        Some(Outcome::Failed) => last.map_or(call.script.limited, Attempt::failed),
        _ => true,
    };
    let silent = call.ended - call.waits_since;
    let early_stall = call.outcome == Some(Outcome::Stalled) && silent < policy.stream_idle;
    Some(match call.outcome {
        None => (Lost, "no end"),
        Some(Outcome::Unexpected) => (Double, "a poll after an end, or another panic"),
        _ if attempts.iter().any(|it| it.end.is_none()) => (Leaked, "an attempt without an end"),
        _ if attempts.len() > max_attempts(call, policy) => (Double, "too many attempts"),
        _ if !earlier.all(Attempt::failed) => (Double, "a retry after an answer or content"),
        _ if attempts.len() > call.retries.len() + 1 => (Double, "a retry without an event"),
        _ if retries.any(|(it, time)| it.began < *time) => (Early, "a retry before its time"),
        _ if times_out_early(call, policy) => (Early, "a timeout before its time"),
        _ if early_stall => (Early, "a stall before its time"),
        _ if !REPLY.starts_with(&call.text) => (Lost, "items of others, or out of order"),
        _ if !right_end => (Lost, "not its last attempt's end, or missing items"),
        _ if lacks_retry(call, policy) => (Lost, "a failure that should have been retried"),
        _ => return None,
    })
}

fn max_attempts(call: &Call, policy: &Policy) -> usize {
    let retried = !call.script.streams || policy.retry.contains(Operation::ChatCompletionStream);
    let free = call.attempts.iter().filter(|attempt| attempt.earns_free);
    let retries = policy.max_retries as usize + free.count().min(10);
    1 + usize::from(retried && policy.max_retries > 0) * retries
}

/// Whether the call failed, although nothing forbids another attempt.
fn lacks_retry(call: &Call, policy: &Policy) -> bool {
    let last = call.attempts.last();
    let asked = last.map_or(Duration::ZERO, |last| last.asked);
    // The failure of another call may hold back a limited one.
    let held = policy.max_retry_after * u32::from(call.script.limited);
    let delay = asked.saturating_add(asked / 4).max(policy.backoff.max);
    let next = call.ended.saturating_add(delay.max(held));
    call.outcome == Some(Outcome::Failed)
        && asked <= policy.max_retry_after
        && call.attempts.len() < max_attempts(call, policy)
        && (policy.deadline.is_zero() || next < call.began + policy.deadline)
}

fn times_out_early(call: &Call, policy: &Policy) -> bool {
    let cancelled = call.outcome == Some(Outcome::Cancelled);
    let not_cancelled = call.attempts.iter().rev().skip(usize::from(cancelled));
    let mut timed_out = not_cancelled.filter(|attempt| attempt.end == Some(End::Dropped));
    let limits_content = call.script.streams && !policy.first_content.is_zero();
    timed_out.any(|attempt| {
        let (since, limit) = match attempt.last_sign {
            _ if limits_content => (attempt.began, policy.first_content),
            Some(last_sign) => (last_sign, policy.stream_idle),
            None => (attempt.began, policy.timeout),
        };
        let in_time = policy.deadline.is_zero() || attempt.ended < call.began + policy.deadline;
        attempt.ended - since < limit && in_time
    })
}

/// The number of cases in [`cover`] and beside it. A soak must meet all of them.
pub const CASES: usize = 29;

/// The number of cases that are possible over sockets.
pub const CASES_OVER_SOCKETS: usize = 15;

/// Counts the case of a call: how it ended, in which state of its last attempt.
fn cover(call: &Call, tally: &Tally) {
    let opens = |attempt: &Attempt| attempt.last_sign.is_some();
    let (outcome, last) = (call.outcome, call.attempts.last());
    let (end, opened) = (last.and_then(|last| last.end), last.is_some_and(opens));
    let mut earlier = call.attempts.iter().rev().skip(1);
    tally.cover(&match outcome {
        Some(Outcome::Answered) if earlier.any(opens) => "Answered after an empty stream".into(),
        Some(Outcome::Cancelled) if last.is_none() && call.script.cancel_at > Some(1) => {
            "Cancelled at its turn".into()
        }
        _ => format!("{outcome:?}, last attempt: {end:?}, with a stream: {opened}"),
    });
}

/// Checks a budget that has paid for these calls and was neither full nor empty at any time.
pub fn check_budget(budget: &RetryBudget, before: u32, log: &Log, calls: usize, tally: &Tally) {
    let changes = (0..calls).map(|number| change(&log.call(number)));
    let expected = i64::from(before) + changes.sum::<i64>();
    let available = i64::from(budget.available());
    let what = format!("{available} tokens in place of {expected}");
    tally.add(Broken, usize::from(available != expected), &what);
}

/// The tokens that a call adds: started retries cost, unless they are free, and a success after
/// them refunds the last one.
fn change(call: &Call) -> i64 {
    let paid = |attempt: &Attempt| i64::from(!attempt.earns_free);
    let answered = (call.attempts.last()).is_some_and(|last| last.end == Some(Answered));
    let mut earlier = call.attempts.iter().rev().skip(1).map(paid);
    match earlier.next() {
        None => i64::from(answered),
        Some(_) if answered => -i64::from(COST) * earlier.sum::<i64>(),
        Some(last) => -i64::from(COST) * (last + earlier.sum::<i64>()),
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
