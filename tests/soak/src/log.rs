//! The record of the calls of a round, below and beside the wrapper.

use crate::waker::CallWaker;
use crabllm_retry::{Event, Failure, GiveUpReason, Instant};
use std::{
    panic::resume_unwind,
    sync::{
        Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The payload of a panic on purpose.
pub struct OnPurpose;

/// Panics on purpose, without a word on standard error.
pub fn panic_on_purpose() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// The records of a round's calls, by their numbers, which requests name as their models.
pub struct Log {
    epoch: Instant,
    records: Vec<Mutex<Record>>,
    /// The futures and streams of the inner provider that are not dropped.
    pub alive: AtomicUsize,
    /// How often one was polled after its end.
    pub repolled: AtomicUsize,
    /// How many attempts found no server.
    pub unreachable: AtomicUsize,
}

/// The record of one call.
#[derive(Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub told: Vec<Told>,
    /// Whether its stream is open.
    pub open: bool,
    /// Which of the events told makes the observer panic.
    pub observer_panics_at: Option<usize>,
    /// The wakers that it was polled with.
    pub wakers: Vec<Weak<CallWaker>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub began: Duration,
    pub ended: Option<(Duration, How)>,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    Answered,
    Failed(Refusal),
    /// Dropped without an answer.
    Abandoned,
    Panicked,
}

/// The properties of an error that matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refusal {
    pub status: Option<u16>,
    pub transient: bool,
    pub timed_out: bool,
    /// How long the server asks to wait.
    pub wait: Duration,
}

/// An event, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    Retry { throttled: bool },
    Success,
    GaveUp(GiveUpReason),
    Stalled,
}

/// Reads from an error how long the server asks to wait.
pub type Hint = fn(&dyn Failure) -> Option<Duration>;

impl Record {
    /// The attempt of which the observer was not told, if there is one: it was not at its end.
    pub fn untold(&self) -> Option<usize> {
        let last = self.attempts.len().checked_sub(1)?;
        (self.told.len() == last).then_some(last)
    }
}

impl Refusal {
    pub const TIMEOUT: Self = Self {
        status: None,
        transient: true,
        timed_out: true,
        wait: Duration::ZERO,
    };

    pub fn of(error: &dyn Failure, hint: Hint) -> Self {
        Self {
            status: error.status(),
            transient: error.is_transient(),
            timed_out: error.is_timeout(),
            wait: hint(error).unwrap_or_default(),
        }
    }
}

impl Log {
    /// An empty log of so many calls, whose times count from `epoch`.
    pub fn new(calls: usize, epoch: Instant) -> Self {
        Self {
            epoch,
            records: (0..calls).map(|_| Mutex::default()).collect(),
            alive: AtomicUsize::new(0),
            repolled: AtomicUsize::new(0),
            unreachable: AtomicUsize::new(0),
        }
    }

    pub fn record(&self, call: usize) -> MutexGuard<'_, Record> {
        let record = self.records[call].lock();
        record.unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// How many wakers that calls were polled with are still known to somebody.
    pub fn known_wakers(&self) -> usize {
        let known = |call| {
            let record = self.record(call);
            let known = record
                .wakers
                .iter()
                .filter(|waker| waker.strong_count() > 0);
            known.count()
        };
        (0..self.len()).map(known).sum()
    }

    /// An observer, which panics where the script says so.
    pub fn observe(&self, event: &Event<'_>) {
        let (model, told) = match *event {
            Event::Retry { model, error, .. } => {
                let throttled = error.is_throttled();
                (model, Told::Retry { throttled })
            }
            Event::Success { model, .. } => (model, Told::Success),
            Event::GaveUp { model, reason, .. } => (model, Told::GaveUp(reason)),
            Event::StreamStalled { model, .. } => (model, Told::Stalled),
            _ => return,
        };
        let mut record = self.record(number(model.unwrap_or_default()));
        record.told.push(told);
        let panics = record.observer_panics_at == Some(record.told.len() - 1);
        drop(record);
        if panics {
            panic_on_purpose();
        }
    }

    /// Counts a future or a stream that is made; whoever drops it counts it out.
    pub fn count_alive(&self) {
        self.alive.fetch_add(1, Relaxed);
    }
}

/// The call that names this model.
pub fn number(model: &str) -> usize {
    model.parse().expect("models are numbers")
}
