//! The HTTP client of `crabllm-provider` on smol, with retries.
//!
//! That client needs tokio's context, which `async-compat` lends to a future, here to the whole
//! program. The retries and timeouts around the client need none.
//!
//! ```sh
//! cargo run --example crabllm_provider_on_smol --features crabllm-core-0_0_25
//! ```

#![forbid(unsafe_code)]

#[path = "../support/flaky_server.rs"]
mod flaky_server;

use async_compat::CompatExt;
use crabllm_provider_0_0_25::{RemoteProvider, make_client};
use crabllm_retry::{
    Event, Retrying,
    crabllm_core_0_0_25::{ChatCompletionRequest, Message, Provider, ProviderConfig},
};
use flaky_server::{Fault, FlakyServer};
use futures::StreamExt;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // Two crates in this tree bring different providers of cryptography to rustls: choose one.
    _ = rustls::crypto::ring::default_provider().install_default();
    // The stream is read in tokio's context too, so everything runs in it.
    smol::block_on(run().compat())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let client = make_client();
    // A chat and a stream for each dialect, and the fault that each of them meets first.
    for (dialect, chat, stream) in [
        ("openai", Fault::RateLimit(1), Fault::Drop),
        ("anthropic", Fault::DropHalfway, Fault::Status(500)),
    ] {
        let server = FlakyServer::start([("chat", &[chat]), ("stream", &[stream])])?;
        let config = ProviderConfig {
            base_url: Some(server.base_url()),
            ..ProviderConfig::default()
        };
        let provider = RemoteProvider::new(dialect, &config, client.clone());
        let provider = Retrying::new(provider).recommended().observe(|event| {
            if let Event::Retry { delay, error, .. } = event {
                println!("again in {delay:.0?}: {error}");
            }
        });

        let answer = provider.chat_completion(&request("chat")).await?;
        println!("{dialect}: {}", answer.content().unwrap_or_default());

        let mut chunks = provider.chat_completion_stream(&request("stream")).await?;
        let mut reply = String::new();
        while let Some(chunk) = chunks.next().await {
            reply += chunk?.content().unwrap_or_default();
        }
        println!("{dialect}, streamed: {reply}");
        println!("{} requests for 2 calls", server.requests());
    }
    Ok(())
}

/// A request; the server knows it by the name of the model.
fn request(model: &str) -> ChatCompletionRequest {
    ChatCompletionRequest {
        model: model.into(),
        messages: vec![Message::user("What is patience?")],
        stream: Some(model == "stream"),
        ..ChatCompletionRequest::default()
    }
}
