//! What servers say about failures: whether they are transient, and how long to wait.
//!
//! By default the engine waits as long as [`retry_after`] says, in every release.
//! [`is_transient`] is a hook that accepts more statuses than the errors themselves, and
//! rejects failures that waiting does not help:
//!
//! ```
//! # #[cfg(feature = "futures-timer")]
//! # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
//! use crabllm_retry::{Retrying, hints};
//!
//! Retrying::new(provider).retry_if(hints::is_transient)
//! # }
//! ```
//!
//! The errors of releases up to 0.0.19 have no field for the header `retry-after`.
//! A client of your own can keep it with [`retry_after_header`] and [`with_retry_after`].
//!
//! Bodies are untrusted. At most 64 KiB are read, in one pass, without allocations, in
//! linear time.

mod reading;
mod value;

use crate::failure::Failure;
use reading::Reading;
use std::time::Duration;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::time::SystemTime;
use value::Cursor;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use web_time::SystemTime;

/// Whether another attempt may succeed, by the rules of the vendors' own libraries and
/// by what the body says. The first rule that applies decides:
///
/// 1. A method that is not implemented: no.
/// 2. The body says that waiting will not help: no.
///
///    | body | source |
///    | --- | --- |
///    | code or type `insufficient_quota` | [OpenAI's codes], for an account without credit |
///    | code or type `context_length_exceeded` | [OpenAI's codes] |
///    | "Limit N … Requested M" with M > N | OpenAI and Groq: one request above the limit for a minute |
///    | code `1113`, status 429 | [Z.ai's codes]: an account in arrears |
///    | status `RESOURCE_EXHAUSTED` with a quota whose id contains `PerDay` | [Gemini's quotas] |
///    | code or type `usage_limit_reached`; code `1308`, status 429 | ChatGPT's and Z.ai's plans. Not if the failure states a delay: then the rules below decide |
///
/// 3. Status 501 or 505: no.
/// 4. [`Failure::is_transient`], or one of these statuses: yes.
///
///    | status | meaning | retried by the library of |
///    | --- | --- | --- |
///    | 408 | the request took too long to arrive | [OpenAI], [Anthropic] and [Google] |
///    | 409 | a lock was not free in time | [OpenAI] and [Anthropic] |
///    | 424 | a gateway's model failed, and `originalStatusCode` in the body is one of the other statuses | AWS ([Bedrock]) |
///    | 425 | too early ([RFC 8470]) | |
///    | 429 | throttled | all |
///    | 498 | over capacity ([Groq]) | |
///    | 499 | cancelled by the server ([Google's codes]) | |
///    | 500 to 599 | an error of the server or of a gateway before it, such as Cloudflare's 520 to 524 and Anthropic's 529 | [OpenAI] and [Anthropic] |
///
/// 5. Any other failure: no.
///
/// Phrases such as "check your plan and billing details" are ignored: vendors also use
/// them for limits per minute.
///
/// [OpenAI's codes]: https://platform.openai.com/docs/guides/error-codes
/// [Z.ai's codes]: https://docs.z.ai/api-reference/api-code
/// [Gemini's quotas]: https://ai.google.dev/gemini-api/docs/rate-limits
/// [OpenAI]: https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
/// [Anthropic]: https://github.com/anthropics/anthropic-sdk-python/blob/main/src/anthropic/_base_client.py
/// [Google]: https://github.com/googleapis/python-genai/blob/main/google/genai/_api_client.py
/// [Google's codes]: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
/// [Groq]: https://console.groq.com/docs/errors
/// [Bedrock]: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
/// [RFC 8470]: https://www.rfc-editor.org/rfc/rfc8470
pub fn is_transient(failure: &dyn Failure) -> bool {
    if failure.is_not_implemented() {
        return false;
    }
    let reading = Reading::of(failure, now());
    match failure.status() {
        _ if no_wait_helps(failure, &reading) => false,
        Some(501 | 505) => false,
        Some(424) if reading.original_status_passes => true,
        status => status.is_some_and(passes) || failure.is_transient(),
    }
}

/// Whether another provider may succeed: the failure is transient, or the account or the
/// plan is exhausted, or the provider lacks the operation.
#[cfg(feature = "_provider")]
pub(crate) fn another_provider_may_answer(failure: &dyn Failure) -> bool {
    failure.is_not_implemented()
        || is_transient(failure)
        || is_exhausted(failure, &Reading::of(failure, now()))
}

fn passes(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 498 | 499 | 500..=599)
}

/// Whether only something other than time helps, such as money or a smaller request.
fn no_wait_helps(failure: &dyn Failure, reading: &Reading) -> bool {
    reading.is_too_large || is_exhausted(failure, reading)
}

