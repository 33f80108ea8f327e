//! The provider that fails as the scripts say, in virtual time.

use crate::{
    caller::Signs,
    log::{Log, number, panic_on_purpose},
    script::{Act, Flow, FlowEnd, Script},
};
use crabllm_retry::{
    Failure, Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    test_util::VirtualTimer,
};
use futures::{StreamExt, stream};
use std::{future::pending, sync::Arc, time::Duration};

pub const SIGNS: Signs = Signs {
    numbered: true,
    user: |_| None,
    origin,
    hint,
};

#[derive(Clone)]
pub struct Chaos {
    /// The seed of the scripts of its calls.
    pub seed: u64,
    pub clock: VirtualTimer,
    /// Where it looks up which attempt is made.
    pub log: Arc<Log>,
}

impl Provider for Chaos {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let (_, attempt) = self.attempt(request).await?;
        Ok(ChatCompletionResponse {
            model: request.model.clone(),
            created: attempt as u64,
            ..Default::default()
        })
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let (script, _) = self.attempt(request).await?;
        let clock = self.clock.clone();
        Ok(flow(clock, request.model.clone(), script.flow).boxed())
    }
}

impl Chaos {
    /// Makes an attempt, and returns its number where it succeeds.
    async fn attempt(&self, request: &ChatCompletionRequest) -> Result<(Script, usize), Error> {
        let call = number(&request.model);
        let attempt = self.log.record(call).attempts.len() - 1;
        let script = Script::of(self.seed, call);
        let turn = script.turn(attempt);
        sleep(&self.clock, turn.after).await;
        match turn.act {
            Act::Succeed => Ok((script, attempt)),
            Act::Fail(status, wait) => Err(Error::Provider {
                status,
                body: format!("{call} {attempt} {wait}"),
            }),
            Act::Disconnect => Err(Error::Internal("connection lost".into())),
            Act::Misconfigured => Err(Error::Config("no such thing".into())),
            Act::Hang => pending().await,
            Act::Panic => panic_on_purpose(),
        }
    }
}

fn flow(
    clock: VirtualTimer,
    model: String,
    flow: Flow,
) -> impl futures::Stream<Item = Result<ChatCompletionChunk, Error>> + Send {
    stream::unfold((clock, model, 0), move |(clock, model, sent)| async move {
        if sent > flow.items {
            return None;
        }
        sleep(&clock, flow.pace).await;
        if sent < flow.items {
            let chunk = ChatCompletionChunk {
                model: model.clone(),
                created: sent as u64,
                ..Default::default()
            };
            return Some((Ok(chunk), (clock, model, sent + 1)));
        }
        match flow.end {
            FlowEnd::Finish => None,
            FlowEnd::Fail => {
                let error = Error::Internal("connection lost".into());
                Some((Err(error), (clock, model, sent + 1)))
            }
            FlowEnd::Hang => pending().await,
            FlowEnd::Panic => panic_on_purpose(),
        }
    })
}

async fn sleep(clock: &VirtualTimer, duration: Duration) {
    if !duration.is_zero() {
        clock.sleep(duration).await;
    }
}

/// The seconds that a body asks to wait.
fn hint(error: &dyn Failure) -> Option<Duration> {
    let [_, _, wait] = numbers(error.body()?)?;
    (wait > 0).then_some(Duration::from_secs(wait))
}

/// Whose error this is, if it says so: the call and the attempt.
fn origin(error: &dyn Failure) -> Option<(usize, usize)> {
    let [call, attempt, _] = numbers(error.body()?)?;
    Some((call as usize, attempt as usize))
}

fn numbers(body: &str) -> Option<[u64; 3]> {
    let mut numbers = body.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}
