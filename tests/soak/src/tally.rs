//! The counts of a soak.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The number of faults that are described; all are counted.
const DESCRIBED: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Lost,
    Double,
    Leaked,
    Early,
    /// Anything else.
    Broken,
}

#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    calls: usize,
    faults: [usize; 5],
    descriptions: Vec<String>,
    covered: BTreeMap<String, usize>,
}

impl Tally {
    pub fn add_calls(&self, calls: usize) {
        self.lock().calls += calls;
    }

    /// Counts faults of one kind, which may be none.
    pub fn add(&self, fault: Fault, count: usize, what: &str) {
        let mut counts = self.lock();
        counts.faults[fault as usize] += count;
        if count > 0 && counts.descriptions.len() < DESCRIBED {
            let description = format!("{fault:?}, {count}: {what}\n");
            counts.descriptions.push(description);
        }
    }

    /// Counts a case that was met.
    pub fn cover(&self, case: &str) {
        *self.lock().covered.entry(case.into()).or_default() += 1;
    }

    /// Demands that so many different cases were met, and starts to count anew. Returns the counts.
    pub fn take_covered(&self, cases: usize) -> String {
        let covered = mem::take(&mut self.lock().covered);
        let missed = cases.saturating_sub(covered.len());
        self.add(Fault::Broken, missed, "cases that were never met");
        let lines = covered.iter();
        let lines = lines.map(|(case, count)| format!("{count:>10}  {case}\n"));
        lines.collect()
    }

    pub fn is_clean(&self) -> bool {
        self.lock().faults == [0; 5]
    }

    /// The faults, and the last line.
    pub fn verdict(&self) -> String {
        let counts = self.lock();
        let calls = counts.calls;
        let [lost, double, leaked, early, broken] = counts.faults;
        let mut text = counts.descriptions.concat();
        text += &format!("calls={calls} lost={lost} double={double} leaked={leaked} early={early}");
        // Scripts read the line of a good run, which has five counts.
        if broken > 0 {
            text += &format!(" broken={broken}");
        }
        text + "\n"
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_every_fault() {
        let tally = Tally::default();
        let clean = "calls=0 lost=0 double=0 leaked=0 early=0\n";
        assert_eq!(tally.verdict(), clean);
        tally.add(Fault::Early, 2, "this");
        tally.take_covered(1);
        let last = "calls=0 lost=0 double=0 leaked=0 early=2 broken=1\n";
        assert!(tally.verdict().ends_with(last));
    }
}
