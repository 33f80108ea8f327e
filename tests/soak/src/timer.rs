//! The timers of a round in virtual time.

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

/// A virtual timer whose clock may run ahead of its sleeps, as after the suspend of a laptop.
#[derive(Clone)]
pub struct SoakTimer {
    pub clock: VirtualTimer,

    /// The seconds that the clock is ahead, for all timers of the round.
    pub ahead: Arc<AtomicU64>,

    pub shareable: bool,
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
