//! Virtual timers of all kinds.

use crabllm_retry::{
    Instant, Timer,
    test_util::{VirtualSleep, VirtualTimer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A timer on a virtual clock, of which all of them have their own view.
#[derive(Clone)]
pub struct SoakTimer {
    clock: VirtualTimer,
    shareable: bool,
    /// By how many seconds it is ahead of the sleeps, as after the suspend of a laptop.
    ahead: Arc<AtomicU64>,
}

impl SoakTimer {
    pub fn new(clock: VirtualTimer, shareable: bool) -> Self {
        let ahead = Arc::default();
        Self {
            clock,
            shareable,
            ahead,
        }
    }

    /// Moves the clock on, but not the sleeps.
    pub fn suspend(&self, time: Duration) {
        self.ahead.fetch_add(time.as_secs(), Relaxed);
    }

    /// How many there are that were cloned from each other.
    pub fn clones(&self) -> usize {
        Arc::strong_count(&self.ahead)
    }
}

impl Timer for SoakTimer {
    type Sleep = VirtualSleep;

    fn sleep(&self, duration: Duration) -> VirtualSleep {
        self.clock.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.clock.now() + Duration::from_secs(self.ahead.load(Relaxed))
    }

    fn is_shareable(&self) -> bool {
        self.shareable
    }
}
