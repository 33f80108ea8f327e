//! Methods of the clients of `crabllm-provider` and of the examples', wrapped with retries.
//!
//! There is one for each kind of answer and dialect. Gemini's client knows one address only, and
//! that one by TLS.

use crate::{answer::Answer, client::Client};
use crabllm_provider::{HttpClient, RemoteProvider, make_client};
use crabllm_retry::{
    AsyncIoTimer, Event, Policy, Retrying,
    crabllm_core_0_0_19::Provider as _,
    crabllm_core_0_0_25::{Provider as _, ProviderConfig},
    hints,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering},
};

/// The model that every request asks for, and the name of its script at the server.
pub const MODEL: &str = "flaky-1";

/// How a client is wrapped, and the count of its attempts.
#[derive(Clone)]
pub struct Wrapper {
    pub policy: Policy,
    pub attempts: Arc<AtomicUsize>,
}

impl Wrapper {
    fn wrap<C>(self, client: C) -> Retrying<C, AsyncIoTimer> {
        Retrying::with_timer(client, AsyncIoTimer)
            .policy(self.policy)
            .retry_if(hints::is_transient)
            .observe(move |event| {
                if let Event::Attempt { .. } = event {
                    self.attempts.fetch_add(1, Ordering::Relaxed);
                }
            })
    }
}

/// The methods of the client of `crabllm-provider` 0.0.25, and of the examples' over isahc.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    Chat,
    ChatRaw,
    Messages,
    ChatOfIsahc,
    StreamRaw,
    Stream,
    MessagesStream,
    StreamOfIsahc,
}

use Method::*;

/// The methods that answer in one piece.
pub const UNARY: &[Method] = &[Chat, ChatRaw, Messages, ChatOfIsahc];

/// The methods that open a stream. The first does not read the events, the second takes an event
/// that is no chunk for nonsense, and the others take it for a failure that may pass.
pub const STREAMS: &[Method] = &[StreamRaw, Stream, MessagesStream, StreamOfIsahc];

impl Method {
    /// Calls a server.
    pub async fn call(self, url: String, wrapper: Wrapper) -> Answer {
        let isahc = wrapper.clone().wrap(Client::new(&url, None).unwrap());
        let dialect = match self {
            Messages | MessagesStream => "anthropic",
            _ => "openai",
        };
        let newest = newest(dialect, url, wrapper);
        match self {
            Chat => Answer::whole(newest.chat_completion(&parsed(false)).await),
            ChatRaw => {
                let json = |bytes: bytes::Bytes| serde_json::from_slice::<Value>(&bytes).unwrap();
                let answer = newest.chat_completion_raw("", request(false).into()).await;
                Answer::whole(answer.map(json))
            }
            Messages => Answer::whole(newest.anthropic_messages(&parsed(false)).await),
            ChatOfIsahc => Answer::whole(isahc.chat_completion(&parsed(false)).await),
            StreamRaw => {
                let opened = newest.chat_completion_stream_raw("", request(true).into());
                Answer::bytes(opened.await).await
            }
            Stream => Answer::items(newest.chat_completion_stream(&parsed(true)).await).await,
            MessagesStream => {
                Answer::items(newest.anthropic_messages_stream(&parsed(true)).await).await
            }
            StreamOfIsahc => Answer::items(isahc.chat_completion_stream(&parsed(true)).await).await,
        }
    }
}

pub fn newest(
    dialect: &str,
    url: String,
    wrapper: Wrapper,
) -> Retrying<RemoteProvider, AsyncIoTimer> {
    let config = ProviderConfig {
        base_url: Some(url),
        ..ProviderConfig::default()
    };
    let client = RemoteProvider::new(dialect, &config, CLIENT.clone());
    wrapper.wrap(client)
}

static CLIENT: LazyLock<HttpClient> = LazyLock::new(|| {
    // Two crates in this tree bring different providers of cryptography to rustls: choose one.
    _ = rustls::crypto::ring::default_provider().install_default();
    make_client()
});

/// A request that OpenAI's dialect and Anthropic's have in common.
fn request(stream: bool) -> String {
    format!(
        r#"{{"model": "{MODEL}", "max_tokens": 64, "stream": {stream}, "messages": [
            {{"role": "user", "content": [{{"type": "text", "text": "What is patience?"}}]}}
        ]}}"#
    )
}

pub fn parsed<T: DeserializeOwned>(stream: bool) -> T {
    serde_json::from_str(&request(stream)).unwrap()
}
