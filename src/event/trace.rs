//! An observer that emits `tracing` events.

use super::{DelaySource, Event, GiveUpReason};
use crate::{failure::Failure, policy::Operation};
use std::{
    borrow::Cow,
    fmt::{self, Write},
    time::Duration,
};

/// Emits each [`Event`] as an event of the [`tracing`] crate, for
/// [`Retrying::observe`](crate::retrying::Retrying::observe) and
/// [`Fallback::observe`](struct.Fallback.html#method.observe).
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::Retrying;
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
///
/// tracing_subscriber::fmt().init();
///
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// let timer = VirtualTimer::new();
/// let overloaded = Scripted::new(timer.clone(), [Step::status(503)]);
/// let provider = Retrying::with_timer(overloaded, timer).observe(crabllm_retry::trace);
///
/// // Logs that an attempt failed, and that the call succeeded after retries.
/// futures::executor::block_on(provider.chat_completion(&request))?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The target is always `crabllm_retry`. The events belong to the span in which the
/// call is polled: with `call.instrument(span)` the span contains all of its attempts.
///
/// | event | level |
/// | --- | --- |
/// | `Attempt` | `TRACE` |
/// | `Retry` | `WARN` |
/// | `Waiting` | `DEBUG` |
/// | `Success` of the first attempt | `DEBUG` |
/// | `Success` of a later attempt | `INFO` |
/// | `GaveUp`, the error is not transient | `WARN` |
/// | `GaveUp` for any other reason | `ERROR` |
/// | `StreamStalled`, `StreamBroken` | `WARN` |
/// | `FellBack`, `BreakerOpened` | `WARN` |
/// | `BreakerClosed` | `INFO` |
///
/// An error that is not transient is usually caused by the request, so the caller must
/// handle it. A transient one that ends the call is an outage that reached the caller.
///
/// The names of the fields are those of OpenTelemetry's semantic conventions
/// [for generative AI](https://github.com/open-telemetry/semantic-conventions-genai),
/// [HTTP](https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/),
/// [errors](https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/) and
/// [exceptions](https://opentelemetry.io/docs/specs/semconv/registry/attributes/exception/),
/// where they define one. A field that does not apply to an event is left out.
///
/// | field | holds |
/// | --- | --- |
/// | `gen_ai.operation.name` | `chat`, `generate_content`, `embeddings`, or the name of any other method |
/// | `gen_ai.request.model` | the requested model |
/// | `error.type` | the HTTP status of the failed attempt, `timeout`, or `_OTHER`, which a broken stream always has |
/// | `exception.message` | the first 1 KiB of the text of the error, and the number of bytes left out. It may contain the server's answer, which may be sensitive |
/// | `http.response.status_code` | the HTTP status of the failed attempt |
/// | `http.request.resend_count` | the number of resends, if any |
/// | `crabllm_retry.call` | the number of the call, unique among the calls of one wrapper and its clones |
/// | `crabllm_retry.method` | the method that was called |
/// | `crabllm_retry.attempt` | the attempt, counted from 1; 0 before the first, and for a `Fallback` |
/// | `crabllm_retry.elapsed` | seconds since the call began |
/// | `crabllm_retry.delay` | seconds until the next attempt |
/// | `crabllm_retry.wait` | seconds for which the call waited for its turn |
/// | `crabllm_retry.source` | where the delay comes from |
/// | `crabllm_retry.reason` | why no further attempt is made |
/// | `crabllm_retry.idle` | seconds for which a stream was silent |
pub fn trace(event: &Event<'_>) {
    /// Emits the event. Its level and message must be constants.
    macro_rules! emit {
        ($level:ident, $message:literal) => {{
            let fields = Fields::of(event);
            tracing::event!(
                target: "crabllm_retry",
                tracing::Level::$level,
                gen_ai.operation.name = operation_name(event.operation()),
                gen_ai.request.model = event.model(),
                error.type = fields.error_type.as_deref(),
                exception.message = fields.message.map(|text| tracing::field::display(Cut(text))),
                http.response.status_code = fields.status,
                // Left out unless the request was sent again, as the conventions ask.
                http.request.resend_count = event.attempt().checked_sub(1).filter(|&it| it > 0),
                crabllm_retry.call = event.call(),
                crabllm_retry.method = event.operation().as_str(),
                crabllm_retry.attempt = event.attempt(),
                crabllm_retry.elapsed = event.elapsed().as_secs_f64(),
                crabllm_retry.delay = fields.delay.as_ref().map(Duration::as_secs_f64),
                crabllm_retry.wait = fields.wait.as_ref().map(Duration::as_secs_f64),
                crabllm_retry.source = fields.source.map(tracing::field::display),
                crabllm_retry.reason = fields.reason.map(tracing::field::display),
                crabllm_retry.idle = fields.idle.as_ref().map(Duration::as_secs_f64),
                $message
            );
        }};
    }

    match event {
        Event::Attempt { .. } => emit!(TRACE, "attempt starts"),
        Event::Retry { .. } => emit!(WARN, "attempt failed, another one follows"),
        Event::Waiting { .. } => emit!(DEBUG, "turn came after a wait"),
        Event::Success { attempt: 1, .. } => emit!(DEBUG, "call succeeded"),
        Event::Success { .. } => emit!(INFO, "call succeeded after retries"),
        Event::GaveUp {
            reason: GiveUpReason::NotTransient,
            ..
        } => emit!(WARN, "call failed"),
        Event::GaveUp { .. } => emit!(ERROR, "call failed"),
        Event::StreamStalled { .. } => emit!(WARN, "stream went silent and was ended"),
        Event::StreamBroken { .. } => emit!(WARN, "stream broke"),
        Event::FellBack { .. } => emit!(WARN, "first provider failed, the call goes to the second"),
        Event::BreakerOpened { .. } => emit!(WARN, "breaker opened, calls skip the first provider"),
        Event::BreakerClosed { .. } => emit!(INFO, "breaker closed, the first provider is back"),
    }
}

