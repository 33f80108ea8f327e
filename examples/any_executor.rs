//! The same call on four executors, two of them without any notion of time.

use crabllm_retry::{
    FuturesTimer, Retrying, Scripted, Step,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json},
};
use std::{error::Error, time::Instant};

async fn call(executor: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let request: ChatCompletionRequest = json::from_str(r#"{"model": "demo", "messages": []}"#)?;
    let overloaded_twice = [Step::status(503), Step::status(503)];
    let provider = Retrying::new(Scripted::new(FuturesTimer, overloaded_twice));
    let begun = Instant::now();
    provider.chat_completion(&request).await?;
    let attempts = provider.get_ref().attempts().len();
    println!(
        "{executor:<24} {attempts} attempts in {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    smol::block_on(call("smol"))?;
    async_std::task::block_on(call("async-std"))?;
    let tokio = tokio::runtime::Builder::new_current_thread().build()?;
    tokio.block_on(call("tokio without drivers"))?;
    futures::executor::block_on(call("no runtime at all"))
}
