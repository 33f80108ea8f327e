//! Bodies and headers of servers, and what is read from them.

use super::*;
use crate::failure::tests::Fake;
use httpdate::fmt_http_date;
use humantime::format_rfc3339_seconds;
use proptest::prelude::*;

const LONGEST_BODY: usize = 64 * 1024;

fn failure(status: u16, body: impl Into<String>) -> Fake {
    Fake {
        status: Some(status),
        body: Some(body.into()),
        ..Fake::default()
    }
}

/// The delay that a throttled failure with this body states.
fn asked(body: impl Into<String>) -> Option<Duration> {
    retry_after(&failure(429, body))
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn millis(milliseconds: u64) -> Option<Duration> {
    Some(Duration::from_millis(milliseconds))
}

fn nanos(nanoseconds: u64) -> Option<Duration> {
    Some(Duration::from_nanos(nanoseconds))
}

/// Asserts that no body states a delay. Bodies on one line are separated by ` | `.
fn assert_no_hints(lines: &[&str]) {
    for body in lines.iter().flat_map(|line| line.split(" | ")) {
        assert_eq!(asked(body), None, "{body}");
    }
}

/// Text as a string of JSON.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

const ENDLESS: Option<Duration> = Some(Duration::MAX);

/// Bodies of OpenAI, Groq, Azure, Google, ChatGPT and Anthropic.
const OPENAI: &str = r#"{
    "error": {
        "message": "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "type": "tokens",
        "param": null,
        "code": "rate_limit_exceeded"
    }
}
"#;
const TOO_LARGE: &str = r#"{"error":{"message":"Request too large for gpt-4 in organization org-x on tokens per min (TPM): Limit 30,000, Requested 61,337. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
const NO_CREDIT: &str = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
const GROQ: &str = r#"{"error":{"message":"Rate limit reached for model `llama3-70b-8192` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit 7000, Used 0, Requested ~12903. Please try again in 1m50.597142857s. Visit https://console.groq.com/docs/rate-limits for more information.","type":"tokens","code":"rate_limit_exceeded"}}"#;
const AZURE: &str = r#"{"error":{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-05-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}"#;
const GEMINI: &str = r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 15\nPlease retry in 58.934310785s.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"15"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"58s"}]}}"#;
const ANTHROPIC: &str = r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed the rate limit for your organization of 20,000 input tokens per minute. Please reduce the prompt length or the maximum tokens requested, or try again later."},"request_id":"req_x"}"#;
const USAGE_LIMIT: &str = r#"{"error":{"type":"usage_limit_reached","message":"The usage limit has been reached","plan_type":"plus"}}"#;

#[test]
fn the_bodies_of_vendors_are_understood() {
    for (body, expected) in [
        (OPENAI, millis(18_642)),
        (TOO_LARGE, None),
        (NO_CREDIT, None),
        (GROQ, nanos(110_597_142_857)),
        (AZURE, secs(26)),
        (GEMINI, nanos(58_934_310_785)),
        (ANTHROPIC, None),
        (USAGE_LIMIT, None),
    ] {
        assert_eq!(asked(body), expected, "{body}");
    }
}

