//! A provider that follows a script.

use crate::{
    policy::Operation,
    timer::{FOREVER, Instant, Timer},
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A provider whose attempts follow a script, for tests of the code that calls it.
///
/// Each attempt, of any method, takes the next [`Step`] of the script. After the last
/// step, attempts succeed at once. Answers are empty where the types allow it. Clones
/// share the script and the record of attempts. The guide
/// [testing](../docs/testing/index.html) has an example.
pub struct Scripted<T> {
    timer: Arc<T>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    steps: VecDeque<Step>,
    attempts: Vec<ScriptedAttempt>,
}

/// The result of one attempt, or one item of a stream.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long the step takes.
    after: Duration,

    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Succeed(Reply),
    Fail(ScriptedError),
    Hang,
    Panic,
}

/// A success, before it is converted to an answer or an item of a release.
#[derive(Clone, Debug)]
pub enum Reply {
    Ok,
    Text(String),
    Announcement,
    Stream(Vec<Step>),
}

/// An error, before it is converted to that of a release.
#[derive(Clone, Debug)]
pub enum ScriptedError {
    Status {
        status: u16,
        body: String,
        retry_after: Option<Duration>,
    },
    Disconnected,
    Invalid,
}

/// One attempt that a [`Scripted`] provider has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptedAttempt {
    /// The method that was called.
    pub operation: Operation,

    /// When it was first polled, by the provider's timer.
    pub started: Instant,

    /// When it was answered or dropped; `None` while it is in progress.
    pub ended: Option<Instant>,

    /// Whether it was dropped before it was answered.
    pub cancelled: bool,
}

impl Step {
    /// Succeeds; opens a stream of one content item. As an item of a stream it is
    /// content.
    pub fn ok() -> Self {
        Self::from(Action::Succeed(Reply::Ok))
    }

    /// Answers with these words, in the methods whose answer has a place for them; opens a
    /// stream of one content item with them. As an item of a stream it is content. Empty
    /// words only announce.
    pub fn text(words: impl Into<String>) -> Self {
        Self::from(Action::Succeed(Reply::Text(words.into())))
    }

    /// An item of a stream that only announces the answer, such as the chunk of a role:
    /// a call that waits for the first content holds it back. As an attempt it opens a
    /// stream of that item.
    pub fn announcement() -> Self {
        Self::from(Action::Succeed(Reply::Announcement))
    }

    /// Succeeds; opens a stream whose items are these steps, none for an empty one.
    pub fn stream(items: impl IntoIterator<Item = Step>) -> Self {
        Self::from(Action::Succeed(Reply::Stream(items.into_iter().collect())))
    }

    /// Fails as if the server had answered with this HTTP status.
    pub fn status(status: u16) -> Self {
        Self::status_with_body(status, "")
    }

    /// Fails as if the server had answered with this HTTP status and body.
    pub fn status_with_body(status: u16, body: impl Into<String>) -> Self {
        Self::from(Action::Fail(ScriptedError::Status {
            status,
            body: body.into(),
            retry_after: None,
        }))
    }

    /// Adds a requested delay to the server's answer, if the step is one of a status. In
    /// releases up to 0.0.19, whose errors have no field for it, it is a line of the body,
    /// as [`hints::with_retry_after`](crate::hints::with_retry_after) writes it.
    pub fn retry_after(mut self, duration: Duration) -> Self {
        if let Action::Fail(ScriptedError::Status { retry_after, .. }) = &mut self.action {
            *retry_after = Some(duration);
        }
        self
    }

    /// Fails, transiently, as if the connection were lost.
    pub fn disconnect() -> Self {
        Self::from(Action::Fail(ScriptedError::Disconnected))
    }

    /// Fails, not transiently, as if the provider were misconfigured.
    pub fn invalid() -> Self {
        Self::from(Action::Fail(ScriptedError::Invalid))
    }

    /// Never ends.
    pub fn hang() -> Self {
        Self::from(Action::Hang)
    }

    /// Panics.
    pub fn panic() -> Self {
        Self::from(Action::Panic)
    }

