//! The HTTP client of `crabllm-provider` on smol, with retries.
//!
//! That client expects tokio around it, which `async-compat` lends to a future, here to the whole
//! program. The retries and timeouts around the client need neither.
//!
//! ```sh
//! cargo run --example crabllm_provider_on_smol --features crabllm-core-0_0_25
//! ```

#![forbid(unsafe_code)]

#[path = "../support/flaky_server.rs"]
mod flaky_server;

use async_compat::CompatExt;
use crabllm_provider_0_0_25::{HttpClient, RemoteProvider, make_client};
use crabllm_retry::{
    Event, Operations, Policy, Retrying,
    crabllm_core_0_0_25::{ChatCompletionRequest, Error, Message, Provider, ProviderConfig},
};
use flaky_server::{Fault, FlakyServer};
use futures::{StreamExt, future::join_all};
use std::{
    collections::HashMap,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The dialect of each call, whether it wants a stream, and the fault that it meets first.
const CALLS: [(&str, bool, Fault); 6] = [
    ("openai", false, Fault::Status(503)),
    ("openai", false, Fault::RateLimit(1)),
    ("openai", true, Fault::Drop),
    ("anthropic", false, Fault::Stall),
    ("anthropic", false, Fault::DropHalfway),
    ("anthropic", true, Fault::Status(500)),
];

static RETRIES: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    // Other examples here have a rustls with another provider of cryptography, so choose one.
    _ = rustls::crypto::ring::default_provider().install_default();
    // A streaming answer is read within the context of tokio too: hence everything is.
    match smol::block_on(run().compat()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let scripts = CALLS.iter().enumerate();
    let scripts = scripts.map(|(index, &(.., fault))| (name(index), [fault]));
    let server = FlakyServer::start(Duration::from_millis(50), scripts)
        .map_err(|error| Error::Config(format!("cannot start a server: {error}")))?;

    let client = make_client();
    // One wrapper for each provider: its calls share it, and so the one sleep behind all timeouts.
    let providers: HashMap<_, _> = ["openai", "anthropic"]
        .map(|dialect| (dialect, provider(&client, dialect, server.base_url())))
        .into();
    let start = Instant::now();
    let calls = CALLS.iter().enumerate();
    let calls = calls.map(async |(index, &(dialect, streams, _))| {
        let provider = &providers[dialect];
        let request = ChatCompletionRequest {
            model: name(index),
            messages: vec![Message::user("What is patience?")],
            stream: Some(streams),
            ..ChatCompletionRequest::default()
        };
        let reply = if streams {
            read(provider, &request).await?
        } else {
            let answer = provider.chat_completion(&request).await?;
            answer.content().unwrap_or_default().to_owned()
        };
        println!("{} of {dialect} is answered: {reply}", request.model);
        Ok(())
    });
    let results: Vec<Result<(), Error>> = join_all(calls).await;
    let elapsed = start.elapsed();

    let failed = results.iter().filter(|result| result.is_err()).count();
    println!(
        "calls={} ok={} failed={failed} attempts={} retries={} elapsed_ms={}",
        results.len(),
        results.len() - failed,
        server.requests(),
        RETRIES.load(Ordering::Relaxed),
        elapsed.as_millis(),
    );
    results.into_iter().collect()
}

/// A client with retries around it.
fn provider(client: &HttpClient, dialect: &str, base_url: String) -> Retrying<RemoteProvider> {
    let config = ProviderConfig {
        base_url: Some(base_url),
        ..ProviderConfig::default()
    };
    let provider = RemoteProvider::new(dialect, &config, client.clone());
    let policy = Policy::default()
        .timeout(Duration::from_secs(1))
        .also_retry(Operations::STREAMS);
    Retrying::new(provider).policy(policy).observe(|event| {
        if let Event::Retry {
            model: Some(model),
            delay,
            error,
            ..
        } = event
        {
            RETRIES.fetch_add(1, Ordering::Relaxed);
            println!("{model} is retried in {delay:.0?}: {error}");
        }
    })
}

async fn read(provider: &impl Provider, request: &ChatCompletionRequest) -> Result<String, Error> {
    let mut chunks = provider.chat_completion_stream(request).await?;
    let mut reply = String::new();
    while let Some(chunk) = chunks.next().await {
        reply.push_str(chunk?.content().unwrap_or_default());
    }
    Ok(reply)
}

/// By which name the server knows a call.
fn name(index: usize) -> String {
    format!("call {}", index + 1)
}
