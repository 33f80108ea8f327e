//! The history of calls on one time axis: a sequence of steps for each, from what the library and
//! the reader of a stream see of it.

#![allow(dead_code, reason = "each program uses its own part")]

use crate::wire::UNREACHABLE;
use crabllm_retry::{
    DelaySource, Event, Failure, Instant, Operation,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider},
};
use futures::StreamExt;
use std::{cell::RefCell, future::poll_fn, iter, pin::pin, rc::Rc, time::Duration};

/// The mark of a stream's first content.
pub const FIRST_CONTENT: char = '►';

/// The marks of a fallback: a call goes to its second provider, and its breaker opens or closes.
pub const SECOND: char = '»';
pub const OPENED: char = '○';
pub const CLOSED: char = '●';

/// A call as a sequence of steps, each of which begins at the end of the one before. All times
/// count from the epoch.
pub struct Call {
    pub name: String,
    pub start: Duration,
    pub steps: Vec<Step>,
    /// When it ended, or the present for a running call.
    pub end: Duration,
    pub state: State,
}

/// A step of a call, until a point in time.
#[derive(Clone)]
pub struct Step {
    pub kind: Kind,
    pub until: Duration,
}

/// The kind of a step, and for a failure its name.
#[derive(Clone, PartialEq)]
pub enum Kind {
    /// An attempt that failed.
    Failed(String),
    /// An attempt that was answered in one piece.
    Answered,
    /// An attempt until the first content of its stream, or, if streams are not retried, until it
    /// opened.
    FirstContent,
    /// A delay that the retry policy chose.
    Backoff,
    /// A delay that the server asked for.
    RetryAfter,
    /// A wait for the turn at the rate limiter.
    Waiting,
    /// The silence before a chunk of an open stream.
    Chunk,
    /// The silence before the error of an open stream.
    Broken(String),
    /// An event of a fallback, which takes no time, by its mark.
    Switch(char),
}

#[derive(Clone, Copy, PartialEq)]
pub enum State {
    Running,
    Succeeded,
    Failed,
    Stopped,
}

impl Call {
    /// The failures, the time to the first content and the state in words, in order.
    pub fn outcomes(&self) -> Vec<String> {
        let mut outcomes: Vec<(String, usize)> = Vec::new();
        for step in &self.steps {
            let label = match &step.kind {
                Kind::Failed(label) | Kind::Broken(label) => label.clone(),
                Kind::FirstContent => {
                    let time = step.until.saturating_sub(self.start);
                    format!("{FIRST_CONTENT} {:.1} s", time.as_secs_f64())
                }
                Kind::Switch(mark) => mark.to_string(),
                _ => continue,
            };
            match outcomes.last_mut() {
                Some((last, times)) if *last == label => *times += 1,
                _ => outcomes.push((label, 1)),
            }
        }
        let outcomes = outcomes.into_iter().map(|(label, times)| match times {
            1 => label,
            _ => format!("{label} ×{times}"),
        });
        let state = match self.state {
            State::Running => "…",
            State::Succeeded => "ok",
            State::Failed => "failed",
            State::Stopped => "stopped",
        };
        outcomes.chain([state.to_owned()]).collect()
    }
}

impl Kind {
    pub fn is_delay(&self) -> bool {
        matches!(self, Self::Backoff | Self::RetryAfter | Self::Waiting)
    }

    pub fn is_attempt(&self) -> bool {
        !self.is_delay() && !self.is_streamed() && !matches!(self, Self::Switch(_))
    }

    /// Whether the step is part of an open stream.
    pub fn is_streamed(&self) -> bool {
        matches!(self, Self::Chunk | Self::Broken(_))
    }
}

/// The ticks of an axis until `end`, with their labels. Their times are round, and they are at
/// least `distance` apart, which is a fraction of `end`.
pub fn ticks(end: Duration, distance: f64) -> impl Iterator<Item = (Duration, String)> {
    let end = end.as_secs_f64();
    let (step, decimals) = (-3..9)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)))
        .map(|(digit, power)| (digit * 10f64.powi(power), 0.max(-power) as usize))
        .find(|(step, _)| *step >= distance * end)
        .unwrap_or((end, 0));
    let label = move |time| format!("{time:.decimals$} s");
    iter::successors(Some(0.0), move |time| Some(time + step))
        .take_while(move |time| *time < end)
        .map(move |time| (Duration::from_secs_f64(time), label(time)))
}