    /// Takes this long. Default: no time, within the first poll.
    pub fn after(mut self, duration: Duration) -> Self {
        self.after = duration;
        self
    }

    async fn run(self, timer: &impl Timer) -> Result<Reply, ScriptedError> {
        if !self.after.is_zero() {
            timer.sleep(self.after.min(FOREVER)).await;
        }
        match self.action {
            Action::Succeed(reply) => Ok(reply),
            Action::Fail(fault) => Err(fault),
            Action::Hang => pending().await,
            Action::Panic => panic!("scripted panic"),
        }
    }
}

impl Reply {
    pub(crate) fn words(&self) -> Option<&str> {
        match self {
            Self::Text(words) => Some(words),
            _ => None,
        }
    }

    /// The items of the stream that this reply opens.
    fn into_items(self) -> Vec<Step> {
        match self {
            Self::Stream(items) => items,
            item => vec![Step::from(Action::Succeed(item))],
        }
    }
}

impl From<Action> for Step {
    fn from(action: Action) -> Self {
        Self {
            after: Duration::ZERO,
            action,
        }
    }
}

impl<T: Timer> Scripted<T> {
    /// A provider whose attempts take one step each; `timer` measures their time.
    pub fn new(timer: T, script: impl IntoIterator<Item = Step>) -> Self {
        Self {
            timer: Arc::new(timer),
            shared: Arc::new(Mutex::new(Shared {
                steps: script.into_iter().collect(),
                attempts: Vec::new(),
            })),
        }
    }

    /// The attempts so far, in the order in which they started.
    pub fn attempts(&self) -> Vec<ScriptedAttempt> {
        lock(&self.shared).attempts.clone()
    }

    /// Makes one attempt.
    pub(crate) async fn attempt(&self, operation: Operation) -> Result<Reply, ScriptedError> {
        let started = self.timer.now();
        let (step, index) = {
            let mut shared = lock(&self.shared);
            shared.attempts.push(ScriptedAttempt {
                operation,
                started,
                ended: None,
                cancelled: false,
            });
            let index = shared.attempts.len() - 1;
            (shared.steps.pop_front().unwrap_or_else(Step::ok), index)
        };
        let mut record = Record {
            scripted: self,
            index,
            cancelled: true,
        };
        let result = step.run(&*self.timer).await;
        record.cancelled = false;
        result
    }

    /// Opens a stream; `item` makes its items, which are told whether they are the whole
    /// answer, and `error` their errors.
    pub(crate) async fn open<I: Send + 'static, S: Send + 'static>(
        &self,
        operation: Operation,
        item: fn(Reply, bool) -> I,
        error: fn(ScriptedError) -> S,
    ) -> Result<BoxStream<'static, Result<I, S>>, ScriptedError> {
        let reply = self.attempt(operation).await?;
        let is_whole = !matches!(reply, Reply::Stream(_));
        let steps = reply.into_items().into_iter();
        let timer = self.timer.clone();
        let items = stream::unfold((steps, timer), move |(mut steps, timer)| async move {
            let result = steps.next()?.run(&*timer).await;
            let item = result.map(|reply| item(reply, is_whole)).map_err(error);
            Some((item, (steps, timer)))
        });
        Ok(Box::pin(items.fuse()))
    }
}

impl<T> Clone for Scripted<T> {
    fn clone(&self) -> Self {
        Self {
            timer: self.timer.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<T> fmt::Debug for Scripted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = lock(&self.shared);
        f.debug_struct("Scripted")
            .field("steps", &shared.steps)
            .field("attempts", &shared.attempts)
            .finish_non_exhaustive()
    }
}

/// Records the end of an attempt, however it ends.
struct Record<'a, T: Timer> {
    scripted: &'a Scripted<T>,
    index: usize,
    cancelled: bool,
}

impl<T: Timer> Drop for Record<'_, T> {
    fn drop(&mut self) {
        let now = self.scripted.timer.now();
        let attempt = &mut lock(&self.scripted.shared).attempts[self.index];
        attempt.ended = Some(now);
        attempt.cancelled = self.cancelled;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
