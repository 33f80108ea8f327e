//! Helpers of the tests of behaviour.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

#[cfg(feature = "crabllm-core-0_0_19")]
use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, json};
use crabllm_retry::{
    Backoff, Instant, Jitter, Policy, Retrying, Timer,
    test_util::{Scripted, Step, VirtualSleep, VirtualTimer},
};
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

pub use futures::executor::block_on;

pub const SECOND: Duration = Duration::from_secs(1);

/// A virtual clock that records the sleeps it is asked for.
#[derive(Clone, Debug)]
pub struct Sleeps {
    pub clock: VirtualTimer,
    epoch: Instant,
    asked: Arc<Mutex<Vec<Duration>>>,
    shareable: bool,
}

impl Sleeps {
    pub fn by(clock: &VirtualTimer) -> Self {
        Self {
            clock: clock.clone(),
            epoch: clock.now() - clock.elapsed(),
            asked: Arc::default(),
            shareable: false,
        }
    }

    /// The same, but its sleeps may be shared, as those of the real timers are.
    pub fn shareable(self) -> Self {
        Self {
            shareable: true,
            ..self
        }
    }

    pub fn asked(&self) -> Vec<Duration> {
        self.asked.lock().unwrap().clone()
    }
}

impl Timer for Sleeps {
    type Sleep = VirtualSleep;

    fn sleep(&self, duration: Duration) -> VirtualSleep {
        self.asked.lock().unwrap().push(duration);
        self.clock.sleep(duration)
    }

    /// The clock's own stops after a century.
    fn now(&self) -> Instant {
        let now = self.epoch.checked_add(self.clock.elapsed());
        now.unwrap_or_else(|| self.clock.now())
    }

    fn is_shareable(&self) -> bool {
        self.shareable
    }
}

pub type Wrapper = Retrying<Scripted<VirtualTimer>, Sleeps>;

/// A wrapper around a script.
pub struct Scene {
    pub clock: VirtualTimer,
    pub scripted: Scripted<VirtualTimer>,
    /// The wrapper's timer.
    pub sleeps: Sleeps,
    pub retrying: Wrapper,
}

impl Scene {
    /// A clock that moves itself, and the policy of [`plain`].
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self::with_clock(VirtualTimer::new(), script)
    }

    /// The same with a clock that moves by hand only.
    pub fn by_hand(script: impl IntoIterator<Item = Step>) -> Self {
        Self::with_clock(VirtualTimer::manual(), script)
    }

    fn with_clock(clock: VirtualTimer, script: impl IntoIterator<Item = Step>) -> Self {
        let scripted = Scripted::new(clock.clone(), script);
        let sleeps = Sleeps::by(&clock);
        let retrying = Retrying::with_timer(scripted.clone(), sleeps.clone()).policy(plain());
        Self {
            clock,
            scripted,
            sleeps,
            retrying,
        }
    }

    /// The same with a timer whose sleeps may be shared.
    pub fn shareable(mut self) -> Self {
        self.sleeps = self.sleeps.shareable();
        self.retrying = self.retrying.timer(self.sleeps.clone());
        self
    }

    /// Changes the wrapper.
    pub fn set(mut self, change: impl FnOnce(Wrapper) -> Wrapper) -> Self {
        self.retrying = change(self.retrying);
        self
    }

    pub fn attempts(&self) -> usize {
        self.scripted.attempts().len()
    }
}

/// The default policy with delays of exactly 1, 2, 4, … seconds.
pub fn plain() -> Policy {
    Policy::default().backoff(exactly(SECOND))
}

/// Delays without jitter, from `initial` up to 20 seconds.
pub fn exactly(initial: Duration) -> Backoff {
    Backoff::exponential(initial, 20 * SECOND).jitter(Jitter::None)
}

#[cfg(feature = "crabllm-core-0_0_19")]
pub fn request() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

/// Polls once, with a waker that wakes nobody.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
