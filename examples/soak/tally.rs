//! What was tried, and what went wrong.

use crate::verify::Fault;
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

macro_rules! deeds {
    ($($deed:ident: $what:literal,)*) => {
        /// What a soak must have tried.
        #[derive(Clone, Copy, Debug)]
        pub enum Deed {
            $($deed,)*
        }

        impl Deed {
            const WHAT: &[&str] = &[$($what,)*];
            pub const ALL: &[Self] = &[$(Self::$deed,)*];
        }
    };
}

deeds! {
    Answered: "calls answered at their first attempt",
    AnsweredLater: "calls answered after retries",
    Failed: "calls that failed",
    Retry: "retries",
    Timeout: "attempts that timed out",
    NotTransient: "gave up: not transient",
    NotRetried: "gave up: a stream that is not retried",
    Exhausted: "gave up: retries used up",
    RetryAfterTooLong: "gave up: asked to wait too long",
    Deadline: "gave up: deadline",
    Budget: "gave up: budget",
    DroppedUnpolled: "dropped before the first poll",
    DroppedInAttempt: "dropped in an attempt",
    DroppedInDelay: "dropped in a delay",
    DroppedOpen: "dropped with an open stream",
    ProviderPanic: "panics of an attempt",
    StreamPanic: "panics of an open stream",
    ObserverPanic: "panics of an observer",
    Hop: "hops to another executor in mid-call",
    Jump: "jumps of the clock by hours",
    Suspend: "suspends: the clock ahead of the sleeps",
    OwnSleeps: "calls with sleeps of their own",
    SharedSleeps: "calls with shared sleeps",
    Cloned: "calls of a clone",
    Orphan: "streams that outlived their wrapper",
    StreamEnded: "streams read to their end",
    StreamFailed: "streams that failed on the way",
    StreamStalled: "streams that stalled",
    Item: "items of streams",
    Slow: "streams of a slow consumer",
    Exact: "calls that went as predicted, to the nanosecond",
    Replayed: "calls against a replayed budget",
    Conserved: "shared budgets that were conserved",
    Executors: "pairs of executors",
}

impl Deed {
    /// What can be tried over real sockets.
    pub const OVER_SOCKETS: &[Self] = &[
        Self::Answered,
        Self::AnsweredLater,
        Self::Failed,
        Self::Retry,
        Self::Timeout,
        Self::NotTransient,
        Self::Exhausted,
        Self::RetryAfterTooLong,
        Self::DroppedUnpolled,
        Self::DroppedInAttempt,
        Self::DroppedInDelay,
        Self::DroppedOpen,
        Self::ObserverPanic,
        Self::Orphan,
        Self::StreamEnded,
        Self::StreamFailed,
        Self::StreamStalled,
        Self::Item,
    ];
}

/// The counts of a soak.
pub struct Tally {
    pub calls: AtomicU64,
    deeds: [AtomicU64; Deed::WHAT.len()],
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
            deeds: [const { AtomicU64::new(0) }; Deed::WHAT.len()],
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
    pub fn add(&self, deed: Deed, n: usize) {
        self.deeds[deed as usize].fetch_add(n as u64, Relaxed);
    }

    /// Counts a fault, and keeps what was expected and seen of the first ones.
    pub fn fault(&self, fault: Fault, expected: &str, seen: &str) {
        let count = match fault {
            Fault::Lost => &self.lost,
            Fault::Double => &self.double,
            Fault::Early => &self.early,
            Fault::Broken => &self.broken,
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
            self.fault(Fault::Broken, expected, &seen());
        }
    }

    /// Demands that all of this was tried.
    pub fn demand_deeds(&self, deeds: &[Deed]) {
        for &deed in deeds {
            let expected = format!("some {}", Deed::WHAT[deed as usize]);
            self.demand(self.count(deed) > 0, &expected, || "none".into());
        }
    }

    /// Adds what went wrong elsewhere.
    pub fn add_faults(&self, other: &Self) {
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

    /// How often each of these was tried.
    pub fn table(&self, deeds: &[Deed]) -> String {
        let mut text = String::new();
        for &deed in deeds {
            let count = self.count(deed);
            _ = writeln!(text, "{count:>10}  {}", Deed::WHAT[deed as usize]);
        }
        text
    }

    /// What went wrong, and the last line.
    pub fn verdict(&self) -> String {
        let mut text = String::new();
        for description in &*self.descriptions() {
            _ = writeln!(text, "{description}");
        }
        let [calls, lost, double, leaked, early, _broken] =
            self.counts().map(|count| count.load(Relaxed));
        _ = writeln!(
            text,
            "calls={calls} lost={lost} double={double} leaked={leaked} early={early}"
        );
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

    fn count(&self, deed: Deed) -> u64 {
        self.deeds[deed as usize].load(Relaxed)
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
