//! OpenAI's chat completions as they go over the wire, as far as the examples need them: text in,
//! text out.

#![allow(dead_code, reason = "each program uses its own part")]

use crabllm_retry::{
    crabllm_core_0_0_19::{
        ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, ContentBlock, Error,
        Message,
    },
    hints,
};
use futures::{FutureExt, Stream, StreamExt, stream};
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};
use std::{error, io, time::Duration};

/// The start of the message of every error for a server to which there is no connection.
pub const UNREACHABLE: &str = "cannot connect to";

/// The error for an answer that was cut short.
pub fn broke_off(error: &(dyn error::Error + 'static)) -> Error {
    Error::Internal(format!("the answer broke off: {}", root_cause(error)))
}

/// The first cause of an error: some HTTP clients say nothing more themselves.
pub fn root_cause<'a>(
    mut error: &'a (dyn error::Error + 'static),
) -> &'a (dyn error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// A request with one message.
pub fn question(model: &str, prompt: &str, user: Option<String>) -> ChatCompletionRequest {
    let request = json!({"model": model, "messages": [Message::user(prompt)], "user": user});
    serde_json::from_value(request).expect("a request needs nothing else")
}

/// The error of a server that refuses to answer. This release's has no field for the delay that a
/// header asks for, so the delay goes into the body.
pub fn refusal(status: u16, body: String, delay: Option<Duration>) -> Error {
    let body = match delay {
        Some(delay) => hints::with_retry_after(body, delay),
        None => body,
    };
    Error::Provider { status, body }
}

/// The body of a request. Messages are plain strings in it, because not every server takes parts.
pub fn request(request: &ChatCompletionRequest, stream: bool) -> Result<Vec<u8>, Error> {
    let mut body = serde_json::to_value(request)?;
    body["stream"] = stream.into();
    body["messages"] = (request.messages.iter())
        .map(|message| Ok(json!({"role": message.role, "content": text(&message.content)?})))
        .collect::<Result<Value, Error>>()?;
    Ok(serde_json::to_vec(&body)?)
}

fn text(blocks: &[ContentBlock]) -> Result<String, Error> {
    blocks
        .iter()
        .map(|block| match block {
            ContentBlock::Text { text } => Ok(text.as_str()),
            _ => Err(Error::Config("this client sends text only".into())),
        })
        .collect()
}

/// The response in the body of an answer.
pub fn response(body: &[u8]) -> Result<ChatCompletionResponse, Error> {
    let mut response: Value = serde_json::from_slice(body)?;
    for choice in response["choices"].as_array_mut().into_iter().flatten() {
        // This release takes messages in parts only.
        let content = &mut choice["message"]["content"];
        let text = content.as_str().unwrap_or_default();
        *content = json!([{"type": "text", "text": text}]);
    }
    Ok(serde_json::from_value(response)?)
}

/// The chunks in a body of server-sent events. Nothing follows an error.
pub fn chunks<B: AsRef<[u8]> + Send>(
    body: impl Stream<Item = io::Result<io::Cursor<B>>> + Send,
) -> impl Stream<Item = Result<ChatCompletionChunk, Error>> + Send {
    let events = Box::pin(SseByteStream::new(body));
    stream::try_unfold((events, false), async |(mut events, mut finished)| {
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| broke_off(&error))?;
            match event.data.as_deref() {
                Some("[DONE]") => {
                    // The end of the body has usually arrived, and a connection that is read to
                    // its end can be used again. It is not worth a wait.
                    _ = events.next().now_or_never();
                    return Ok(None);
                }
                Some(data) => {
                    if let Some(error) = error_in(&event, data) {
                        return Err(error);
                    }
                    let chunk: ChatCompletionChunk = serde_json::from_str(data)?;
                    finished |= chunk.finish_reason().is_some();
                    return Ok(Some((chunk, (events, finished))));
                }
                None => {}
            }
        }
        if finished {
            return Ok(None);
        }
        Err(Error::Internal("the answer ended too early".into()))
    })
}

