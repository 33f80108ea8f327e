//! The circuit breaker.
//!
//! [`State`] decides, by pure functions. [`Breaker`] keeps it under a lock, with a
//! summary beside it, so that a closed breaker without failures needs no lock.

use crate::timer::{
    Instant,
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{sync::PoisonError, time::Duration};

/// A result of `first` that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Success,
    Failure,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// Results of calls that were sent in an earlier epoch do not count. A new one begins
    /// when the breaker opens, when a probe begins, and when it fails. So while the
    /// breaker is open, the only call of the current epoch is the probe.
    epoch: u64,

    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Calls go to `first`, whose last results were this many failures.
    Closed { failures: u32 },

    /// Calls go to `second`. One may probe when a cooldown has passed since the breaker
    /// opened, a probe failed, or a probe began, whichever was last; `None`: at once.
    Open { since: Option<Instant> },
}

impl State {
    const NEW: Self = Self {
        epoch: 0,
        phase: Phase::Closed { failures: 0 },
    };

    fn is_open(self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// The state after a call has arrived; the call belongs to its epoch. `None` sends
    /// the call to `second`.
    fn enter(self, now: Instant, cooldown: Duration) -> Option<Self> {
        match self.phase {
            Phase::Closed { .. } => Some(self),
            Phase::Open { since } => since
                .is_none_or(|since| now.saturating_duration_since(since) >= cooldown)
                .then(|| self.opened(now)),
        }
    }

    /// The state after a call of this epoch has ended, with an outcome if it counts. So
    /// many failures open the breaker. `None` asks for the time.
    fn leave(
        self,
        epoch: u64,
        outcome: Option<Outcome>,
        limit: u32,
        now: Option<Instant>,
    ) -> Option<Self> {
        let phase = match (outcome, self.phase) {
            _ if epoch != self.epoch => self.phase,
            (Some(Outcome::Success), _) => Phase::Closed { failures: 0 },
            (Some(Outcome::Failure), Phase::Closed { failures })
                if limit == 0 || failures < limit - 1 =>
            {
                let failures = failures.saturating_add(1);
                Phase::Closed { failures }
            }
            (Some(Outcome::Failure), _) => return now.map(|now| self.opened(now)),
            (None, Phase::Open { .. }) => Phase::Open { since: None },
            (None, closed) => closed,
        };
        Some(Self { phase, ..self })
    }

    /// Open for a cooldown from now, in a new epoch.
    fn opened(self, now: Instant) -> Self {
        Self {
            epoch: self.epoch + 1,
            phase: Phase::Open { since: Some(now) },
        }
    }

    /// The epoch, and whether the breaker is open or has counted a failure.
    fn summary(self) -> u64 {
        let flag = match self.phase {
            Phase::Closed { failures: 0 } => 0,
            Phase::Closed { .. } => FAILING,
            Phase::Open { .. } => OPEN,
        };
        (self.epoch << 2) + flag
    }
}

const OPEN: u64 = 1;
const FAILING: u64 = 2;
const FLAGS: u64 = 3;

#[derive(Debug)]
pub struct Breaker {
    /// The failures in a row that open it; zero disables it.
    failures: u32,

    /// The time between opening and the first probe, and between probes.
    cooldown: Duration,

    state: Mutex<State>,

    /// The summary of the state; written under its lock.
    summary: AtomicU64,
}

impl Breaker {
    pub fn new(failures: u32, cooldown: Duration) -> Self {
        Self {
            failures,
            cooldown,
            state: Mutex::new(State::NEW),
            summary: AtomicU64::new(State::NEW.summary()),
        }
    }

    pub fn is_open(&self) -> bool {
        self.summary() & OPEN != 0
    }

    /// Permits a call to go to `first`; `None` sends it to `second`. The clock is read
    /// while the breaker is open.
    pub fn enter(&self, clock: impl FnOnce() -> Instant) -> Option<Permit<'_>> {
        let summary = self.summary();
        let mut epoch = summary >> 2;
        if summary & OPEN != 0 {
            let now = clock();
            let (_, entered) = self.update(|state| state.enter(now, self.cooldown))?;
            epoch = entered.epoch;
        }
        Some(Permit {
            breaker: self,
            epoch,
        })
    }

    fn summary(&self) -> u64 {
        self.summary.load(Ordering::Acquire)
    }

    /// Changes the state. Returns the one before and the new one.
    fn update(&self, change: impl FnOnce(State) -> Option<State>) -> Option<(State, State)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        let after = change(before)?;
        *state = after;
        self.summary.store(after.summary(), Ordering::Release);
        Some((before, after))
    }
}

/// The permission of one call to go to `first`. Dropping it means that the call ended
/// without a result that counts.
pub struct Permit<'b> {
    breaker: &'b Breaker,
    epoch: u64,
}

impl Permit<'_> {
    /// Counts the result of the call. Returns whether that opened or closed the breaker.
    /// The clock is read if the breaker opens or a probe fails.
    pub fn report(self, outcome: Outcome, clock: impl Fn() -> Instant) -> bool {
        if outcome == Outcome::Success && self.breaker.summary() & FLAGS == 0 {
            return false;
        }
        let mut now = None;
        loop {
            match self.leave(Some(outcome), now) {
                Some((before, after)) => return before.is_open() != after.is_open(),
                // User code, so it runs outside the lock.
                None => now = Some(clock()),
            }
        }
    }

    fn leave(&self, outcome: Option<Outcome>, now: Option<Instant>) -> Option<(State, State)> {
        let Self { breaker, epoch } = *self;
        breaker.update(|state| state.leave(epoch, outcome, breaker.failures, now))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Only a probe without a result has the epoch of an open breaker.
        if self.breaker.summary() == (self.epoch << 2) + OPEN {
            self.leave(None, None);
        }
    }
}

#[cfg(all(test, crabllm_retry_model))]
mod model;

#[cfg(all(test, not(crabllm_retry_model)))]
#[test]
fn a_closed_breaker_without_failures_takes_no_lock() {
    let breaker = Breaker::new(5, Duration::ZERO);
    let _locked = breaker.state.lock();
    let clock = || panic!("the clock is read");
    drop(breaker.enter(clock).unwrap());
    let permit = breaker.enter(clock).unwrap();
    assert!(!permit.report(Outcome::Success, clock));
}
