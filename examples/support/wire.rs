//! OpenAI's chat completions as they go over the wire, as far as the examples need them: text in,
//! text out.

#![allow(dead_code, reason = "each program uses its own part")]

use crabllm_retry::{
    crabllm_core_0_0_19::{
        ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Choice, ContentBlock,
        Error, FinishReason, Message, Role, Usage,
    },
    hints,
};
use futures::{FutureExt, Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use sse_stream::SseByteStream;
use std::{error, io, time::Duration};

/// The start of the message of every error for a server to which there is no connection.
pub const UNREACHABLE: &str = "cannot connect to";

/// The error for an answer that was cut short.
pub fn broke_off(error: &(dyn error::Error + 'static)) -> Error {
    Error::Internal(format!("the answer broke off: {}", root_cause(error)))
}

/// Where an error comes from; some HTTP clients know no more of it themselves than that it is one.
pub fn root_cause<'a>(
    mut error: &'a (dyn error::Error + 'static),
) -> &'a (dyn error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[derive(Serialize)]
struct WireRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct WireMessage {
    role: Role,
    content: Option<String>,
}

#[derive(Deserialize)]
struct WireResponse {
    #[serde(default)]
    id: String,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    model: String,
    choices: Vec<WireChoice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    index: u32,
    message: WireMessage,
    finish_reason: Option<FinishReason>,
}

/// A request with one message.
pub fn question(model: &str, prompt: &str, user: Option<String>) -> ChatCompletionRequest {
    ChatCompletionRequest {
        model: model.into(),
        messages: vec![Message::user(prompt)],
        user,
        temperature: None,
        top_p: None,
        max_tokens: None,
        stream: None,
        stop: None,
        tools: None,
        tool_choice: None,
        frequency_penalty: None,
        presence_penalty: None,
        seed: None,
        reasoning_effort: None,
        thinking: None,
        anthropic_max_tokens: None,
        extra: Default::default(),
    }
}

/// The error of a server that refuses to answer. This release's has no field for the wait that
/// a header asks for, so it goes into the body.
pub fn refusal(status: u16, body: String, wait: Option<Duration>) -> Error {
    let body = match wait {
        Some(wait) => hints::with_retry_after(body, wait),
        None => body,
    };
    Error::Provider { status, body }
}

/// The body of a request.
pub fn request(request: &ChatCompletionRequest, stream: bool) -> Result<Vec<u8>, Error> {
    let messages = request
        .messages
        .iter()
        .map(|message| {
            Ok(WireMessage {
                role: message.role.clone(),
                content: Some(text(&message.content)?),
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(serde_json::to_vec(&WireRequest {
        model: &request.model,
        messages,
        stream,
        temperature: request.temperature,
        max_tokens: request.max_tokens,
        user: request.user.as_deref(),
    })?)
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
    let response: WireResponse = serde_json::from_slice(body)?;
    let choices = response.choices.into_iter().map(|choice| Choice {
        index: choice.index,
        message: Message {
            role: choice.message.role,
            content: (choice.message.content.into_iter())
                .map(|text| ContentBlock::Text { text })
                .collect(),
        },
        finish_reason: choice.finish_reason,
        logprobs: None,
    });
    Ok(ChatCompletionResponse {
        id: response.id,
        object: "chat.completion".into(),
        created: response.created,
        model: response.model,
        choices: choices.collect(),
        usage: response.usage,
        system_fingerprint: None,
    })
}

/// The chunks in a body of server-sent events. After an error comes nothing more.
pub fn chunks<B: AsRef<[u8]> + Send>(
    body: impl Stream<Item = io::Result<io::Cursor<B>>> + Send,
) -> impl Stream<Item = Result<ChatCompletionChunk, Error>> + Send {
    let events = Box::pin(SseByteStream::new(body));
    stream::try_unfold((events, false), async |(mut events, mut finished)| {
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| broke_off(&error))?;
            match event.data.as_deref() {
                Some("[DONE]") => {
                    // The end of the body is here by now more often than not, and whoever reads to
                    // there can use the connection again. It is not worth a wait.
                    _ = events.next().now_or_never();
                    return Ok(None);
                }
                Some(data) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn read(body: &str) -> Vec<Result<String, Error>> {
        // One byte at a time, so that nothing depends on where the pieces of a body end.
        let pieces = body
            .as_bytes()
            .chunks(1)
            .map(|piece| Ok(io::Cursor::new(piece)));
        let chunks = chunks(stream::iter(pieces))
            .map(|chunk| Ok(chunk?.content().unwrap_or_default().to_owned()));
        futures::executor::block_on(chunks.collect())
    }

    fn event(content: &str, finish_reason: &str) -> String {
        format!(
            r#"data: {{"id":"1","object":"chat.completion.chunk","created":0,"model":"m","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#
        ) + "\r\n\r\n"
    }

    #[test]
    fn a_stream_ends_at_done_or_after_a_finish_reason() {
        let hi = event("hi", "null");
        let bye = event("bye", r#""stop""#);
        for body in [
            format!("{hi}: comment\n\n{bye}data: [DONE]\n\n"),
            format!("{hi}{bye}"),
            format!("{hi}{}data: [DONE]\n\n{hi}", event("bye", "null")),
        ] {
            let texts: Result<Vec<_>, _> = read(&body).into_iter().collect();
            assert_eq!(texts.unwrap(), ["hi", "bye"]);
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
    fn a_stream_that_breaks_off_is_a_transient_error() {
        for body in ["", &event("hi", "null"), "data: [DONE]"] {
            let last = read(body).pop();
            assert!(
                matches!(&last, Some(Err(error @ Error::Internal(_))) if error.is_transient()),
                "{last:?}"
            );
        }
    }

    #[test]
    fn an_event_that_is_not_json_ends_the_stream() {
        let read = read(&format!("{}data: oops\n\n{0}", event("hi", "null")));
        assert!(
            matches!(&read[..], [Ok(_), Err(Error::Json(_))]),
            "{read:?}"
        );
    }

    #[test]
    fn messages_are_sent_as_plain_strings() {
        let body = request(&question("m", "hi", Some("me".into())), true).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "model": "m",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": true,
                "user": "me",
            })
        );
    }

    #[test]
    fn a_response_needs_only_its_choices() {
        let body = r#"{"choices":[{"message":{"role":"assistant","content":"hi"}}]}"#;
        assert_eq!(response(body.as_bytes()).unwrap().content(), Some("hi"));
        assert!(matches!(response(b"{\"cho"), Err(Error::Json(_))));
    }
}
