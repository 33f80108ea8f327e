//! The same call on four executors, two of them without any notion of time; or, built for
//! `wasm32-unknown-unknown`, on the one of a browser tab.

use crabllm_retry::{
    FuturesTimer, Instant, Retrying,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider, json},
    test_util::{Scripted, Step},
};

async fn call(executor: &str) -> Result<String, Error> {
    let request: ChatCompletionRequest = json::from_str(r#"{"model": "demo", "messages": []}"#)?;
    let overloaded_twice = [Step::status(503), Step::status(503)];
    let provider = Retrying::new(Scripted::new(FuturesTimer, overloaded_twice));
    let begun = Instant::now();
    provider.chat_completion(&request).await?;
    let attempts = provider.get_ref().attempts().len();
    let millis = begun.elapsed().as_millis() as u64;
    Ok(format!("{executor:<24} {attempts} attempts in {millis} ms"))
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", smol::block_on(call("smol"))?);
    println!("{}", async_std::task::block_on(call("async-std"))?);
    let tokio = tokio::runtime::Builder::new_current_thread().build()?;
    println!("{}", tokio.block_on(call("tokio without drivers"))?);
    let alone = call("no runtime at all");
    println!("{}", futures::executor::block_on(alone)?);
    Ok(())
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn main() {
    wasm_bindgen_futures::spawn_local(async {
        let line = call("a browser tab")
            .await
            .unwrap_or_else(|error| error.to_string());
        web_sys::console::log_1(&line.into());
    });
}
