//! A client of your own on smol, over `isahc`, with retries.
//!
//! ```sh
//! cargo run --example chat
//! cargo run --example chat -- http://localhost:11434/v1 llama3.2
//! OPENAI_API_KEY=… cargo run --example chat --features https -- https://api.openai.com/v1 gpt-4o-mini
//! ```
//!
//! Without a URL the server is one in this process that fails at first.

#[path = "support/flaky_server.rs"]
mod flaky_server;

use crabllm_retry::{Event, Operation, Retrying, crabllm_core_0_0_19::Error, hints};
use flaky_server::{Fault, FlakyServer};
use isahc::{HttpClient, Request, prelude::*};
use serde_json::{Value, json};
use std::env;

/// A client of one server, without retries.
struct Client {
    http: HttpClient,
    url: String,
    model: String,
    key: String,
}

impl Client {
    async fn ask(&self, question: &str) -> Result<String, Error> {
        let messages = json!([{"role": "user", "content": question}]);
        let request = Request::post(format!("{}/chat/completions", self.url))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.key))
            .body(json!({"model": self.model, "messages": messages}).to_string())
            .map_err(|error| Error::Config(error.to_string()))?;
        let answer = self.http.send_async(request).await;
        let mut answer = answer.map_err(|error| Error::Internal(error.to_string()))?;
        let body = answer.bytes().await;
        let body = body.map_err(|error| Error::Internal(error.to_string()))?;
        if answer.status().is_success() {
            let answer: Value = serde_json::from_slice(&body)?;
            let text = answer["choices"][0]["message"]["content"].as_str();
            return Ok(text.unwrap_or_default().to_owned());
        }

        // The retries read the delay that the server asks for in the body.
        let mut body = String::from_utf8_lossy(&body).into_owned();
        if let Some(value) = answer.headers().get("retry-after")
            && let Ok(value) = value.to_str()
            && let Some(delay) = hints::retry_after_header("retry-after", value)
        {
            body = hints::with_retry_after(body, delay);
        }
        let status = answer.status().as_u16();
        Err(Error::Provider { status, body })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = FlakyServer::start([("flaky", &[Fault::Drop, Fault::Status(503)])])?;
    let mut args = env::args().skip(1);
    // A proxy would look for a local server on its own machine.
    let http = HttpClient::builder().proxy_blacklist(["localhost", "127.0.0.1"]);
    let client = Client {
        http: http.build()?,
        url: args.next().unwrap_or_else(|| server.base_url()),
        model: args.next().unwrap_or_else(|| "flaky".into()),
        key: env::var("OPENAI_API_KEY").unwrap_or_default(),
    };

    let client = Retrying::new(client).recommended().observe(|event| {
        if let Event::Retry { delay, error, .. } = event {
            eprintln!("{error}; again in {delay:.1?}");
        }
    });
    let chat = Operation::ChatCompletion;
    let answer = client.call(chat, None, |client| client.ask("What is patience?"));
    println!("{}", smol::block_on(answer)?);
    Ok(())
}
