//! The clients of `crabllm-provider` 0.0.25.
//!
//! Gemini's client knows one address only, and that one by TLS. Its methods are called on the
//! clients of the other two dialects, which translate them.

use crate::{
    MODEL, Method,
    answer::{Answer, raw_text, text},
    call, choose_cryptography,
    flaky_server::Fault,
    patient, request,
};
use crabllm_provider_0_0_25::{HttpClient, RemoteProvider, make_client};
use crabllm_retry::{
    AsyncIoTimer, Retrying,
    crabllm_core_0_0_25::{
        ChatCompletionRequest, Provider, ProviderConfig, anthropic, gemini,
        ir::{self, StreamEvent::TextDelta},
        json,
    },
};
use futures::{StreamExt, stream};
use std::sync::OnceLock;

type Client = Retrying<RemoteProvider, AsyncIoTimer>;

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

pub fn unary() -> Vec<Method> {
    let mut all = vec![
        method("openai", "chat_completion_raw", async |client| {
            let raw = request(false).into();
            Answer::whole(client.chat_completion_raw("", raw).await, raw_text)
        }),
        method("anthropic", "anthropic_messages_raw", async |client| {
            let raw = request(false).into();
            Answer::whole(client.anthropic_messages_raw(raw).await, raw_text)
        }),
    ];
    for dialect in DIALECTS {
        all.extend([
            method(dialect, "chat_completion", async |client| {
                Answer::whole(client.chat_completion(&chat(false)).await, text)
            }),
            method(dialect, "anthropic_messages", async |client| {
                Answer::whole(client.anthropic_messages(&messages(false)).await, text)
            }),
            method(dialect, "gemini_generate_content", async |client| {
                let answer = client.gemini_generate_content(MODEL, &contents()).await;
                Answer::whole(answer, text)
            }),
            method(dialect, "gemini_generate_content_raw", async |client| {
                let raw = CONTENTS.into();
                let answer = client.gemini_generate_content_raw(MODEL, raw).await;
                Answer::whole(answer, raw_text)
            }),
            method(dialect, "complete", async |client| {
                Answer::whole(
                    client.complete(&intermediate()).await,
                    |answer| match &answer.content[..] {
                        [ir::Content::Text(text)] => text.clone(),
                        other => panic!("{other:?}"),
                    },
                )
            }),
        ]);
    }
    all
}

pub fn streams() -> Vec<Method> {
    let mut all = vec![
        method("openai", "chat_completion_stream_raw", async |client| {
            let raw = request(true).into();
            Answer::bytes(client.chat_completion_stream_raw("", raw).await).await
        }),
        method(
            "anthropic",
            "anthropic_messages_stream_raw",
            async |client| {
                let raw = request(true).into();
                Answer::bytes(client.anthropic_messages_stream_raw(raw).await).await
            },
        ),
    ];
    for dialect in DIALECTS {
        all.extend([
            method(dialect, "chat_completion_stream", async |client| {
                let opened = client.chat_completion_stream(&chat(true)).await;
                Answer::items(opened, text).await
            }),
            method(dialect, "anthropic_messages_stream", async |client| {
                let opened = client.anthropic_messages_stream(&messages(true)).await;
                Answer::items(opened, text).await
            }),
            method(dialect, "gemini_generate_content_stream", async |client| {
                let request = contents();
                let opened = client.gemini_generate_content_stream(MODEL, &request).await;
                Answer::items(opened, text).await
            }),
            method(dialect, "complete_stream", async |client| {
                let opened = client.complete_stream(&intermediate()).await;
                let text = |event: &_| match event {
                    TextDelta(text) => text.clone(),
                    _ => String::new(),
                };
                Answer::items(opened, text).await
            }),
        ]);
    }
    all
}

fn passthrough() -> Vec<Method> {
    vec![method(
        "openai",
        "chat_completion_stream_passthrough",
        async |client| {
            let body = stream::iter([Ok(request(true).into())]).boxed();
            Answer::bytes(client.chat_completion_stream_passthrough("", body).await).await
        },
    )]
}

#[test]
fn a_request_that_is_consumed_is_sent_once() {
    for outcome in call(passthrough(), &patient(), &[]) {
        outcome.is_good_after(1);
    }
    for outcome in call(passthrough(), &patient(), &[Fault::Status(503)]) {
        outcome.is_the_error_after("HTTP 503", 1);
    }
}

fn method(
    dialect: &'static str,
    name: &str,
    call: impl AsyncFn(Client) -> Answer + Copy + 'static,
) -> Method {
    Method {
        name: format!("{dialect} {name} of 0.0.25"),
        call: Box::new(move |base_url, policy| {
            let config = ProviderConfig {
                base_url: Some(base_url),
                ..ProviderConfig::default()
            };
            let provider = RemoteProvider::new(dialect, &config, client());
            let client = Retrying::with_timer(provider, AsyncIoTimer).policy(policy);
            Box::pin(async move { call(client).await })
        }),
    }
}

fn client() -> HttpClient {
    static CLIENT: OnceLock<HttpClient> = OnceLock::new();
    choose_cryptography();
    CLIENT.get_or_init(make_client).clone()
}

fn chat(stream: bool) -> ChatCompletionRequest {
    json::from_str(&request(stream)).unwrap()
}

fn messages(stream: bool) -> anthropic::Request {
    json::from_str(&request(stream)).unwrap()
}

fn intermediate() -> ir::Request {
    ir::Request::from(chat(false))
}

const CONTENTS: &str = r#"{"contents": [{"parts": [{"text": "What is patience?"}]}]}"#;

fn contents() -> gemini::Request {
    json::from_str(CONTENTS).unwrap()
}
