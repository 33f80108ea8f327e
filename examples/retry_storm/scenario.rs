//! The course of the outage.

use std::{ops::Range, time::Duration};

/// How many callers share a process, and so a wrapper and its budget.
const CALLERS_PER_PROCESS: usize = 100;

/// How many times the steady load the server can serve.
const HEADROOM: f64 = 1.2;

/// The outage to simulate.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub callers: usize,
    /// The cost of a rejected request for the server, in requests that it could have served.
    pub rejection_cost: f64,
    pub seed: u64,
}

impl Scenario {
    /// When the server fails, counted like all times here from the first call.
    pub const OUTAGE: Range<Duration> = Duration::from_secs(10)..Duration::from_secs(40);

    /// Up to when calls and attempts are counted.
    pub const END: Duration = Duration::from_secs(60);

    /// When the callers stop: so much later that the last calls that are counted meet the same
    /// load with their retries.
    pub const STOP: Duration = Duration::from_secs(63);

    /// How often each caller makes a call.
    pub const PERIOD: Duration = Duration::from_secs(1);

    pub fn processes(&self) -> usize {
        self.callers.div_ceil(CALLERS_PER_PROCESS)
    }

    /// The requests that the server can serve in a second.
    pub fn capacity(&self) -> f64 {
        self.callers as f64 / Self::PERIOD.as_secs_f64() * HEADROOM
    }
}
