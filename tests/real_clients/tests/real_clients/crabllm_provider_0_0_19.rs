//! The clients of `crabllm-provider` 0.0.19.
//!
//! Their errors are without what the `retry-after` header of an answer says, but have its body,
//! and the server says it there too. Gemini's client knows one address only, and that one by TLS.

use crate::{
    Method,
    answer::{Answer, raw_text, text},
    call, choose_cryptography,
    flaky_server::Fault,
    patient, request,
};
use crabllm_provider_0_0_19::{HttpClient, RemoteProvider, make_client};
use crabllm_retry::{
    AsyncIoTimer, Retrying,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json},
};
use std::sync::OnceLock;

type Client = Retrying<RemoteProvider, AsyncIoTimer>;

pub fn unary() -> Vec<Method> {
    vec![
        openai("chat_completion_raw", async |client| {
            let raw = request(false).into();
            Answer::whole(client.chat_completion_raw("", raw).await, raw_text)
        }),
        anthropic("chat_completion", async |client| {
            Answer::whole(client.chat_completion(&chat(false)).await, text)
        }),
        anthropic("chat_completion_raw", async |client| {
            let raw = request(false).into();
            Answer::whole(client.chat_completion_raw("", raw).await, raw_text)
        }),
        anthropic("anthropic_messages_raw", async |client| {
            let raw = request(false).into();
            Answer::whole(client.anthropic_messages_raw(raw).await, raw_text)
        }),
    ]
}

pub fn streams() -> Vec<Method> {
    vec![
        openai("chat_completion_stream", async |client| {
            Answer::items(client.chat_completion_stream(&chat(true)).await, text).await
        }),
        anthropic("chat_completion_stream", async |client| {
            Answer::items(client.chat_completion_stream(&chat(true)).await, text).await
        }),
    ]
}

/// This release takes the text of an answer in parts only, as Anthropic sends it, calls what it
/// cannot read an internal error, and those transient.
#[test]
fn an_answer_that_cannot_be_read_is_asked_for_again() {
    let chat_completion = || {
        vec![openai("chat_completion", async |client| {
            Answer::whole(client.chat_completion(&chat(false)).await, text)
        })]
    };
    for outcome in call(chat_completion(), &patient(), &[]) {
        outcome.is_the_error_after("expected a sequence", 3);
    }
    for outcome in call(chat_completion(), &patient(), &[Fault::Status(400)]) {
        outcome.is_the_error_after("HTTP 400", 1);
    }
}

fn openai(name: &str, call: impl AsyncFn(Client) -> Answer + Copy + 'static) -> Method {
    method("openai", name, call, |base_url| RemoteProvider::Openai {
        client: client(),
        base_url,
        api_key: String::new(),
    })
}

fn anthropic(name: &str, call: impl AsyncFn(Client) -> Answer + Copy + 'static) -> Method {
    method("anthropic", name, call, |base_url| {
        RemoteProvider::Anthropic {
            client: client(),
            base_url,
            api_key: String::new(),
        }
    })
}

fn method(
    dialect: &str,
    name: &str,
    call: impl AsyncFn(Client) -> Answer + Copy + 'static,
    provider: fn(String) -> RemoteProvider,
) -> Method {
    Method {
        name: format!("{dialect} {name} of 0.0.19"),
        call: Box::new(move |base_url, policy| {
            let client = Retrying::with_timer(provider(base_url), AsyncIoTimer).policy(policy);
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
