//! The history of a call: a sequence of steps, from what the library and the reader of a stream
//! see of it.

#![allow(dead_code, reason = "each program uses its own part")]

use crate::wire::UNREACHABLE;
use crabllm_retry::{DelaySource, Event, Failure, Instant, crabllm_core_0_0_19::Error};
use std::{sync::mpsc::Sender, time::Duration};

/// A call as a sequence of steps, each of which begins where the one before it ended.
pub struct Call {
    pub name: String,
    pub start: Duration,
    pub steps: Vec<Step>,
    pub succeeded: bool,
}

/// A step of a call, until a point in time; all times count from the first call.
pub struct Step {
    pub kind: Kind,
    pub until: Duration,
}

/// The kind of a step, and for a failure its name.
#[derive(Clone, PartialEq)]
pub enum Kind {
    /// An attempt that failed.
    Failed(String),
    /// An attempt that was answered; for a stream, by opening it.
    Answered,
    /// A wait of the retry policy's choice.
    Backoff,
    /// A wait of the server's choice.
    RetryAfter,
    /// The wait for the next chunk of an open stream.
    Chunk,
    /// The wait for a chunk that did not come.
    Broken(String),
}

impl Call {
    /// How often the call was tried again.
    pub fn retries(&self) -> usize {
        let waits = |step: &&Step| matches!(step.kind, Kind::Backoff | Kind::RetryAfter);
        self.steps.iter().filter(waits).count()
    }
}

/// The failures, in order, and how often in a row.
pub fn failures(steps: &[Step]) -> Vec<(&str, usize)> {
    let mut failures: Vec<(&str, usize)> = Vec::new();
    for step in steps {
        let (Kind::Failed(label) | Kind::Broken(label)) = &step.kind else {
            continue;
        };
        match failures.last_mut() {
            Some((last, times)) if last == label => *times += 1,
            _ => failures.push((label, 1)),
        }
    }
    failures
}

/// Records one call; the clones write to the same log.
#[derive(Clone)]
pub struct Recorder {
    /// When the first call began.
    pub epoch: Instant,
    /// When this call began.
    pub start: Duration,
    pub log: Sender<Step>,
}

impl Recorder {
    /// Records an event of the library.
    pub fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Retry {
                elapsed,
                delay,
                error,
                source,
                ..
            } => {
                let wait = match source {
                    DelaySource::RetryAfter => Kind::RetryAfter,
                    _ => Kind::Backoff,
                };
                let failed = self.start + elapsed;
                self.record(Kind::Failed(label(error)), failed);
                self.record(wait, failed + delay);
            }
            Event::Success { elapsed, .. } => self.record(Kind::Answered, self.start + elapsed),
            Event::GaveUp { elapsed, error, .. } => {
                self.record(Kind::Failed(label(error)), self.start + elapsed);
            }
            // The reader of the stream sees the rest.
            _ => {}
        }
    }

    /// Records a chunk of an open stream, or the error in place of one.
    pub fn item<T>(&self, item: &Result<T, Error>) {
        let kind = match item {
            Ok(_) => Kind::Chunk,
            Err(Error::Timeout) => Kind::Broken("stalled".into()),
            Err(error) => Kind::Broken(label(error)),
        };
        self.record(kind, self.epoch.elapsed());
    }

    fn record(&self, kind: Kind, until: Duration) {
        // Nobody reads the log of a call that was given up.
        _ = self.log.send(Step { kind, until });
    }
}

/// The name of a failure, in one word or two.
fn label(failure: &dyn Failure) -> String {
    let error: &dyn std::error::Error = failure;
    match error.downcast_ref() {
        Some(Error::Provider { status, .. }) => status.to_string(),
        Some(Error::Timeout) => "timeout".into(),
        Some(Error::Internal(message)) if message.starts_with(UNREACHABLE) => "unreachable".into(),
        Some(Error::Internal(_)) => "dropped".into(),
        _ => "invalid".into(),
    }
}