/// The error that an event reports after a good status: Anthropic's by its name, others' in a field.
fn error_in(event: &Sse, data: &str) -> Option<Error> {
    let fields: Value = serde_json::from_str(data).unwrap_or_default();
    let error = &fields["error"];
    if error.is_null() && event.event.as_deref() != Some("error") {
        return None;
    }
    let code = error["code"].as_u64();
    let status = match error["type"].as_str() {
        Some("overloaded_error") => 529,
        Some("rate_limit_error") => 429,
        _ => 500,
    };
    let status = code.and_then(|it| it.try_into().ok()).unwrap_or(status);
    let body = data.to_owned();
    Some(Error::Provider { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    /// The texts of a body's chunks, and the error that ends them.
    fn read(body: &str) -> (String, String) {
        // One byte at a time, so that nothing depends on where the pieces of a body end.
        let pieces = body.as_bytes().chunks(1);
        let pieces = pieces.map(|piece| Ok(io::Cursor::new(piece)));
        let chunks = chunks(stream::iter(pieces)).collect::<Vec<_>>();
        let mut answer = <(String, String)>::default();
        for chunk in futures::executor::block_on(chunks) {
            assert_eq!(answer.1, "", "{body}");
            match chunk {
                Ok(chunk) => answer.0 += chunk.content().unwrap_or_default(),
                Err(error) => answer.1 = error.to_string(),
            }
        }
        answer
    }

    fn event(content: &str, finish_reason: Option<&str>) -> String {
        let delta = json!({"content": content});
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
        let chunk = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [choice]});
        format!("data: {chunk}\r\n\r\n")
    }

    #[test]
    #[rustfmt::skip]
    fn a_stream_ends_at_done_or_after_a_finish_reason_or_with_an_error() {
        let (hi, bye) = (event("hi", None), event("bye", Some("stop")));
        let early = "internal error: the answer ended too early";
        for (body, text, error) in [
            (format!("{hi}: comment\n\n{bye}data: [DONE]\n\n"), "hibye", ""),
            (format!("{hi}{bye}"), "hibye", ""),
            (format!("{hi}data: [DONE]\n\n{bye}"), "hi", ""),
            (String::new(), "", early),
            (hi.clone(), "hi", early),
            ("data: [DONE]".into(), "", early),
            (format!("{hi}data: oops\n\n{bye}"), "hi", "json error: expected value at line 1 column 1"),
        ] {
            assert_eq!(read(&body), (text.into(), error.into()), "{body}");
        }
        for (status, name, data) in [
            (529, "event: error\n", r#"{"error": {"type": "overloaded_error"}}"#),
            (500, "event: error\n", "the server is on fire"),
            (429, "", r#"{"error": {"type": "rate_limit_error", "code": null}}"#),
            (500, "", r#"{"error": {"type": "server_error", "code": "x"}}"#),
            (502, "", r#"{"choices": [], "error": {"code": 502}}"#),
        ] {
            let body = format!("{hi}{name}data: {data}\n\n{bye}");
            let error = format!("provider error (HTTP {status}): {data}");
            assert_eq!(read(&body), ("hi".into(), error), "{body}");
        }
    }

    #[test]
    fn a_body_that_ends_at_done_is_read_to_its_end() {
        let mut ended = false;
        let done = stream::iter([Ok(io::Cursor::new("data: [DONE]\n\n"))]);
        let end = stream::poll_fn(|_| {
            ended = true;
            Poll::Ready(None)
        });
        let chunks = chunks(done.chain(end)).collect::<Vec<_>>();
        assert!(futures::executor::block_on(chunks).is_empty());
        assert!(ended);
    }

    #[test]
    fn messages_are_plain_strings_on_the_wire() {
        let body = request(&question("m", "hi", None), true).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["messages"], json!([{"role": "user", "content": "hi"}]));
    }
}
