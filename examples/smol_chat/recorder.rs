//! Turns what the library and the reader of a stream see of one call into steps of the timeline.

use crate::{
    client,
    timeline::{Kind, Step},
};
use crabllm_retry::{DelaySource, Event, Failure, crabllm_core_0_0_19::Error};
use std::{
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

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
                why,
                ..
            } => {
                let wait = match why {
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

/// What to call a failure, in one word or two.
fn label(failure: &dyn Failure) -> String {
    let error: &dyn std::error::Error = failure;
    match error.downcast_ref() {
        Some(Error::Provider { status, .. }) => status.to_string(),
        Some(Error::Timeout) => "timeout".into(),
        Some(Error::Internal(message)) if message.starts_with(client::UNREACHABLE) => {
            "unreachable".into()
        }
        Some(Error::Internal(_)) => "dropped".into(),
        _ => "invalid".into(),
    }
}
