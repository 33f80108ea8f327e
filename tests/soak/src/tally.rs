//! How often what was covered, and what went wrong.

use crate::{covered::Covered, verify::Violation};
use std::{
    fmt::Write,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// How many faults are described; all are counted.
const DESCRIBED: usize = 20;

/// The counts of a soak.
pub struct Tally {
    pub calls: AtomicU64,
    covered: [AtomicU64; Covered::ALL.len()],
    lost: AtomicU64,
    double: AtomicU64,
    leaked: AtomicU64,
    early: AtomicU64,
    broken: AtomicU64,
    descriptions: Mutex<Vec<String>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            covered: [const { AtomicU64::new(0) }; Covered::ALL.len()],
            lost: AtomicU64::new(0),
            double: AtomicU64::new(0),
            leaked: AtomicU64::new(0),
            early: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            descriptions: Mutex::default(),
        }
    }
}

impl Tally {
    pub fn add(&self, covered: Covered, n: usize) {
        self.covered[covered as usize].fetch_add(n as u64, Relaxed);
    }

    /// Counts a fault, and keeps what was expected and seen of the first ones.
    pub fn fault(&self, fault: Violation, expected: &str, seen: &str) {
        let count = match fault {
            Violation::Lost => &self.lost,
            Violation::Double => &self.double,
            Violation::Early => &self.early,
            Violation::Broken => &self.broken,
        };
        count.fetch_add(1, Relaxed);
        self.describe(expected, seen);
    }

    /// Demands that nothing is left of something.
    pub fn demand_none(&self, left: usize, what: &str, place: &str) {
        if left > 0 {
            self.leaked.fetch_add(left as u64, Relaxed);
            self.describe(&format!("no {what} left"), &format!("{left} in {place}"));
        }
    }

    /// Demands that something holds that has no count of its own.
    pub fn demand(&self, holds: bool, expected: &str, seen: impl FnOnce() -> String) {
        if !holds {
            self.fault(Violation::Broken, expected, &seen());
        }
    }

    /// Says why a soak has not come to its end, which is a fault of its own where there is no other.
    pub fn end_early(&self, why: &str) {
        let expected = "a soak to its end";
        match self.is_clean() {
            true => self.fault(Violation::Broken, expected, why),
            false => self.describe(expected, why),
        }
    }

    /// Demands that all of this was covered.
    pub fn demand_covered(&self, all: &[Covered]) {
        for &covered in all {
            let expected = format!("some {}", covered.what());
            self.demand(self.count(covered) > 0, &expected, || "none".into());
        }
    }

    /// Adds the calls of another tally, and what went wrong with them.
    pub fn add_calls(&self, other: &Self) {
        for (count, more) in self.counts().into_iter().zip(other.counts()) {
            count.fetch_add(more.load(Relaxed), Relaxed);
        }
        let more = mem::take(&mut *other.descriptions());
        self.descriptions().extend(more);
    }

    pub fn is_clean(&self) -> bool {
        let [_calls, faults @ ..] = self.counts();
        faults.iter().all(|count| count.load(Relaxed) == 0)
    }

    /// How often each of these was covered.
    pub fn table(&self, all: &[Covered]) -> String {
        let mut text = String::new();
        for &covered in all {
            let count = self.count(covered);
            _ = writeln!(text, "{count:>10}  {}", covered.what());
        }
        text
    }

    /// The faults, and the last line.
    pub fn verdict(&self) -> String {
        let mut text = String::new();
        for description in &*self.descriptions() {
            _ = writeln!(text, "{description}");
        }
        let [calls, lost, double, leaked, early, broken] =
            self.counts().map(|count| count.load(Relaxed));
        _ = write!(
            text,
            "calls={calls} lost={lost} double={double} leaked={leaked} early={early}"
        );
        // Scripts read the line of a good run, which is of these five.
        if broken > 0 {
            _ = write!(text, " broken={broken}");
        }
        text.push('\n');
        text
    }

    /// The calls, and then what must be none.
    fn counts(&self) -> [&AtomicU64; 6] {
        [
            &self.calls,
            &self.lost,
            &self.double,
            &self.leaked,
            &self.early,
            &self.broken,
        ]
    }

    fn count(&self, covered: Covered) -> u64 {
        self.covered[covered as usize].load(Relaxed)
    }

    fn describe(&self, expected: &str, seen: &str) {
        let mut descriptions = self.descriptions();
        if descriptions.len() < DESCRIBED {
            descriptions.push(format!("expected: {expected}; seen: {seen}"));
        }
    }

    fn descriptions(&self) -> MutexGuard<'_, Vec<String>> {
        let descriptions = self.descriptions.lock();
        descriptions.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_good_run_has_five_counts() {
        let tally = Tally::default();
        assert_eq!(
            tally.verdict(),
            "calls=0 lost=0 double=0 leaked=0 early=0\n"
        );
    }

    #[test]
    fn no_fault_goes_without_a_count_in_the_last_line() {
        for (fault, count) in [
            (Violation::Lost, "lost=1"),
            (Violation::Double, "double=1"),
            (Violation::Early, "early=1"),
            (Violation::Broken, "broken=1"),
        ] {
            let tally = Tally::default();
            tally.fault(fault, "another", "this");
            assert!(!tally.is_clean());
            let verdict = tally.verdict();
            let last = verdict.lines().last().unwrap_or_default();
            assert!(last.split(' ').any(|it| it == count), "{last}");
        }
    }
}
