//! The dialects of the flaky server.

use super::REPLY;
use serde_json::{Value, json};
use std::iter;

/// The dialect of a request.
#[derive(Clone, Copy)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    pub fn of(path: &str) -> Option<Self> {
        if path.ends_with("/chat/completions") {
            Some(Self::OpenAi)
        } else if path.ends_with("/messages") {
            Some(Self::Anthropic)
        } else {
            None
        }
    }

    pub fn error(self, status: u16, message: &str) -> Value {
        match self {
            Self::OpenAi => {
                let (kind, code) = match status {
                    429 => ("requests", Some("rate_limit_exceeded")),
                    _ => ("server_error", None),
                };
                json!({"error": {"type": kind, "code": code, "message": message}})
            }
            Self::Anthropic => {
                let kind = match status {
                    429 => "rate_limit_error",
                    _ => "api_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
        }
    }

    pub fn reply(self, model: &str) -> Value {
        match self {
            Self::OpenAi => {
                let message = json!({"role": "assistant", "content": REPLY});
                let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
                completion("chat.completion", model, json!([choice]))
            }
            Self::Anthropic => {
                let content = json!([{"type": "text", "text": REPLY}]);
                message(model, content, Some("end_turn"))
            }
        }
    }

    /// The server-sent event of an error after a good status; OpenAI's is a chunk if it has choices.
    pub fn error_event(self, model: &str, choices: Option<Value>) -> String {
        let error = json!({"type": "overloaded_error", "message": "the server is overloaded"});
        let (name, mut data) = match (self, choices) {
            (Self::OpenAi, Some(it)) => ("", completion("chat.completion.chunk", model, it)),
            (Self::OpenAi, None) => ("", json!({})),
            (Self::Anthropic, _) => ("event: error\n", json!({"type": "error"})),
        };
        data["error"] = error;
        format!("{name}data: {data}\n\n")
    }

    /// The server-sent events of a streamed reply, word by word. The first only announces it.
    pub fn events(self, model: &str) -> Vec<String> {
        let words = REPLY.split_inclusive(' ');
        match self {
            Self::OpenAi => {
                let chunk = |delta: Value, finish_reason: Option<&str>| {
                    let choice =
                        json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
                    let data = completion("chat.completion.chunk", model, json!([choice]));
                    format!("data: {data}\n\n")
                };
                iter::once(json!({"role": "assistant", "content": ""}))
                    .chain(words.map(|word| json!({"content": word})))
                    .map(|delta| chunk(delta, None))
                    .chain([chunk(json!({}), Some("stop")), "data: [DONE]\n\n".into()])
                    .collect()
            }
            Self::Anthropic => {
                let delta = |word| {
                    let delta = json!({"type": "text_delta", "text": word});
                    json!({"type": "content_block_delta", "index": 0, "delta": delta})
                };
                let block = json!({"type": "text", "text": ""});
                let end = json!({"stop_reason": "end_turn", "stop_sequence": null});
                let head = [
                    json!({"type": "message_start", "message": message(model, json!([]), None)}),
                    json!({"type": "content_block_start", "index": 0, "content_block": block}),
                ];
                let tail = [
                    json!({"type": "content_block_stop", "index": 0}),
                    json!({"type": "message_delta", "delta": end, "usage": {"output_tokens": 11}}),
                    json!({"type": "message_stop"}),
                ];
                (head.into_iter().chain(words.map(delta)).chain(tail))
                    .map(|data| {
                        let kind = data["type"].as_str().unwrap_or_default();
                        format!("event: {kind}\ndata: {data}\n\n")
                    })
                    .collect()
            }
        }
    }
}

/// An object of OpenAI's chat completions.
fn completion(kind: &str, model: &str, choices: Value) -> Value {
    json!({"id": "flaky", "object": kind, "created": 0, "model": model, "choices": choices})
}

/// A message of Anthropic's.
fn message(model: &str, content: Value, stop_reason: Option<&str>) -> Value {
    json!({
        "id": "flaky",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {"input_tokens": 11, "output_tokens": 11},
    })
}
