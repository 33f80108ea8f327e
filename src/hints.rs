//! The words of servers about failures: which are transient, and how long to wait.
//!
//! Vendors' own libraries retry some statuses that `Error::is_transient` leaves out,
//! and some servers state how long to wait in the body of their error only. The two
//! functions here are callbacks for a [`Retrying`](crate::retrying::Retrying) that know both.
//! They are off by default:
//!
//! ```
//! # #[cfg(feature = "futures-timer")]
//! # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
//! use crabllm_retry::{Retrying, hints};
//!
//! Retrying::new(provider)
//!     .retry_if(hints::is_transient)
//!     .retry_after(hints::retry_after)
//! # }
//! ```

mod duration;

use crate::failure::Failure;
use serde_json::Value;
use std::time::Duration;

/// The longest body that is read, in bytes: a limit on the time and memory that a
/// hostile one takes.
const LONGEST_BODY: usize = 64 * 1024;

/// The words before a duration, in lower case.
const PHRASES: [&str; 3] = [
    // OpenAI, Groq, and Azure's gateway.
    "try again in ",
    // Azure OpenAI.
    "retry after ",
    // Gemini.
    "retry in ",
];

/// Whether another attempt may succeed, by the rules of the vendors' own libraries.
///
/// These are the failures that [`Failure::is_transient`] calls transient, and these
/// statuses:
///
/// | status | meaning | retried by the library of |
/// | --- | --- | --- |
/// | 408 | the request took too long to arrive | [OpenAI], [Anthropic] and [Google] |
/// | 409 | a lock was not free in time | [OpenAI] and [Anthropic] |
/// | 529 | the server is [overloaded], for all its users | [Anthropic] |
///
/// OpenAI's and Anthropic's libraries retry every status from 500 on. Of those this
/// adds 529 only.
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::{Retrying, hints};
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
///
/// let timer = VirtualTimer::new();
/// let overloaded = Scripted::new(timer.clone(), [Step::status(529), Step::status(408)]);
/// let provider = Retrying::with_timer(overloaded, timer).retry_if(hints::is_transient);
///
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// futures::executor::block_on(provider.chat_completion(&request))?;
/// assert_eq!(provider.get_ref().attempts().len(), 3);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [OpenAI]: https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py
/// [Anthropic]: https://github.com/anthropics/anthropic-sdk-python/blob/main/src/anthropic/_base_client.py
/// [Google]: https://github.com/googleapis/python-genai/blob/main/google/genai/_api_client.py
/// [overloaded]: https://github.com/anthropics/anthropic-sdk-python/blob/main/src/anthropic/_exceptions.py
pub fn is_transient(failure: &dyn Failure) -> bool {
    failure.is_transient() || matches!(failure.status(), Some(408 | 409 | 529))
}

/// How long the server asked to wait, in the body of its error.
///
/// It reads:
///
/// * Google's [`RetryInfo`]: `retryDelay` in `error.details`, as in `"34.07s"`;
/// * `retry_after` in seconds, in `error` or beside it, a number or a string;
/// * text such as OpenAI's "Please try again in 1m2.5s", Azure's "Please retry after
///   26 seconds" and Gemini's "Please retry in 34.07s", anywhere in the body, whether
///   that is JSON or not.
///
/// The longest of several hints counts, and so does [`Failure::retry_after`]: a
/// retry is never earlier than any of them. `max_retry_after` still limits the wait.
///
/// The body is not trusted. One of more than 64 KiB gives no hint, and neither does
/// a value that is negative, too large or otherwise unreadable.
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::{Retrying, hints};
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
/// # use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
/// use std::time::Duration;
///
/// let body = r#"{"error": {"message": "Please try again in 7.5s."}}"#;
/// let timer = VirtualTimer::new();
/// let throttled = Scripted::new(timer.clone(), [Step::status_with_body(429, body)]);
/// let provider = Retrying::with_timer(throttled, timer.clone()).retry_after(hints::retry_after);
///
/// # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
/// futures::executor::block_on(provider.chat_completion(&request))?;
/// assert_eq!(timer.elapsed(), Duration::from_millis(7500));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`RetryInfo`]: https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
pub fn retry_after(failure: &dyn Failure) -> Option<Duration> {
    let body = failure.body().filter(|body| body.len() <= LONGEST_BODY);
    let asked = body.and_then(|body| in_json(body).max(in_text(body)));
    asked.max(failure.retry_after())
}

