//! What a call comes to where nothing but its script and the clock has a say: the contract once
//! more, in a few lines and without a future.

use crate::{
    log::{Attempt, How, Refusal},
    rules::Rules,
    script::{Act, Script},
};
use std::time::Duration;

/// The attempts of a call, by the time since it began, as far as it is not cut short.
#[derive(Debug, PartialEq)]
pub struct Prediction {
    pub attempts: Vec<Attempt>,
    /// When the answer, the error or the panic is there, or the stream is open.
    pub ended: Duration,
}

pub fn predict(script: &Script, rules: &Rules) -> Prediction {
    let mut attempts = Vec::new();
    let mut now = Duration::ZERO;
    let mut events = 0;
    loop {
        let retry = attempts.len();
        let (how, took, struck) = attempt(script, rules, retry, now);
        let ended = Some((now + took, how));
        attempts.push(Attempt { began: now, ended });
        now += took;
        // An observer is told of each attempt that has a result.
        let mut observer_panics = false;
        if how != How::Panicked {
            observer_panics = script.observer_panics_at == Some(events);
            events += 1;
        }
        match next(rules, script.streams, how, retry, now) {
            Some(delay) if !struck && !observer_panics => now += delay,
            _ => {
                let ended = now;
                return Prediction { attempts, ended };
            }
        }
    }
}

/// How an attempt ends and when, and whether that is the deadline's doing.
fn attempt(script: &Script, rules: &Rules, attempt: usize, now: Duration) -> (How, Duration, bool) {
    let turn = script.turn(attempt);
    let (bound, cut) = rules.bound(now);
    let failed = |status, transient, wait| {
        How::Failed(Refusal {
            status,
            transient,
            timed_out: false,
            wait: Duration::from_secs(wait),
        })
    };
    let how = match turn.act {
        _ if turn.after > bound => return (How::Abandoned, bound, cut),
        Act::Hang => return (How::Abandoned, bound, cut),
        Act::Succeed => How::Answered,
        Act::Fail(status, wait) => failed(Some(status), status != 400, wait),
        Act::Disconnect => failed(None, true, 0),
        Act::Misconfigured => failed(None, false, 0),
        Act::Panic => How::Panicked,
    };
    (how, turn.after, false)
}

/// The delay before the next attempt, if there is to be one.
fn next(
    rules: &Rules,
    streams: bool,
    how: How,
    retry: usize,
    elapsed: Duration,
) -> Option<Duration> {
    let refusal = match how {
        How::Failed(refusal) => refusal,
        How::Abandoned => Refusal::TIMEOUT,
        How::Answered | How::Panicked => return None,
    };
    let delay = rules.longest_delay(retry, refusal.wait);
    let allowed = refusal.transient
        && retry + 1 < rules.limit(streams)
        && refusal.wait <= rules.max_retry_after
        && !rules.too_late(elapsed, delay);
    allowed.then_some(delay)
}
