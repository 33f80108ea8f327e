//! Judges and counts a call that is over.

use crate::{
    caller::{End, Outcome},
    consumer::Finish,
    log::{How, Log, Record, Told},
    rules::Rules,
    script::{Drop, Script},
    tally::{Deed, Tally},
    verify::Case,
};
use crabllm_retry::GiveUpReason;
use std::sync::atomic::Ordering::Relaxed;

/// Who judges the calls of one wrapper.
pub struct Court<'a> {
    pub rules: &'a Rules,
    pub log: &'a Log,
    /// Whether calls must go as predicted.
    pub exactly: bool,
    pub tally: &'a Tally,
    pub place: &'a str,
}

impl Court<'_> {
    pub fn judge(&self, call: usize, script: &Script, outcome: &Outcome) {
        let record = &self.log.record(call);
        let case = Case {
            rules: self.rules,
            script,
            record,
            outcome,
        };
        let checked = case.check().and_then(|()| match self.exactly {
            true => case.check_exactly(),
            false => Ok(()),
        });
        if let Err((fault, expected)) = checked {
            let Record { attempts, told, .. } = &**record;
            let Self { rules, place, .. } = self;
            let seen =
                format!("{outcome:?} after {attempts:?}, {told:?}, by {rules:?}, in {place}");
            self.tally.fault(fault, expected, &seen);
        } else if self.exactly {
            self.tally.add(Deed::Exact, 1);
        }
        self.tally.calls.fetch_add(1, Relaxed);
        count_attempts(&case, self.tally);
        count_end(&case, self.tally);
    }
}

fn count_attempts(case: &Case<'_>, tally: &Tally) {
    let Record { attempts, told, .. } = case.record;
    let retries = attempts.len().saturating_sub(1);
    tally.add(Deed::Retry, retries);
    let ends = attempts.iter().filter_map(|attempt| attempt.ended);
    let abandoned = ends.filter(|(_, how)| *how == How::Abandoned).count();
    let dropped = usize::from(case.outcome.end == End::Cancelled && case.record.untold().is_some());
    tally.add(Deed::Timeout, abandoned - dropped);
    if told.contains(&Told::Success) {
        let deed = match retries {
            0 => Deed::Answered,
            _ => Deed::AnsweredLater,
        };
        tally.add(deed, 1);
    }
}

fn count_end(case: &Case<'_>, tally: &Tally) {
    let Case {
        record, outcome, ..
    } = case;
    let deed = match &outcome.end {
        End::Answered(_) | End::Wrong(_) => return,
        End::Failed(_) => {
            tally.add(Deed::Failed, 1);
            match record.told.last() {
                Some(Told::GaveUp(why)) => given_up(*why),
                _ => return,
            }
        }
        End::Streamed(consumed) => {
            tally.add(Deed::Item, consumed.items);
            tally.add(Deed::Slow, usize::from(case.script.slow));
            tally.add(Deed::Orphan, usize::from(case.script.orphaned));
            finished(consumed.finish)
        }
        End::Cancelled => dropped(case),
        End::Panicked => panicked(case),
    };
    tally.add(deed, 1);
}

fn given_up(why: GiveUpReason) -> Deed {
    match why {
        GiveUpReason::NotRetried => Deed::NotRetried,
        GiveUpReason::Exhausted => Deed::Exhausted,
        GiveUpReason::RetryAfterTooLong => Deed::RetryAfterTooLong,
        GiveUpReason::Deadline => Deed::Deadline,
        GiveUpReason::Budget => Deed::Budget,
        _ => Deed::NotTransient,
    }
}

fn finished(finish: Finish) -> Deed {
    match finish {
        Finish::Ended => Deed::StreamEnded,
        Finish::Stalled => Deed::StreamStalled,
        Finish::Failed => Deed::StreamFailed,
        Finish::Dropped => Deed::DroppedOpen,
    }
}

fn dropped(case: &Case<'_>) -> Deed {
    match case.script.dropped {
        Some(Drop::Unpolled) => Deed::DroppedUnpolled,
        _ if case.record.open => Deed::DroppedOpen,
        _ if case.record.untold().is_some() => Deed::DroppedInAttempt,
        _ => Deed::DroppedInDelay,
    }
}

fn panicked(case: &Case<'_>) -> Deed {
    let Record { attempts, told, .. } = case.record;
    let last = attempts.last().and_then(|last| last.ended);
    match last {
        Some((_, How::Panicked)) => Deed::ProviderPanic,
        _ if told.len().checked_sub(1) == case.script.observer_panics_at => Deed::ObserverPanic,
        _ => Deed::StreamPanic,
    }
}