thread_local! {
    /// The recorder of the call that is polled: events happen in the polls of their call.
    static POLLED: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Records one call; the clones write to the same log.
#[derive(Clone)]
pub struct Recorder {
    epoch: Instant,
    start: Duration,
    steps: Rc<RefCell<Vec<Step>>>,
}

impl Recorder {
    /// Records a call that begins now.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            start: epoch.elapsed(),
            steps: Rc::default(),
        }
    }

    /// The call as far as it has come.
    pub fn recorded(&self, name: String, state: State) -> Call {
        Call {
            name,
            start: self.start,
            steps: self.steps.borrow().clone(),
            end: self.epoch.elapsed(),
            state,
        }
    }

    /// Makes the call, and shows the reply as far as it has come. The provider's observer is
    /// [`Recorder::observe`].
    pub async fn call(
        &self,
        provider: &impl Provider,
        request: &ChatCompletionRequest,
        streams: bool,
        show: impl Fn(&str),
    ) -> Result<String, Error> {
        let mut call = pin!(async {
            let mut reply = String::new();
            if streams {
                let mut chunks = provider.chat_completion_stream(request).await?;
                while let Some(chunk) = chunks.next().await {
                    self.item(&chunk);
                    reply += chunk?.content().unwrap_or_default();
                    show(&reply);
                }
            } else {
                let response = provider.chat_completion(request).await?;
                reply += response.content().unwrap_or_default();
                show(&reply);
            }
            Ok(reply)
        });
        poll_fn(|context| {
            POLLED.set(Some(self.clone()));
            call.as_mut().poll(context)
        })
        .await
    }

    /// Records an event of the call that is polled.
    pub fn observe(event: &Event<'_>) {
        POLLED.with_borrow(|recorder| recorder.iter().for_each(|it| it.event(event)));
    }

    /// The same for the second provider of a fallback.
    pub fn observe_second(event: &Event<'_>) {
        if let Event::Attempt { attempt: 1, .. } = event {
            let second = |it: &Self| it.record(Kind::Switch(SECOND), it.epoch.elapsed());
            POLLED.with_borrow(|recorder| recorder.iter().for_each(second));
        }
        Self::observe(event);
    }

    fn event(&self, event: &Event<'_>) {
        let now = self.epoch.elapsed();
        match *event {
            Event::Retry {
                delay,
                error,
                source,
                ..
            } => {
                self.record(Kind::Failed(label(error)), now);
                let kind = match source {
                    DelaySource::RetryAfter => Kind::RetryAfter,
                    _ => Kind::Backoff,
                };
                self.record(kind, now + delay);
            }
            Event::Success { operation, .. } => {
                let kind = match operation {
                    Operation::ChatCompletionStream => Kind::FirstContent,
                    _ => Kind::Answered,
                };
                self.record(kind, now);
            }
            Event::Waiting { .. } => self.record(Kind::Waiting, now),
            Event::GaveUp { error, .. } => self.record(Kind::Failed(label(error)), now),
            Event::BreakerOpened { .. } => self.record(Kind::Switch(OPENED), now),
            Event::BreakerClosed { .. } => self.record(Kind::Switch(CLOSED), now),
            // The reader of the stream sees the rest.
            _ => {}
        }
    }

    /// Records a chunk of an open stream, or the error in place of one.
    fn item<T>(&self, item: &Result<T, Error>) {
        let kind = match item {
            Ok(_) => Kind::Chunk,
            Err(Error::Timeout) => Kind::Broken("stalled".into()),
            Err(error) => Kind::Broken(label(error)),
        };
        self.record(kind, self.epoch.elapsed());
    }

    fn record(&self, kind: Kind, until: Duration) {
        self.steps.borrow_mut().push(Step { kind, until });
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

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A call from its steps and their ends in milliseconds.
    pub fn call(name: &str, start: u64, steps: &[(Kind, u64)], end: u64, state: State) -> Call {
        let millis = Duration::from_millis;
        let steps = steps.iter().map(|(kind, until)| Step {
            kind: kind.clone(),
            until: millis(*until),
        });
        Call {
            start: millis(start),
            steps: steps.collect(),
            end: millis(end),
            state,
            name: name.into(),
        }
    }

    pub fn failed(label: &str) -> Kind {
        Kind::Failed(label.into())
    }

    #[test]
    fn ticks_are_round_and_not_too_close() {
        for (millis, expected) in [
            (3000, "0 s, 1 s, 2 s"),
            (10, "0.000 s, 0.005 s"),
            (4_000_000, "0 s, 1000 s, 2000 s, 3000 s"),
        ] {
            let ticks = ticks(Duration::from_millis(millis), 0.225);
            let labels: Vec<_> = ticks.map(|(_, label)| label).collect();
            assert_eq!(labels.join(", "), expected);
        }
    }
}