fn in_json(body: &str) -> Option<Duration> {
    match serde_json::from_str(body).ok()? {
        // Gemini's streams give an array of answers.
        Value::Array(answers) => answers.iter().filter_map(in_answer).max(),
        answer => in_answer(&answer),
    }
}

fn in_answer(answer: &Value) -> Option<Duration> {
    let error = &answer["error"];
    let details = error["details"].as_array().into_iter().flatten();
    details
        .filter_map(|detail| duration::whole(detail["retryDelay"].as_str()?))
        .chain(seconds(&answer["retry_after"]))
        .chain(seconds(&error["retry_after"]))
        .max()
}

fn seconds(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => duration::seconds(text),
        // A float prints its digits, never an exponent.
        Value::Number(number) => match number.as_u64() {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => duration::seconds(&number.as_f64()?.to_string()),
        },
        _ => None,
    }
}

fn in_text(body: &str) -> Option<Duration> {
    let body = body.to_ascii_lowercase();
    PHRASES
        .into_iter()
        .flat_map(|phrase| body.split(phrase).skip(1))
        .filter_map(duration::at_start)
        .map(|(duration, _)| duration)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::tests::Fake;
    use proptest::prelude::*;

    fn asked(body: impl Into<String>) -> Option<Duration> {
        retry_after(&Fake {
            body: Some(body.into()),
            ..Fake::default()
        })
    }

    fn millis(milliseconds: u64) -> Option<Duration> {
        Some(Duration::from_millis(milliseconds))
    }

    #[test]
    fn three_statuses_more_are_transient() {
        let transient = |transient, status| {
            is_transient(&Fake {
                transient,
                status,
                ..Fake::default()
            })
        };
        let added = (0..1000).filter(|status| transient(false, Some(*status)));
        assert_eq!(added.collect::<Vec<_>>(), [408, 409, 529]);
        assert!(!transient(false, None));
        assert!(transient(true, None) && transient(true, Some(400)));
    }

    #[test]
    fn the_bodies_of_vendors_are_understood() {
        let openai = |wait: &str| {
            r#"{
    "error": {
        "message": "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in WAIT. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "type": "tokens",
        "param": null,
        "code": "rate_limit_exceeded"
    }
}
"#.replace("WAIT", wait)
        };
        let groq = r#"{"error":{"message":"Rate limit reached for model `llama3-70b-8192` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit 7000, Used 0, Requested ~12903. Please try again in 1m50.597142857s. Visit https://console.groq.com/docs/rate-limits for more information.","type":"tokens","code":"rate_limit_exceeded"}}"#;
        let azure = r#"{"error":{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-05-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}"#;
        let gateway = r#"{"error":{"code":"429","message": "Rate limit is exceeded. Try again in 2 seconds."}}"#;
        let anthropic = r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed the rate limit for your organization of 20,000 input tokens per minute. Please reduce the prompt length or the maximum tokens requested, or try again later."},"request_id":"req_x"}"#;
        let overloaded =
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        for (body, expected) in [
            (&*openai("18.642s"), millis(18_642)),
            (&*openai("174ms"), millis(174)),
            (&*openai("20s"), millis(20_000)),
            (&*openai("7m31.2s"), millis(451_200)),
            (&*openai("1h0m0.5s"), millis(3_600_500)),
            (groq, Some(Duration::new(110, 597_142_857))),
            (azure, millis(26_000)),
            (gateway, millis(2000)),
            (anthropic, None),
            (overloaded, None),
        ] {
            assert_eq!(asked(body), expected, "{body}");
        }
    }

    /// Gemini's answer with this delay and this end of its message.
    fn gemini(delay: &str, message: &str) -> String {
        r#"{
  "error": {
    "code": 429,
    "message": "You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 15\nMESSAGE",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "15"}]
      },
      {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": DELAY
      }
    ]
  }
}"#
        .replace("DELAY", delay)
        .replace("MESSAGE", message)
    }

    #[test]
    fn googles_retry_info_is_read() {
        for (delay, expected) in [
            (r#""34.07s""#, millis(34_070)),
            (r#""34s""#, millis(34_000)),
            (r#""0.000000001s""#, Some(Duration::from_nanos(1))),
            (r#""0s""#, millis(0)),
            (r#""-5s""#, None),
            (r#""34""#, None),
            (r#""34s or so""#, None),
            (r#""""#, None),
            ("34", None),
            ("null", None),
            (r#"{"seconds": 34}"#, None),
        ] {
            assert_eq!(asked(gemini(delay, "")), expected, "{delay}");
        }
    }

    #[test]
    fn an_array_of_answers_is_read_like_one() {
        let (short, long) = (gemini(r#""3s""#, ""), gemini(r#""4s""#, ""));
        assert_eq!(asked(format!("[{short}]")), millis(3000));
        assert_eq!(asked(format!("[{short}, {long}, 1]")), millis(4000));
        assert_eq!(asked(r#"[{"retry_after": 5}]"#), millis(5000));
        assert_eq!(asked("[]"), None);
    }

    #[test]
    fn retry_after_is_read_beside_the_error_and_in_it() {
        for (value, expected) in [
            ("26", millis(26_000)),
            ("0.25", millis(250)),
            ("34.07", millis(34_070)),
            ("\"26\"", millis(26_000)),
            ("\"0.25\"", millis(250)),
            ("0", millis(0)),
            ("1e2", millis(100_000)),
            ("1e-10", Some(Duration::from_nanos(1))),
            ("18446744073709551615", Some(Duration::from_secs(u64::MAX))),
            ("18446744073709551616", None),
            ("1e300", None),
            ("1e999", None),
            ("-5", None),
            ("-0.5", None),
            ("-1e300", None),
            ("NaN", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
            ("\"-5\"", None),
            ("\"1e3\"", None),
            ("\"soon\"", None),
            ("\"\"", None),
            ("true", None),
            ("null", None),
            ("[5]", None),
            ("{}", None),
        ] {
            for body in [
                format!(r#"{{"retry_after": {value}}}"#),
                format!(r#"{{"error": {{"code": 429, "retry_after": {value}}}}}"#),
                format!(r#"{{"error": "slow down", "retry_after": {value}}}"#),
            ] {
                assert_eq!(asked(&*body), expected, "{body}");
            }
        }
    }

    #[test]
    fn text_is_read_without_json_too() {
        for (body, expected) in [
            ("Please try again in 20s.", millis(20_000)),
            ("PLEASE TRY AGAIN IN 20S", millis(20_000)),
            (
                "Rate limit is exceeded. Try again in 30 seconds.",
                millis(30_000),
            ),
            ("Please retry after 1 second.", millis(1000)),
            ("Please retry after 1 minute 5 seconds", millis(65_000)),
            ("Please try again in 6ms", millis(6)),
            (
                "Please try again in 500\u{b5}s",
                Some(Duration::from_micros(500)),
            ),
            (
                r#"429: {"error": {"message": "try again in 1m2.5s"}} (attempt 1)"#,
                millis(62_500),
            ),
            (r#"{"error": {"message": "try again in 3s", "#, millis(3000)),
            ("\u{1f980}try again in 3s\u{1f980}", millis(3000)),
        ] {
            assert_eq!(asked(body), expected, "{body}");
        }
    }

    #[test]
    fn the_longest_of_several_hints_counts() {
        let both = gemini(r#""58s""#, "Please retry in 58.934310785s.");
        for (body, expected) in [
            (&*both, Some(Duration::new(58, 934_310_785))),
            (
                r#"{"retry_after": 3, "error": {"retry_after": 4}}"#,
                millis(4000),
            ),
            (
                r#"{"retry_after": 5, "error": {"retry_after": -4}}"#,
                millis(5000),
            ),
            (
                r#"{"retry_after": 3, "message": "try again in 2s"}"#,
                millis(3000),
            ),
            ("retry after 2 seconds, or try again in 1m", millis(60_000)),
            (
                "try again in 5s, try again in s, try again in 4s",
                millis(5000),
            ),
        ] {
            assert_eq!(asked(body), expected, "{body}");
        }
    }

    #[test]
    fn what_the_error_says_without_its_body_counts_too() {
        let answer = |body: &str, seconds| Fake {
            body: Some(body.into()),
            retry_after: Some(Duration::from_secs(seconds)),
            ..Fake::default()
        };
        let body = "Please try again in 5s";
        assert_eq!(retry_after(&answer(body, 4)), millis(5000));
        assert_eq!(retry_after(&answer(body, 6)), millis(6000));
        assert_eq!(retry_after(&answer("", 6)), millis(6000));
        assert_eq!(retry_after(&Fake::default()), None);
    }

    #[test]
    fn broken_hints_are_none() {
        for body in [
            "",
            "429",
            "null",
            "{",
            "try again in ",
            "try again in s",
            "try again in -5s",
            "try again in NaNs",
            "try again in infs",
            "try again in 1e9s",
            "try again in 5",
            "try again in 5 lightyears",
            "try again in 1m2",
            "try again in\u{1f980}5s",
            "try again in 5\u{1f980}s",
            "try again in 18446744073709551616s",
            "try again later",
            "retry after a while",
            r#"{"error": [], "details": [{"retryDelay": "5s"}]}"#,
            r#"{"error": {"details": {"retryDelay": "5s"}}}"#,
            r#"{"error": {"details": ["5s", null, 5, []]}}"#,
            r#"[[{"retry_after": 5}]]"#,
            r#"{"retry_after": 5} trailing"#,
        ] {
            assert_eq!(asked(body), None, "{body}");
        }
    }

    #[test]
    fn a_body_is_read_up_to_its_longest_and_no_further() {
        let hint = "try again in 5s";
        let padded = |length: usize| " ".repeat(length - hint.len()) + hint;
        assert_eq!(asked(padded(LONGEST_BODY)), millis(5000));
        assert_eq!(asked(padded(LONGEST_BODY + 1)), None);
    }

    #[test]
    fn hostile_bodies_give_no_hint() {
        let digits = |count| "9".repeat(count);
        for body in [
            digits(10_000_000),
            format!("try again in {}s", digits(10_000_000)),
            format!("try again in {}s", digits(60_000)),
            format!(r#"{{"retry_after": {}}}"#, digits(60_000)),
            format!(r#"{{"retry_after": "{}"}}"#, digits(60_000)),
            gemini(&format!("\"{}s\"", digits(60_000)), ""),
            "[".repeat(LONGEST_BODY),
            "{\"error\":".repeat(LONGEST_BODY / 10),
            "[".repeat(1000) + &"]".repeat(1000),
            "try again in ".repeat(LONGEST_BODY / 13),
            format!("try again in {}", "s".repeat(60_000)),
            "\u{1f980}".repeat(LONGEST_BODY / 4),
        ] {
            assert_eq!(asked(&*body), None, "{:.40}", body);
        }
    }

    #[test]
    fn depth_takes_nothing_from_the_text() {
        let nested = "[".repeat(10_000) + "\"try again in 5s\"" + &"]".repeat(10_000);
        assert_eq!(asked(nested), millis(5000));
        let zeros = format!("try again in {}5s", "0".repeat(60_000));
        assert_eq!(asked(zeros), millis(5000));
        let parts = format!("try again in {}", "1s".repeat(30_000));
        assert_eq!(asked(parts), millis(30_000_000));
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in any::<String>(), wait in any::<String>()) {
            asked(&*body);
            asked(gemini(&wait, &body));
            for phrase in PHRASES {
                asked(format!("{body}{phrase}{wait}"));
            }
        }

        #[test]
        fn a_number_of_seconds_is_read_back(millis in 0..100_000_000u64) {
            let expected = Some(Duration::from_millis(millis));
            let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
            let number = format!(r#"{{"retry_after": {seconds}}}"#);
            prop_assert_eq!(asked(number), expected);
            let string = format!(r#"{{"retry_after": "{seconds}"}}"#);
            prop_assert_eq!(asked(string), expected);
            let info = gemini(&format!("\"{seconds}s\""), "");
            prop_assert_eq!(asked(info), expected);
        }
    }
}
