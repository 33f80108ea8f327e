//! The provider that acts out the scripts in virtual time.

use crate::{
    flaky_server::REPLY,
    log::{Log, panic_on_purpose},
    script::{Act, Script},
    wire,
};
use crabllm_retry::{
    Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Choice,
        ChunkChoice, Delta, Error, Message, Provider,
    },
    test_util::VirtualTimer,
};
use futures::{StreamExt, stream};
use std::{future::pending, sync::Arc, time::Duration};

#[derive(Clone)]
pub struct Faulty {
    pub clock: VirtualTimer,
    pub log: Arc<Log>,
}

impl Provider for Faulty {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        self.attempt(request).await?;
        let choice = Choice {
            index: 0,
            message: Message::assistant(REPLY),
            finish_reason: None,
            logprobs: None,
        };
        Ok(ChatCompletionResponse {
            model: request.model.clone(),
            choices: vec![choice],
            ..Default::default()
        })
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let script = self.attempt(request).await?;
        let (clock, model) = (self.clock.clone(), request.model.clone());
        let words = REPLY.split_inclusive(' ').enumerate();
        let state = (words, clock, model);
        let items = stream::try_unfold(state, move |(mut words, clock, model)| async move {
            let Some((number, word)) = words.next() else {
                return Ok(None);
            };
            act(&clock, script.item(number)).await?;
            let chunk = chunk(&model, word);
            Ok(Some((chunk, (words, clock, model))))
        });
        Ok(items.boxed())
    }
}

impl Faulty {
    async fn attempt(&self, request: &ChatCompletionRequest) -> Result<Script, Error> {
        let (script, number) = {
            let call = self.log.of(&request.model);
            (call.script, call.attempts.len() - 1)
        };
        act(&self.clock, script.attempt(number)).await?;
        Ok(script)
    }
}

async fn act(clock: &VirtualTimer, (after, act): (Duration, Act)) -> Result<(), Error> {
    if !after.is_zero() {
        clock.sleep(after).await;
    }
    match act {
        Act::Succeed => Ok(()),
        Act::Disconnect => Err(Error::Internal("connection lost".into())),
        Act::Fail(status, seconds) => {
            let wait = (seconds > 0).then_some(Duration::from_secs(seconds));
            Err(wire::refusal(status, String::new(), wait))
        }
        Act::Hang => pending().await,
        Act::Panic => panic_on_purpose(),
    }
}

fn chunk(model: &str, word: &str) -> ChatCompletionChunk {
    let delta = Delta {
        content: Some(word.into()),
        ..Delta::default()
    };
    let choice = ChunkChoice {
        delta,
        ..ChunkChoice::default()
    };
    ChatCompletionChunk {
        model: model.into(),
        choices: vec![choice],
        ..ChatCompletionChunk::default()
    }
}
