//! Judges and counts calls that are over.

use crate::{
    caller::{End, Ended},
    consumer::Finish,
    covered::Covered,
    log::{How, Log, Record, Told},
    rules::Rules,
    script::{Cancel, Script},
    tally::Tally,
    verify::Case,
};
use crabllm_retry::GiveUpReason;
use std::sync::atomic::Ordering::Relaxed;

/// Who judges the calls of one wrapper.
pub struct Judge<'a> {
    pub rules: &'a Rules,
    pub log: &'a Log,
    pub tally: &'a Tally,
    pub place: &'a str,
}

impl Judge<'_> {
    pub fn judge(&self, call: usize, script: &Script, outcome: &Ended) {
        let record = &self.log.record(call);
        let case = Case {
            rules: self.rules,
            script,
            record,
            outcome,
        };
        if let Err((fault, expected)) = case.check() {
            let Record { attempts, told, .. } = &**record;
            let Self { rules, place, .. } = self;
            let seen =
                format!("{outcome:?} after {attempts:?}, {told:?}, by {rules:?}, in {place}");
            self.tally.fault(fault, expected, &seen);
        }
        self.tally.calls.fetch_add(1, Relaxed);
        let clones = script.clones && !script.orphaned;
        self.tally.add(Covered::Cloned, usize::from(clones));
        count_attempts(&case, self.tally);
        count_end(&case, self.tally);
    }
}

fn count_attempts(case: &Case<'_>, tally: &Tally) {
    let Record { attempts, told, .. } = case.record;
    let retries = attempts.len().saturating_sub(1);
    tally.add(Covered::Retry, retries);
    let ends = attempts.iter().filter_map(|attempt| attempt.ended);
    let abandoned = ends.filter(|(_, how)| *how == How::Abandoned).count();
    let cancelled =
        usize::from(case.outcome.end == End::Cancelled && case.record.untold().is_some());
    tally.add(Covered::Timeout, abandoned - cancelled);
    if told.contains(&Told::Success) {
        let covered = match retries {
            0 => Covered::Answered,
            _ => Covered::AnsweredLater,
        };
        tally.add(covered, 1);
    }
}

fn count_end(case: &Case<'_>, tally: &Tally) {
    let Case {
        record, outcome, ..
    } = case;
    let covered = match &outcome.end {
        End::Answered(_) | End::Wrong(_) => return,
        End::Failed(_) => {
            tally.add(Covered::Failed, 1);
            match record.told.last() {
                Some(Told::GaveUp(why)) => given_up(*why),
                _ => return,
            }
        }
        End::Streamed(consumed) => {
            tally.add(Covered::Item, consumed.items);
            tally.add(Covered::Slow, usize::from(case.script.slow));
            tally.add(Covered::Orphan, usize::from(case.script.orphaned));
            finished(consumed.finish)
        }
        End::Cancelled => cancelled(case),
        End::Panicked => panicked(case),
    };
    tally.add(covered, 1);
}

fn given_up(why: GiveUpReason) -> Covered {
    match why {
        GiveUpReason::NotRetried => Covered::NotRetried,
        GiveUpReason::Exhausted => Covered::Exhausted,
        GiveUpReason::RetryAfterTooLong => Covered::RetryAfterTooLong,
        GiveUpReason::Deadline => Covered::Deadline,
        GiveUpReason::Budget => Covered::Budget,
        _ => Covered::NotTransient,
    }
}

fn finished(finish: Finish) -> Covered {
    match finish {
        Finish::Ended => Covered::StreamEnded,
        Finish::Stalled => Covered::StreamStalled,
        Finish::Failed => Covered::StreamFailed,
        Finish::Cancelled => Covered::CancelledOpen,
    }
}

fn cancelled(case: &Case<'_>) -> Covered {
    match case.script.cancel {
        Some(Cancel::Unpolled) => Covered::CancelledUnpolled,
        _ if case.record.open => Covered::CancelledOpen,
        _ if case.record.untold().is_some() => Covered::CancelledInAttempt,
        _ => Covered::CancelledInDelay,
    }
}

fn panicked(case: &Case<'_>) -> Covered {
    let Record { attempts, told, .. } = case.record;
    let last = attempts.last().and_then(|last| last.ended);
    match last {
        Some((_, How::Panicked)) => Covered::ProviderPanic,
        _ if told.len().checked_sub(1) == case.script.observer_panics_at => Covered::ObserverPanic,
        _ => Covered::StreamPanic,
    }
}