/// Whether the account lacks money, or the quota of a day or of a plan is used up for an
/// unknown time.
fn is_exhausted(failure: &dyn Failure, reading: &Reading) -> bool {
    let states_a_wait = reading.wait.is_some() || failure.retry_after().is_some();
    reading.account_is_exhausted || (reading.plan_is_exhausted && !states_a_wait)
}

/// Whether waiting may help, as far as the body says.
pub(crate) fn waiting_helps(failure: &dyn Failure) -> bool {
    !no_wait_helps(failure, &Reading::of(failure, now()))
}

/// How long the server asked to wait: the longest delay in the body, or
/// [`Failure::retry_after`] if that is longer. `None` if there is neither. By default the
/// engine uses this for transient failures; the hook
/// [`Retrying::retry_after`](crate::retrying::Retrying::retry_after) overrides it.
///
/// It recognises these forms anywhere in the body: in JSON or plain text, in strings within
/// strings, behind a prefix, in an event of a stream, in single quotes.
///
/// | form | examples |
/// | --- | --- |
/// | field in seconds | `retry_after`, `retryAfter`, `Retry-After`, `retry_after_seconds`, `resets_in_seconds`, `estimated_time` |
/// | field in milliseconds | `retry_after_ms`, `retry-after-ms` |
/// | field with a duration | Google's `retryDelay` and `quotaResetDelay`: `"39.123456789s"`, `"2h7m23s"` |
/// | field with a point in time | `resets_at`, `quotaResetTimeStamp`, in a throttled failure `X-RateLimit-Reset`: seconds or milliseconds since 1970, ISO 8601 with a zone, an HTTP date. Dates are also read in the fields above |
/// | sentence, if the status is 429, 498, 503 or 529 | "try again in 1m2.5s", "retry after 26 seconds", "please wait 8 hours 24 minutes", "wait 20 seconds before", "will reset after 2h7m23s" |
///
/// A value must be understood completely. Negative values, unknown units and times in the
/// past are ignored. A delay that is too large counts as [`Duration::MAX`].
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::Retrying;
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
/// use std::time::Duration;
///
/// let body = r#"{"error": {"message": "Please try again in 7.5s."}}"#;
/// let timer = VirtualTimer::new();
/// let throttled = Scripted::new(timer.clone(), [Step::status_with_body(429, body)]);
/// let provider = Retrying::with_timer(throttled, timer.clone());
///
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// futures::executor::block_on(provider.chat_completion(&request))?;
/// assert!(timer.elapsed() >= Duration::from_millis(7500));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn retry_after(failure: &dyn Failure) -> Option<Duration> {
    Reading::of(failure, now()).wait.max(failure.retry_after())
}

/// The delay in a response header: `retry-after` in seconds, also with a fraction, or as
/// an HTTP date, zero if it is past; `retry-after-ms` in milliseconds ([OpenAI's and
/// Azure's]). `None` for other headers and for malformed values.
///
/// ```
/// use crabllm_retry::hints;
/// use std::time::Duration;
///
/// let wait = hints::retry_after_header("Retry-After", "20");
/// assert_eq!(wait, Some(Duration::from_secs(20)));
/// ```
///
/// [OpenAI's and Azure's]: https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
pub fn retry_after_header(name: &str, value: &str) -> Option<Duration> {
    let value = value.trim();
    let number = |unit| {
        let mut cursor = Cursor::new(value, value.len());
        let number = cursor.number()?;
        cursor.peek().is_none().then(|| number.times(unit))
    };
    if name.eq_ignore_ascii_case("retry-after-ms") {
        return number(1_000_000);
    }
    if !name.eq_ignore_ascii_case("retry-after") {
        return None;
    }
    let until = || Some(value::http_date(value)?.saturating_sub(now()));
    number(1_000_000_000).or_else(until)
}

/// Adds the delay of a header to the body of an error, as a first line that
/// [`retry_after`] reads: `retry-after: 20`. For clients of releases up to 0.0.19, whose
/// error has no field for it. A longer delay in the body still counts.
///
/// ```
/// use crabllm_retry::hints;
/// use std::time::Duration;
///
/// let body = hints::with_retry_after("Slow down.".into(), Duration::from_millis(1500));
/// assert_eq!(body, "retry-after: 1.500000000\nSlow down.");
/// ```
pub fn with_retry_after(body: String, wait: Duration) -> String {
    let (seconds, nanos) = (wait.as_secs(), wait.subsec_nanos());
    match nanos {
        0 => format!("retry-after: {seconds}\n{body}"),
        _ => format!("retry-after: {seconds}.{nanos:09}\n{body}"),
    }
}

/// The time since 1970.
fn now() -> Duration {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default()
}

#[cfg(test)]
mod tests;
