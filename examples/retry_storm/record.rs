//! The events, counted in slices of time.

use crate::scenario::Scenario;
use std::time::Duration;

/// How much time a slice is.
const SLICE: Duration = Duration::from_millis(100);

/// The calls and attempts of a simulation, each counted in the slice in which it began.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub slices: Vec<Slice>,
}

/// The calls and attempts that began within one slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slice {
    pub calls: u64,
    pub attempts: u64,
    pub succeeded: u64,

    /// The retries of those calls that failed all the same.
    pub wasted: u64,

    /// How long the failed calls took, together.
    pub failing: Duration,
}

impl Record {
    pub fn new() -> Self {
        Self {
            slices: vec![Slice::default(); index(Scenario::END)],
        }
    }

    pub fn attempt(&mut self, began: Duration) {
        self.at(began, |slice| slice.attempts += 1);
    }

    pub fn success(&mut self, began: Duration) {
        self.at(began, |slice| {
            slice.calls += 1;
            slice.succeeded += 1;
        });
    }

    pub fn failure(&mut self, began: Duration, took: Duration) {
        self.at(began, |slice| {
            slice.calls += 1;
            slice.failing += took;
        });
    }

    pub fn wasted(&mut self, began: Duration, retries: u32) {
        self.at(began, |slice| slice.wasted += u64::from(retries));
    }

    /// Counts, unless it is after the end.
    fn at(&mut self, time: Duration, count: impl FnOnce(&mut Slice)) {
        self.slices.get_mut(index(time)).map(count);
    }
}

/// Which slice a time is in.
pub fn index(time: Duration) -> usize {
    (time.as_nanos() / SLICE.as_nanos()) as usize
}

/// When a slice begins.
pub fn start(index: usize) -> Duration {
    SLICE * index as u32
}
