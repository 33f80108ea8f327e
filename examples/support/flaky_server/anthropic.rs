//! Anthropic's messages, as far as the flaky server speaks them.

use super::{REPLY, words};
use serde_json::{Value, json};

pub fn error(message: &str) -> Value {
    json!({"type": "error", "error": {"type": "api_error", "message": message}})
}

pub fn reply(model: &str) -> Value {
    let content = json!([{"type": "text", "text": REPLY}]);
    message(model, content, Some("end_turn"))
}

/// The events of a stream, as they are sent.
pub fn events(model: &str) -> Vec<String> {
    let text = |word| {
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
    head.into_iter()
        .chain(words().map(text))
        .chain(tail)
        .map(|data| {
            let kind = data["type"].as_str().unwrap_or_default();
            format!("event: {kind}\ndata: {data}\n\n")
        })
        .collect()
}

fn message(model: &str, content: Value, stop_reason: Option<&str>) -> Value {
    json!({
        "id": "msg_flaky",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {"input_tokens": 11, "output_tokens": 11},
    })
}