#[test]
fn fields_are_read_by_their_names() {
    for (body, expected) in [
        (r#"{"retry_after": 20}"#, secs(20)),
        (r#"{"retry_after_ms":20000}"#, secs(20)),
        (r#"{"retry_after_ms":2e4}"#, secs(20)),
        (r#"{"retry_after_ms":9e0}"#, millis(9)),
        (r#"{"retry-after-ms":"250"}"#, millis(250)),
        (r#"{"retryAfter":20}"#, secs(20)),
        (r#"{"error":"loading","estimated_time":20.0}"#, secs(20)),
        (r#"{"error":{"resets_in_seconds":13872}}"#, secs(13_872)),
        (r#"{"metadata":{"retry_after_seconds":20}}"#, secs(20)),
        (r#"{"metadata":{"headers":{"Retry-After":"20"}}}"#, secs(20)),
        (
            r#"{"quotaResetDelay":"5.373801628s"}"#,
            nanos(5_373_801_628),
        ),
        (r#"{"details":[{"retryDelay":"2h7m23s"}]}"#, secs(7643)),
        ("HTTP/1.1 429\r\nRetry-After: 20\r\n\r\n", secs(20)),
        ("Retry-After: 20 seconds", secs(20)),
    ] {
        assert_eq!(asked(body), expected, "{body}");
    }
    // Other names, then other marks.
    assert_no_hints(&[
        r#"{"max_retry_after": 3600} | {"x-retry-after": 3600} | {"retry_after_all": 3600}"#,
        r#"{"x.retry_after": 5} | {"max retry_after": 5} | {"$retry_after": 5}"#,
        "{\"\u{e9}retry_after\": 5} | {\"retry after\": 20}",
        r#"{"retry_after": "20' long"} | {"retry_after": "20\" long"} | {"retry_after", 20}"#,
        "retry_after 20",
    ]);
}

#[test]
fn a_field_is_understood_whole_or_not_at_all() {
    for (value, expected) in [
        ("26", secs(26)),
        ("0.25", millis(250)),
        // Rounded up.
        ("0.0000000000000000001", nanos(1)),
        ("0.1000000000000000000000", millis(100)),
        ("1.0000000000000000000000000000000000", secs(1)),
        ("1.0000000000000000000000000000000001", nanos(1_000_000_001)),
        ("0", secs(0)),
        ("1e2", secs(100)),
        ("1E-10", nanos(1)),
        ("2.5e+1", secs(25)),
        ("\"26\"", secs(26)),
        ("\"26s\"", secs(26)),
        ("18446744073709551615", secs(u64::MAX)),
        ("18446744073709551616", ENDLESS),
        ("\"18446744073709551616s\"", ENDLESS),
        ("1e999999999999999999999", ENDLESS),
        ("1e-999999999999999999999", nanos(1)),
        ("0e999999999999999999999", secs(0)),
        ("1,000", secs(1)),
    ] {
        let body = format!(r#"{{"error": {{"retry_after": {value}}}}}"#);
        assert_eq!(asked(&*body), expected, "{body}");
    }
    let numbers = "-5 -0 026 26. .5 0x10 NaN";
    let strings = r#""-5s" "1,000" "1e" "26 "26_lightyears" "soon" """#;
    let others = "true null [5] {}";
    for value in [numbers, strings, others].join(" ").split(' ') {
        let value = value.replace('_', " ");
        assert_no_hints(&[&format!(r#"{{"error": {{"retry_after": {value}}}}}"#)]);
    }
    assert_no_hints(&[
        r#"{"retryDelay": 34} | {"retryDelay": "34"} | {"retryDelay": "34s or so"}"#,
        r#"{"retryDelay": {"seconds": 34}}"#,
    ]);
}

#[test]
fn a_wrapped_field_is_read() {
    let json = r#"{"error":{"code":429,"details":[{"retryDelay":"39.123456789s"}]}}"#;
    let event = format!("event: error\ndata: {json}\n\n");
    let nested = format!(r#"{{"error":{{"message":{}}}}}"#, quoted(json));
    let twice = format!(r#"{{"error":{}}}"#, quoted(&nested));
    let indented = format!("{{\n  \"x\":{}\n}}", quoted(&nested));
    for body in [
        json.to_owned(),
        format!("[{json}, 1]"),
        format!(r#"{{"error":{{"metadata":{{"raw":{}}}}}}}"#, quoted(json)),
        nested,
        twice,
        format!(r#"{{"error":{}}}"#, quoted(&indented)),
        format!("Error from provider(429): {json}"),
        quoted(&event),
        event,
        json.replace('"', "'"),
        quoted(&json.replace('"', "'")),
        json.replace(':', " : "),
    ] {
        assert_eq!(asked(&*body), nanos(39_123_456_789), "{body}");
    }
    assert_eq!(asked(r#""failed\nretry-after: 20\nbye""#), secs(20));
}

#[test]
fn sentences_are_read() {
    for (body, expected) in [
        ("Please try again in 20s.", secs(20)),
        ("PLEASE TRY AGAIN IN 20S", secs(20)),
        ("please try again after 20 seconds", secs(20)),
        ("Please try again in 6m0s", secs(360)),
        ("Please wait 17 seconds before trying again.", secs(17)),
        ("Please wait 8 hours 24 minutes and try again", secs(30_240)),
        ("Please wait for 1 sec", secs(1)),
        ("You must wait 90s before the next call", secs(90)),
        ("Your quota will reset after 2h7m23s.", secs(7643)),
        ("It resets in 1d2h", secs(93_600)),
        ("retry in 0:09:48.", secs(588)),
        ("retry in 0:09:48 or later", secs(588)),
        ("retry in 1 day, 0:00:10.5.", secs(86_411)),
        ("try again in 1 minute and 30 seconds", secs(90)),
        ("try again in 1 hour, 5 minutes", secs(3900)),
        ("try again in 2 weeks, 1 day, and 5 hrs", secs(1_314_000)),
        ("try again in 5 mins", secs(300)),
        ("try again in 250ms", millis(250)),
        ("try again in 7us", nanos(7000)),
        ("try again in 7\u{b5}s", nanos(7000)),
        ("try again in 25s, resets at Wed", secs(25)),
        ("try again in 18446744073709551616s", ENDLESS),
        ("retry after 2 seconds, or try again in 1m", secs(60)),
        (r#"{"error": {"message": "\nRetry in 3s", "#, secs(3)),
        ("\u{1f980}try again in 3s\u{1f980}", secs(3)),
        ("try again in 20s\u{a0}later", secs(20)),
        ("\u{ab}try again in 20 seconds\u{bb}", secs(20)),
        ("try again in 7\u{3bc}s", nanos(7000)),
        (r#""x\fretry in 5s""#, secs(5)),
    ] {
        assert_eq!(asked(body), expected, "{body}");
    }
    assert_no_hints(&[
        // Not these words.
        "await 90s and | wait 90s | wait 20s beforehand | wait 2 hours Andrew",
        "\u{e9}retry in 5s | r\u{e9}try again in 5s",
        // No number or no unit.
        "try again in  | try again in s | try again in 5 | try again in 5. | try again in 1m2",
        "try again in -5s | try again in NaNs | try again in 1,000 seconds",
        "try again in 5 lightyears | try again in 1m and 3 lightyears",
        "try again in 5\u{1f980}s | try again later | retry after a while",
        // A time of day.
        "resets after 10:30:00 PM | resets after 10:30:00am | resets after 10:30:00 p.m.",
        "retry after 10:30:00 UTC | resets after 10:30:00 EST | resets after 10:30:00\u{202f}PM",
        "retry after 10:30:00+02:00 | retry after 10:30:00-05:00",
        "resets in 10:61:00 | retry in 0:09:48:10",
    ]);
}

#[test]
fn sentences_are_read_for_four_statuses_only() {
    let read = (0..1000)
        .filter(|&status| retry_after(&failure(status, "please wait 2 hours and stir")).is_some());
    assert_eq!(read.collect::<Vec<_>>(), [429, 498, 503, 529]);
}

#[test]
fn a_point_in_time_is_the_delay_until_then() {
    const HOUR: Duration = Duration::from_secs(3600);
    let utc = |time| format_rfc3339_seconds(time).to_string();
    for exact in [Duration::from_secs(30), 12 * HOUR] {
        let time = SystemTime::now() + exact;
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let millis = since_1970.as_millis();
        let http = fmt_http_date(time);
        let east = quoted(&utc(time + 2 * HOUR).replace('Z', "+02:00"));
        let west = utc(time - 11 * HOUR / 2).replace('Z', ".5-0530");
        let mut bodies = vec![
            format!(r#"{{"retryAfter":{east}}}"#),
            format!(r#"{{"retry_after_ms":{east}}}"#),
            format!(r#"{{"retryDelay":{east}}}"#),
            format!("retry-after: {http}\r\nx: y"),
            format!("(retry-after: {http})"),
        ];
        for value in [
            millis.to_string(),
            format!("\"{}\"", millis / 1000),
            quoted(&utc(time)),
            quoted(&utc(time).replace('Z', "+00")),
            quoted(&utc(time).to_lowercase()),
            east,
            quoted(&west.replace('T', " ")),
            quoted(&http),
        ] {
            for field in ["resets_at", "quotaResetTimeStamp", "x-ratelimit-reset"] {
                bodies.push(format!(r#"{{"{field}":{value}}}"#));
            }
        }
        for body in bodies {
            let off = asked(&*body).unwrap_or_default().abs_diff(exact);
            assert!(off < Duration::from_secs(2), "{body} is off by {off:?}");
        }
        // Gateways copy it to other failures.
        let reset = format!(r#"{{"x-ratelimit-reset": {millis}}}"#);
        assert_eq!(retry_after(&failure(502, reset)), None);
    }
    for huge in ["18446744073709551616", "1e999"] {
        let asked = asked(format!(r#"{{"resets_at":{huge}}}"#));
        assert!(asked > secs(u64::MAX / 2000), "{huge}");
    }
}

#[test]
fn the_past_and_half_a_date_are_no_hints() {
    let dates = "2015-10-21T07:27:59Z | 2099-10-21T07:28:30 | 2099-10-21T07:28:30.Z | \
        2099-10-21T07:28:30ZZ | 2099-10-21T07:28:30Z or so | 2099-10-21T07:28:30+99:99 | \
        2099-10-21T07:28:30+0:200 | 2099-10-21T07:28:30+01:000 | 2099-10-21T07:28:30+1:00 | 2099-13-21T07:28:30Z | \
        tomorrow | 30s";
    for date in dates.split(" | ") {
        assert_no_hints(&[&format!(r#"{{"resets_at":"{date}"}}"#)]);
    }
    assert_no_hints(&[
        r#"{"resets_at":1445412480} | {"resets_at":1445412479999} | {"resets_at":30}"#,
    ]);
}

#[test]
fn the_longest_of_several_hints_counts() {
    for (body, seconds) in [
        (r#"{"retry_after": 3, "error": {"retry_after": 4}}"#, 4),
        (r#"{"retry_after": 5, "error": {"retry_after": -4}}"#, 5),
        (r#"{"retry_after": 3, "message": "try again in 2s"}"#, 3),
        ("try again in 5s, try again in s, try again in 4s", 5),
    ] {
        assert_eq!(asked(body), secs(seconds), "{body}");
    }
    let answer = |seconds| Fake {
        retry_after: secs(seconds),
        ..failure(429, "Please try again in 5s")
    };
    assert_eq!(retry_after(&answer(4)), secs(5));
    assert_eq!(retry_after(&answer(6)), secs(6));
    assert_eq!(retry_after(&Fake::default()), None);
}

#[test]
fn a_hint_that_touches_the_64_kib_limit_is_ignored() {
    for hint in ["try again in 5s", r#"{"retry_after": 5}"#] {
        let padded = |length: usize| " ".repeat(length - hint.len()) + hint;
        assert_eq!(asked(padded(LONGEST_BODY)), secs(5));
        assert_eq!(asked(padded(LONGEST_BODY + 1)), None);
        assert_eq!(asked(padded(1000) + &" ".repeat(LONGEST_BODY)), secs(5));
    }
    // " and 30" may follow.
    for (blanks, expected) in [(6, None), (7, secs(5))] {
        let end = "try again in 5s".to_owned() + &" ".repeat(blanks);
        let blanks = " ".repeat(LONGEST_BODY - end.len());
        assert_eq!(asked(blanks + &end + "x"), expected);
    }
    for (read, beyond) in [
        ("try again in 5s", "0m"),
        ("try again in 1 minute an", "d 30 seconds"),
        ("resets after 10:30:00 P", "M"),
        // In the middle of a character.
        ("try again in 3s  ", "\u{1f980}"),
    ] {
        let blanks = " ".repeat(LONGEST_BODY - read.len());
        assert_eq!(asked(blanks + read + beyond), None, "{read}");
    }
}

#[test]
fn statuses_are_transient_by_a_list() {
    let transient = (0..1000).filter(|&status| is_transient(&failure(status, "")));
    let server = (500..600).filter(|status| ![501, 505].contains(status));
    let expected = [408, 409, 425, 429, 498, 499].into_iter().chain(server);
    assert_eq!(transient.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn a_body_may_overrule_the_status() {
    let per_day = GEMINI.replace("PerMinute", "PerDay");
    let code = |code: &str| format!(r#"{{"error":{{"code":{code},"message":"x"}}}}"#);
    let too_long = code("\"context_length_exceeded\"");
    let original = |status: &str| format!(r#"{{"originalStatusCode":{status}}}"#);
    let with_wait =
        |body: &str| body.replace("{\"error\":{", "{\"error\":{\"resets_in_seconds\":31,");
    for (status, body, expected) in [
        (429, OPENAI, true),
        (429, GROQ, true),
        (429, GEMINI, true),
        (429, ANTHROPIC, true),
        (520, "<html>error code: 520</html>", true),
        (499, r#"{"error":{"status":"CANCELLED"}}"#, true),
        (429, TOO_LARGE, false),
        (429, &TOO_LARGE.replace("61,337", "~61337"), true),
        (429, &TOO_LARGE.replace("61,337", "3,001"), true),
        (429, &TOO_LARGE.replace("61,337", "30,000"), true),
        (429, "Limit: 60 requests. You requested 4096 tokens.", true),
        (429, "Limit 30k, Requested 31", true),
        (429, "Limit 1.5M, Requested 2000", true),
        (429, "Limit 30. Requested 31.", false),
        (429, NO_CREDIT, false),
        (503, NO_CREDIT, false),
        (500, &too_long, false),
        (500, &quoted(&too_long), false),
        (500, r#"my code: "context_length_exceeded in ch. 1""#, true),
        (429, r#"{"type":1113}"#, true),
        (429, &code("\"1113\""), false),
        (429, &code("1113"), false),
        (429, &code("11131"), true),
        (503, &code("1113"), true),
        (429, &code("1308"), false),
        (429, &with_wait(&code("1308")), true),
        (503, &code("1308"), true),
        (429, USAGE_LIMIT, false),
        (500, USAGE_LIMIT, false),
        (429, &with_wait(USAGE_LIMIT), true),
        (400, &with_wait(USAGE_LIMIT), false),
        (429, &per_day, false),
        (429, &per_day.replace("RESOURCE_", ""), true),
        (424, &original("503"), true),
        (424, &original("400"), false),
        (424, &original("-503"), false),
        (424, &original("\"5x0y3\""), false),
        (424, &(original("503") + &original("400")), true),
        (424, "", false),
        (400, &original("503"), false),
    ] {
        let transient = is_transient(&failure(status, body));
        assert_eq!(transient, expected, "{status} {body}");
    }
}

#[test]
fn the_failures_own_properties_count() {
    let transient = |fake| Fake {
        transient: true,
        ..fake
    };
    let unimplemented = Fake {
        unimplemented: true,
        ..failure(503, "")
    };
    let with_field = Fake {
        retry_after: secs(31),
        ..failure(429, USAGE_LIMIT)
    };
    for (fake, expected) in [
        (transient(Fake::default()), true),
        (transient(failure(400, "")), true),
        (transient(failure(501, "")), false),
        (transient(failure(400, NO_CREDIT)), false),
        (transient(unimplemented), false),
        (with_field, true),
    ] {
        assert_eq!(is_transient(&fake), expected, "{fake:?}");
    }
}

#[test]
fn headers_are_read() {
    for (name, value, expected) in [
        ("retry-after", "20", secs(20)),
        ("Retry-After", " 0.25 ", millis(250)),
        ("RETRY-AFTER-MS", "250", millis(250)),
        ("retry-after-ms", "0.5", nanos(500_000)),
        ("retry-after", "18446744073709551616", ENDLESS),
        ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", secs(0)),
        ("retry-after", "-5", None),
        ("retry-after", "20s", None),
        ("retry-after", "2099-10-21T07:28:30Z", None),
        ("retry-after", "", None),
        ("retry-after-ms", "Wed, 21 Oct 2099 07:28:00 GMT", None),
        ("x-ratelimit-reset", "20", None),
    ] {
        assert_eq!(retry_after_header(name, value), expected, "{name}: {value}");
    }
    let wait = retry_after_header("retry-after", "Wed, 21 Oct 2099 07:28:00 GMT");
    assert!(wait > secs(3600 * 24 * 365));
}

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(body in any::<String>(), wait in any::<String>()) {
        for (phrase, end) in [("", ""), ("try again in ", ""), ("resets_at: \"", "\""), ("retry_after: ", "")] {
            let failure = failure(429, format!("{body}{phrase}{wait}{end}"));
            retry_after(&failure);
            is_transient(&failure);
        }
        retry_after_header("retry-after", &wait);
    }

    #[test]
    fn a_wait_that_is_put_into_a_body_is_read_back(wait in any::<Duration>(), status in 100..600_u16) {
        let body = with_retry_after("any\nbody".into(), wait);
        prop_assert_eq!(retry_after(&failure(status, &*body)), Some(wait));
        let longer = with_retry_after(r#"{"retry_after": 1e99}"#.into(), wait);
        prop_assert_eq!(retry_after(&failure(status, longer)), ENDLESS);
    }
}

#[test]
fn whole_seconds_are_put_into_a_body_as_they_are_written() {
    let body = with_retry_after("Slow down.".into(), Duration::from_secs(20));
    assert_eq!(body, "retry-after: 20\nSlow down.");
}
