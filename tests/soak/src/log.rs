//! The record of the calls of a round.

use crate::script::Script;
use crabllm_retry::{Event, RateLimiter};
use std::{
    cell::Cell,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

thread_local! {
    /// The number of the call that this thread polls.
    pub static CURRENT: Cell<usize> = const { Cell::new(0) };
}

pub struct Log {
    calls: Vec<Mutex<Call>>,

    /// The time by the wrappers' timers.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,

    /// Each waker of a call holds a clone.
    pub wakers: Arc<()>,

    /// Shared by the calls that have one.
    pub limiter: RateLimiter,
}

#[derive(Debug, Default)]
pub struct Call {
    pub script: Script,
    pub began: Duration,
    pub attempts: Vec<Attempt>,

    /// The earliest start of each retry, as the observer was told.
    pub retries: Vec<Duration>,

    pub events: usize,

    /// The text and the number of the items that the caller has read.
    pub text: String,
    pub read: usize,

    /// The start of the last wait for an item.
    pub waits_since: Duration,

    pub ended: Duration,

    /// `None` until the call has ended.
    pub outcome: Option<Outcome>,
}

/// An attempt; it may last until the first content of its stream.
#[derive(Debug, Default)]
pub struct Attempt {
    pub began: Duration,
    pub ended: Duration,

    /// Whether a retry of it is free.
    pub earns_free: bool,

    /// `None` while it runs.
    pub end: Option<End>,

    /// The delay that its error asked for; `MAX` if the error is permanent.
    pub asked: Duration,

    /// The last time that its stream opened, had an item or ended.
    pub last_sign: Option<Duration>,

    /// The items that it returned, without errors.
    pub items: usize,

    /// Whether its stream ended well or by an error; a whole answer counts as a stream.
    pub stream_end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Answered,
    Failed,
    /// Dropped without a result.
    Dropped,
    Panicked,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Answered,
    BrokeOff,
    Stalled,
    Failed,
    Cancelled,
    Panicked,
    /// A panic that no script asked for, such as that of a poll after the end.
    Unexpected,
}

impl Attempt {
    /// Whether it failed or timed out.
    pub fn failed(&self) -> bool {
        matches!(self.end, Some(End::Failed | End::Dropped))
    }
}

impl Log {
    pub fn new(
        scripts: impl Iterator<Item = Script>,
        now: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let call = |script| Call {
            script,
            ..Call::default()
        };
        Self {
            calls: scripts.map(|script| Mutex::new(call(script))).collect(),
            now: Box::new(now),
            wakers: Arc::default(),
            limiter: RateLimiter::adaptive(),
        }
    }

    /// A call by its number.
    pub fn call(&self, number: usize) -> MutexGuard<'_, Call> {
        let call = self.calls[number].lock();
        call.unwrap_or_else(PoisonError::into_inner)
    }

    /// The call that this thread polls.
    pub fn current(&self) -> MutexGuard<'_, Call> {
        self.call(CURRENT.get())
    }

    /// The caller reads an item, which should be the next one of the last attempt.
    pub fn read(&self, id: &str, content: Option<&str>) {
        let (number, mut call) = (CURRENT.get(), self.current());
        let next = format!("{number}.{}.{}", call.attempts.len() - 1, call.read);
        call.read += 1;
        call.text.push_str(match id == next {
            true => content.unwrap_or_default(),
            false => "[out of order]",
        });
    }

    /// The observer of the wrappers.
    pub fn observe(&self, event: &Event<'_>) {
        let mut call = self.current();
        if let Event::Retry { delay, .. } = *event {
            call.retries.push((self.now)() + delay);
        }
        let panics = call.script.observer_panics_at == Some(call.events);
        call.events += 1;
        drop(call);
        if panics {
            panic_on_purpose();
        }
    }
}

/// The payload of a panic that a script asks for.
pub struct OnPurpose;

/// Panics without a message on standard error.
pub fn panic_on_purpose() -> ! {
    resume_unwind(Box::new(OnPurpose))
}
