//! The provider that acts out the scripts, and the timer, in virtual time.

use crate::{
    flaky_server::REPLY,
    log::{Log, panic_on_purpose},
    script::{Act, Script},
    wire,
};
use crabllm_retry::{
    Instant, Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Message, Provider,
    },
    test_util::{VirtualSleep, VirtualTimer},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::{
    future::pending,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Looks up the scripts in the log.
#[derive(Clone)]
pub struct Faulty(pub VirtualTimer, pub Arc<Log>);

impl Provider for Faulty {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        self.attempt().await?;
        let choice = json!({"index": 0, "message": Message::assistant(REPLY)});
        Ok(serde_json::from_value(answer(&request.model, choice))?)
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let (script, attempt) = self.attempt().await?;
        let (clock, model) = (self.0.clone(), request.model.clone());
        let announcements = iter::repeat_n("", script.announcements(attempt));
        let words = announcements.chain(REPLY.split_inclusive(' ')).enumerate();
        let state = (words, clock, model);
        let items = stream::try_unfold(state, move |(mut words, clock, model)| async move {
            let Some((number, word)) = words.next() else {
                return Ok(None);
            };
            if !act(&clock, script.item(attempt, number)).await? {
                return Ok(None);
            }
            let choice = json!({"index": 0, "delta": {"content": word}});
            let chunk = serde_json::from_value(answer(&model, choice))?;
            Ok(Some((chunk, (words, clock, model))))
        });
        Ok(items.boxed())
    }
}

impl Faulty {
    async fn attempt(&self) -> Result<(Script, usize), Error> {
        let (script, number) = {
            let call = self.1.current();
            (call.script, call.attempts.len() - 1)
        };
        act(&self.0, script.attempt(number)).await?;
        Ok((script, number))
    }
}

/// Returns whether a stream goes on.
async fn act(clock: &VirtualTimer, (after, act): (Duration, Act)) -> Result<bool, Error> {
    if !after.is_zero() {
        clock.sleep(after).await;
    }
    match act {
        Act::Succeed => Ok(true),
        Act::End => Ok(false),
        Act::Fail(status, seconds) => {
            let wait = (seconds > 0).then_some(Duration::from_secs(seconds));
            Err(wire::refusal(status, String::new(), wait))
        }
        Act::Hang => pending().await,
        Act::Panic => panic_on_purpose(),
    }
}

fn answer(model: &str, choice: Value) -> Value {
    json!({"id": "", "object": "", "created": 0, "model": model, "choices": [choice]})
}

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
