//! Policies in configuration files.

#![cfg(feature = "serde")]

use crabllm_retry::{Backoff, Jitter, Operation, Operations, Policy};
use proptest::{collection::vec, prelude::*, sample::select};
use std::time::Duration;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_empty_configuration_is_the_default() {
    assert_eq!(toml::from_str::<Policy>("").unwrap(), Policy::default());
    assert_eq!(
        serde_json::from_str::<Policy>("{}").unwrap(),
        Policy::default()
    );
}

#[test]
fn every_key_sets_its_field() {
    let written = r#"
        max_retries = 5
        timeout = "1m 30s"
        deadline = 300
        max_retry_after = 2.5
        stream_idle = "0s"
        retry = ["chat", "embedding"]

        [backoff]
        initial = "250ms"
        max = "8s"
        jitter = "full"

        [throttle_backoff]
        initial = "1s"
    "#;
    let expected = Policy::default()
        .max_retries(5)
        .timeout(secs(90))
        .deadline(secs(300))
        .max_retry_after(Duration::from_millis(2500))
        .stream_idle(Duration::ZERO)
        .retry(Operations::CHAT | Operations::EMBEDDING)
        .backoff(Backoff::exponential(Duration::from_millis(250), secs(8)).jitter(Jitter::Full))
        .throttle_backoff(Backoff::exponential(secs(1), secs(20)));
    assert_eq!(toml::from_str::<Policy>(written).unwrap(), expected);

    let written = r#"{
        "max_retries": 5, "timeout": "90s", "deadline": "5m", "max_retry_after": "2s 500ms",
        "stream_idle": 0, "retry": ["embedding", "chat"],
        "backoff": {"initial": 0.25, "max": 8, "jitter": "full"},
        "throttle_backoff": {"initial": 1}
    }"#;
    assert_eq!(serde_json::from_str::<Policy>(written).unwrap(), expected);
}

