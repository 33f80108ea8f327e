//! OpenAI's chat completions, as far as the flaky server speaks them.

use super::{REPLY, words};
use serde_json::{Value, json};

pub fn error(message: &str) -> Value {
    json!({"error": {"message": message, "type": "server_error"}})
}

pub fn reply(model: &str) -> Value {
    let message = json!({"role": "assistant", "content": REPLY});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    object("chat.completion", model, choice)
}

/// The events of a stream, as they are sent.
pub fn events(model: &str) -> Vec<String> {
    let chunk = |delta: Value, finish_reason: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
        let data = object("chat.completion.chunk", model, choice);
        format!("data: {data}\n\n")
    };
    words()
        .map(|word| chunk(json!({"content": word}), None))
        .chain([chunk(json!({}), Some("stop")), "data: [DONE]\n\n".into()])
        .collect()
}

fn object(kind: &str, model: &str, choice: Value) -> Value {
    json!({
        "id": "chatcmpl-flaky",
        "object": kind,
        "created": 0,
        "model": model,
        "choices": [choice],
    })
}