/// The fields that only some events have.
#[derive(Default)]
struct Fields<'a> {
    error_type: Option<Cow<'static, str>>,
    message: Option<&'a dyn fmt::Display>,
    status: Option<u16>,
    delay: Option<Duration>,
    wait: Option<Duration>,
    source: Option<DelaySource>,
    reason: Option<GiveUpReason>,
    idle: Option<Duration>,
}

impl<'a> Fields<'a> {
    fn of(event: &'a Event<'a>) -> Self {
        match event {
            Event::Attempt { .. }
            | Event::Success { .. }
            | Event::BreakerOpened { .. }
            | Event::BreakerClosed { .. } => Self::default(),
            Event::FellBack { error, .. } => Self::of_failure(error),
            Event::Retry {
                error,
                delay,
                source,
                ..
            } => Self {
                delay: Some(*delay),
                source: Some(*source),
                ..Self::of_failure(error)
            },
            Event::Waiting { wait, .. } => Self {
                wait: Some(*wait),
                ..Self::default()
            },
            Event::GaveUp { error, reason, .. } => Self {
                reason: Some(*reason),
                ..Self::of_failure(error)
            },
            Event::StreamStalled { idle, .. } => Self {
                error_type: Some(TIMEOUT),
                idle: Some(*idle),
                ..Self::default()
            },
            Event::StreamBroken { error, .. } => Self {
                error_type: Some(OTHER),
                message: error.as_ref().map(|error| error as &dyn fmt::Display),
                ..Self::default()
            },
        }
    }

    fn of_failure(error: &'a &'a dyn Failure) -> Self {
        Self {
            error_type: Some(error_type(*error)),
            message: Some(error),
            status: error.status(),
            ..Self::default()
        }
    }
}

/// The well-known value of `gen_ai.operation.name`, which must be used if there is
/// one; otherwise the name of the method.
fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::ChatCompletion
        | Operation::ChatCompletionRaw
        | Operation::ChatCompletionStream
        | Operation::ChatCompletionStreamRaw
        | Operation::ChatCompletionStreamPassthrough
        | Operation::AnthropicMessages
        | Operation::AnthropicMessagesRaw
        | Operation::AnthropicMessagesStream
        | Operation::AnthropicMessagesStreamRaw
        | Operation::Complete
        | Operation::CompleteStream => "chat",
        Operation::GeminiGenerateContent
        | Operation::GeminiGenerateContentRaw
        | Operation::GeminiGenerateContentStream
        | Operation::GeminiGenerateContentStreamRaw => "generate_content",
        Operation::Embedding => "embeddings",
        _ => operation.as_str(),
    }
}

const TIMEOUT: Cow<'static, str> = Cow::Borrowed("timeout");
const OTHER: Cow<'static, str> = Cow::Borrowed("_OTHER");

/// The class of an error: one of few values, whatever the text of the error.
fn error_type(error: &dyn Failure) -> Cow<'static, str> {
    match error.status() {
        Some(status) => Cow::Owned(status.to_string()),
        None if error.is_timeout() => TIMEOUT,
        None => OTHER,
    }
}

/// The start of an error's text: a gateway's page would fill the log.
struct Cut<'a>(&'a dyn fmt::Display);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 1024;
        let mut text = String::new();
        write!(text, "{}", self.0)?;
        let mut boundaries = (0..=MOST.min(text.len())).rev();
        let boundary = boundaries.find(|&at| text.is_char_boundary(at));
        let (start, rest) = text.split_at(boundary.unwrap_or_default());
        f.write_str(start)?;
        match rest.len() {
            0 => Ok(()),
            more => write!(f, "… and {more} bytes more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_well_known_name_or_its_own() {
        for &operation in Operation::EVERY {
            let expected = match operation.as_str() {
                "embedding" => "embeddings",
                "image_generation" | "audio_speech" | "audio_transcription" | "models" => {
                    operation.as_str()
                }
                gemini if gemini.starts_with("gemini") => "generate_content",
                _ => "chat",
            };
            assert_eq!(operation_name(operation), expected, "{operation}");
        }
    }
}