#[test]
fn operations_are_named_one_by_one_or_by_the_set() {
    for (written, expected) in [
        (r#""all""#, Operations::ALL),
        (r#""none""#, Operations::NONE),
        (r#""streams""#, Operations::STREAMS),
        (r#""models""#, Operations::MODELS),
        ("[]", Operations::NONE),
        (
            r#"["chat", "chat_completion", "audio_speech"]"#,
            Operations::CHAT | Operations::AUDIO_SPEECH,
        ),
    ] {
        let read: Operations = serde_json::from_str(written).unwrap();
        assert_eq!(read, expected, "{written}");
    }
}

#[test]
fn operations_are_printed_in_as_few_names_as_there_are() {
    for (set, expected) in [
        (Operations::ALL, r#"["all"]"#),
        (
            Operations::CHAT | Operations::STREAMS,
            r#"["chat","streams"]"#,
        ),
        (
            Operations::STREAMS | Operations::MODELS,
            r#"["streams","models"]"#,
        ),
        (Operations::NONE, "[]"),
    ] {
        assert_eq!(serde_json::to_string(&set).unwrap(), expected);
    }
}

#[test]
fn what_is_printed_is_what_people_write() {
    let policy = Policy::default().timeout(secs(90)).retry(
        Operations::CHAT
            | Operations::MODELS
            | Operations::try_from(Operation::CompleteStream).unwrap(),
    );
    assert_eq!(
        toml::to_string(&policy).unwrap(),
        r#"max_retries = 2
timeout = "1m 30s"
deadline = "0s"
max_retry_after = "1m"
stream_idle = "1m 30s"
retry = ["chat", "complete_stream", "models"]

[backoff]
initial = "100ms"
max = "20s"
jitter = "equal"
"#
    );
}

#[test]
fn nonsense_is_refused_with_the_name_of_its_key() {
    for (key, written) in [
        ("max_retries", r#"{"max_retries": -1}"#),
        ("max_retries", r#"{"max_retries": 4294967296}"#),
        ("max_retries", r#"{"max_retries": "two"}"#),
        ("timeout", r#"{"timeout": "soon"}"#),
        ("timeout", r#"{"timeout": -0.5}"#),
        ("timeout", r#"{"timeout": 1e300}"#),
        ("timeout", r#"{"timeout": null}"#),
        ("timeout", r#"{"timeout": "5 s", "timeout": "6 s"}"#),
        ("deadline", r#"{"deadline": "-5s"}"#),
        ("deadline", r#"{"deadline": ""}"#),
        ("deadline", r#"{"deadline": "99999999999999999999s"}"#),
        ("stream_idle", r#"{"stream_idle": true}"#),
        ("max_retry_after", r#"{"max_retry_after": {}}"#),
        ("retry", r#"{"retry": "everything"}"#),
        ("retry", r#"{"retry": ["chat", 7]}"#),
        (
            "retry",
            r#"{"retry": ["chat_completion_stream_passthrough"]}"#,
        ),
        ("backoff: jitter", r#"{"backoff": {"jitter": "some"}}"#),
        ("backoff: initial", r#"{"backoff": {"initial": "x"}}"#),
        (
            "throttle_backoff: max",
            r#"{"throttle_backoff": {"max": -3}}"#,
        ),
    ] {
        let error = serde_json::from_str::<Policy>(written).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("{key}: ")), "{message}");
        assert!(!message.contains('\n'), "{message}");
        assert_eq!(message.matches(" at line").count(), 1, "{message}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_what_was_expected() {
    for (written, expected) in [
        ("5", "a table of max_retries, timeout, "),
        (r#"{"backoff": 5}"#, "a table of initial, max, jitter"),
        (r#"{"timeout": true}"#, "a duration such as \"30s\""),
        (
            r#"{"retry": 5}"#,
            "`chat`, `streams`, `all`, `none`, the name of a method",
        ),
    ] {
        let message = serde_json::from_str::<Policy>(written)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(&format!("expected {expected}")),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_those_that_are_known() {
    for (key, written) in [
        ("retries", "retries = 3"),
        ("initail", "[backoff]\ninitail = 1"),
    ] {
        let error = toml::from_str::<Policy>(written).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
        assert!(message.contains("expected one of"), "{message}");
    }
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..100_000_u64).prop_map(Duration::from_millis),
        any::<u64>().prop_map(Duration::from_nanos),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn backoff() -> impl Strategy<Value = Backoff> {
    let jitter = select(vec![Jitter::Equal, Jitter::Full, Jitter::None]);
    (duration(), duration(), jitter)
        .prop_map(|(initial, max, jitter)| Backoff::exponential(initial, max).jitter(jitter))
}

fn operations() -> impl Strategy<Value = Operations> {
    let sets = [
        Operations::CHAT,
        Operations::STREAMS,
        Operations::EMBEDDING,
        Operations::MODELS,
        Operations::ALL,
        Operations::try_from(Operation::Complete).unwrap(),
        Operations::try_from(Operation::ChatCompletionStreamRaw).unwrap(),
    ];
    vec(select(sets.to_vec()), 0..4).prop_map(|sets| {
        sets.into_iter()
            .fold(Operations::NONE, |all, set| all | set)
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let durations = [(); 4].map(|()| duration());
    let backoffs = (backoff(), proptest::option::of(backoff()));
    (any::<u32>(), durations, backoffs, operations()).prop_map(
        |(retries, [timeout, deadline, longest, idle], (backoff, throttled), retry)| {
            let policy = Policy::default()
                .max_retries(retries)
                .timeout(timeout)
                .deadline(deadline)
                .max_retry_after(longest)
                .stream_idle(idle)
                .backoff(backoff)
                .retry(retry);
            match throttled {
                Some(throttled) => policy.throttle_backoff(throttled),
                None => policy,
            }
        },
    )
}

/// A configuration that somebody may have typed, right or wrong.
fn typed() -> impl Strategy<Value = String> {
    let key = select(vec![
        "max_retries",
        "timeout",
        "deadline",
        "max_retry_after",
        "stream_idle",
        "retry",
        "backoff",
        "throttle_backoff",
        "initial",
        "jitter",
        "",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "\"[0-9]{0,3}(\\.[0-9])?(ns|us|ms|s|m|h|days|years| )?( [0-9]{1,2}s)?\"",
        select(vec![
            "\"chat\"",
            "[\"all\"]",
            "{}",
            "{\"max\": \"3s\"}",
            "null",
            "\"full\"",
            "[[]]"
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    vec((key, value), 0..4).prop_map(|pairs| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("\"{key}\": {value}"))
            .collect();
        format!("{{{}}}", pairs.join(", "))
    })
}

// `PROPTEST_CASES=1000000 cargo test --release --test config` tries a million.
proptest! {
    #[test]
    fn every_policy_is_read_back_as_it_was_written(policy in policy()) {
        let written = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Policy>(&written).unwrap(), &policy);
        let written = toml::to_string(&policy).unwrap();
        prop_assert_eq!(&toml::from_str::<Policy>(&written).unwrap(), &policy);
    }

    #[test]
    fn whatever_is_read_is_read_back_as_it_was_understood(text in typed()) {
        if let Ok(policy) = serde_json::from_str::<Policy>(&text) {
            let written = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(serde_json::from_str::<Policy>(&written).unwrap(), policy);
        }
    }
}
