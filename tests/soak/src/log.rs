//! The record of the calls of a round.

use crate::script::Script;
use crabllm_retry::{Event, GiveUpReason};
use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub struct Log {
    calls: Vec<Mutex<Call>>,

    /// The time by the wrappers' timers.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,

    /// Each waker of a call holds a clone.
    pub wakers: Arc<()>,
}

#[derive(Debug, Default)]
pub struct Call {
    pub script: Script,
    pub began: Duration,
    pub attempts: Vec<Attempt>,

    /// The earliest start of each retry, as the observer was told.
    pub retries: Vec<Duration>,

    pub events: usize,

    /// Whether the budget refused a retry, as the observer was told.
    pub refused: bool,

    /// The items of its stream that the caller has read.
    pub read: usize,

    pub ended: Duration,

    /// `None` until the call has ended.
    pub outcome: Option<Outcome>,
}

/// An attempt; it may last until the first content of its stream.
#[derive(Debug, Default)]
pub struct Attempt {
    pub began: Duration,
    pub ended: Duration,

    /// `None` while it runs.
    pub end: Option<End>,

    /// The delay that its error asked for; `MAX` if the error is permanent.
    pub asked: Duration,

    /// The last time that its stream opened, had an item or ended.
    pub last_sign: Option<Duration>,

    /// The items of its stream that are not errors.
    pub items: usize,

    /// Whether its stream had an error.
    pub broke_off: bool,

    /// Whether its stream ended.
    pub ran_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Answered,
    Failed,
    /// Dropped without a result.
    Dropped,
    Panicked,
}

/// How a call ended; with the text that was read, if there is any.
#[derive(Debug)]
pub enum Outcome {
    Answered(String),
    BrokeOff(String),
    /// The stream timed out after this silence.
    Stalled(String, Duration),
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
        }
    }

    /// A call by its number.
    pub fn call(&self, number: usize) -> MutexGuard<'_, Call> {
        let call = self.calls[number].lock();
        call.unwrap_or_else(PoisonError::into_inner)
    }

    /// The call that names this model, which is its number.
    pub fn of(&self, model: &str) -> MutexGuard<'_, Call> {
        self.call(model.parse().expect("models are numbers"))
    }

    /// The observer of the wrappers.
    pub fn observe(&self, event: &Event<'_>) {
        let mut call = self.of(event.model().unwrap_or_default());
        match *event {
            Event::Retry { delay, .. } => call.retries.push((self.now)() + delay),
            Event::GaveUp { reason, .. } => call.refused = reason == GiveUpReason::Budget,
            _ => {}
        }
        let panics = call.script.observer_panics_at == Some(call.events);
        call.events += 1;
        drop(call);
        if panics {
            panic_on_purpose();
        }
    }
}

/// The name of an item by its attempt and its place in the stream.
pub fn place(attempt: usize, item: usize) -> String {
    format!("{attempt}.{item}")
}

/// The payload of a panic that a script asks for.
pub struct OnPurpose;

/// Panics without a message on standard error.
pub fn panic_on_purpose() -> ! {
    resume_unwind(Box::new(OnPurpose))
}
