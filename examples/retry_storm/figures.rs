//! The figures of a record.

use crate::{
    record::{self, Record, Slice},
    scenario::Scenario,
};
use std::time::Duration;

/// The share of successes from which on the calls of a slice are well.
const WELL: f64 = 0.99;

/// The outcome of an outage under a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Attempts that began in the outage, for each call that did.
    pub attempts_per_call: f64,

    /// The same in the worst second of all.
    pub worst_second: f64,

    /// The time from the end of the outage until, in every tenth of a second from then on, 99 %
    /// of the calls that begin in it succeed. `None` if that is not to be seen.
    pub recovery: Option<Duration>,

    /// The share of the calls since the outage began that succeeded.
    pub succeeded: f64,

    /// The retries of calls that failed all the same.
    pub wasted: u64,

    /// How long a failed call took, on average.
    pub time_to_fail: Duration,
}

impl Figures {
    pub fn new(record: &Record) -> Self {
        let begin = record::index(Scenario::OUTAGE.start);
        let end = record::index(Scenario::OUTAGE.end);
        let second = record::index(Duration::from_secs(1));
        let slices = &record.slices;
        let total = sum(slices);
        let failed = (total.calls - total.succeeded).max(1);
        let since = sum(&slices[begin..]);
        Self {
            attempts_per_call: attempts_per_call(&slices[begin..end]),
            worst_second: slices
                .chunks(second)
                .map(attempts_per_call)
                .fold(0.0, f64::max),
            recovery: recovery(&slices[end..]),
            succeeded: ratio(since.succeeded, since.calls),
            wasted: total.wasted,
            time_to_fail: total.failing.div_f64(failed as f64),
        }
    }
}

fn attempts_per_call(slices: &[Slice]) -> f64 {
    let Slice {
        attempts, calls, ..
    } = sum(slices);
    ratio(attempts, calls)
}

/// How far the first slice is from which on all are well, unless the last one is not.
fn recovery(slices: &[Slice]) -> Option<Duration> {
    let well = |slice: &Slice| slice.succeeded as f64 >= slice.calls as f64 * WELL;
    let first = slices.iter().rposition(|slice| !well(slice));
    let first = first.map_or(0, |last_bad| last_bad + 1);
    (first < slices.len()).then(|| record::start(first))
}

fn sum(slices: &[Slice]) -> Slice {
    slices.iter().fold(Slice::default(), |sum, slice| Slice {
        calls: sum.calls + slice.calls,
        attempts: sum.attempts + slice.attempts,
        succeeded: sum.succeeded + slice.succeeded,
        wasted: sum.wasted + slice.wasted,
        failing: sum.failing + slice.failing,
    })
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(calls: u64, succeeded: u64) -> Slice {
        Slice {
            calls,
            attempts: calls,
            succeeded,
            ..Slice::default()
        }
    }

    #[test]
    fn recovery_is_when_the_last_bad_slice_is_over() {
        let well = slice(100, 99);
        let bad = slice(100, 98);
        for (slices, expected) in [
            (vec![well, well], Some(0)),
            (vec![bad, well, well], Some(100)),
            (vec![bad, well, bad, well], Some(300)),
            (vec![well, Slice::default()], Some(0)),
            (vec![well, bad], None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(recovery(&slices), expected, "{slices:?}");
        }
    }

    /// Seven calls in each slice, of which those in the outage fail after two retries.
    fn record() -> Record {
        let mut record = Record::new();
        for index in 0..record.slices.len() {
            let time = record::start(index);
            let fails = Scenario::OUTAGE.contains(&time);
            for _ in 0..7 {
                record.attempt(time);
                if fails {
                    record.attempt(time);
                    record.attempt(time);
                    record.wasted(time, 2);
                    record.failure(time, Duration::from_millis(30));
                } else {
                    record.success(time);
                }
            }
        }
        record
    }

    #[test]
    fn figures_are_those_of_the_outage_and_after() {
        assert_eq!(
            Figures::new(&record()),
            Figures {
                attempts_per_call: 3.0,
                worst_second: 3.0,
                recovery: Some(Duration::ZERO),
                succeeded: 0.4,
                wasted: 300 * 7 * 2,
                time_to_fail: Duration::from_millis(30),
            }
        );
    }

    #[test]
    fn the_worst_second_may_be_outside_the_outage() {
        let mut record = record();
        let after = Scenario::OUTAGE.end;
        for _ in 0..10 * 7 * 3 {
            record.attempt(after);
        }
        let figures = Figures::new(&record);
        assert_eq!(
            (figures.attempts_per_call, figures.worst_second),
            (3.0, 4.0)
        );
    }

    #[test]
    fn an_empty_record_divides_by_nothing() {
        let figures = Figures::new(&Record::new());
        assert_eq!(figures.succeeded, 0.0);
        assert_eq!(figures.time_to_fail, Duration::ZERO);
    }

    #[test]
    fn what_begins_after_the_end_is_not_counted() {
        let mut record = Record::new();
        record.attempt(Scenario::END);
        assert_eq!(record, Record::new());
    }
}
