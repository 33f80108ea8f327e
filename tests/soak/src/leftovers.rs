//! Leftovers of calls that are over, of which there must be none.

use crate::{log::Log, patience::until_none, tally::Tally, verify::Violation};
use std::sync::{Arc, atomic::Ordering::Relaxed};

/// Demands that nothing knows the calls any more, and that nothing was polled after its end.
pub fn check_calls(log: &Log, tally: &Tally, place: &str) {
    tally.demand_none(until_none(|| log.known_wakers()), "waker", place);
    let alive = until_none(|| log.alive.load(Relaxed));
    tally.demand_none(alive, "future or stream", place);
    let seen = format!("one in {place}");
    for _ in 0..log.repolled.load(Relaxed) {
        tally.fault(Violation::Double, "no poll after the end", &seen);
    }
}

/// Demands that the wrappers are gone, which all have the log.
pub fn check_wrappers(log: &Arc<Log>, tally: &Tally, place: &str) {
    let users = until_none(|| Arc::strong_count(log) - 1);
    tally.demand_none(users, "user of the log", place);
}

/// Demands that no more than a `tolerance` of bytes has come to the heap.
pub fn check_heap(bytes: i64, tolerance: i64, tally: &Tally) {
    let beyond = usize::try_from(bytes - tolerance).unwrap_or(0);
    let what = format!("byte beyond {tolerance}");
    tally.demand_none(beyond, &what, "the heap");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crabllm_retry::Instant;

    fn last_line(check: impl FnOnce(&Tally)) -> String {
        let tally = Tally::default();
        check(&tally);
        let verdict = tally.verdict();
        verdict.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_a_heap_has_grown_beyond_the_tolerance_is_leaked() {
        let leaked = |bytes| last_line(|tally| check_heap(bytes, 4, tally));
        assert_eq!(leaked(-9), "calls=0 lost=0 double=0 leaked=0 early=0");
        assert_eq!(leaked(4), "calls=0 lost=0 double=0 leaked=0 early=0");
        assert_eq!(leaked(9), "calls=0 lost=0 double=0 leaked=5 early=0");
    }

    #[test]
    fn a_poll_after_the_end_is_double() {
        let log = Log::new(1, Instant::now());
        log.repolled.store(2, Relaxed);
        let line = last_line(|tally| check_calls(&log, tally, "a test"));
        assert_eq!(line, "calls=0 lost=0 double=2 leaked=0 early=0");
    }
}
