//! Settings in configuration files.

#![cfg(all(feature = "serde", feature = "test-util"))]

use crabllm_retry::{
    Backoff, Config, Jitter, Operation, Operations, Policy, RetryBudget, Retrying,
    test_util::VirtualTimer,
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;
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
        // The keys that it does not name are the backoff's.
        .throttle_backoff(Backoff::exponential(secs(1), secs(8)).jitter(Jitter::Full));
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
fn nonsense_is_refused_with_its_place_and_what_would_be_right() {
    let duration = "a duration such as \"30s\"";
    for (written, right) in [
        ("policy.max_retries = -1", "u32"),
        ("policy.max_retries = 4294967296", "u32"),
        ("policy.max_retries = 'two'", "u32"),
        ("policy.timeout = 'soon'", duration),
        ("policy.timeout = -0.5", duration),
        ("policy.timeout = 1e300", duration),
        ("policy.timeout = true", duration),
        ("policy.deadline = '-5s'", duration),
        ("policy.deadline = ''", duration),
        ("policy.deadline = '99999999999999999999s'", duration),
        ("policy.max_retry_after = {}", duration),
        (
            "policy.retry = 'everything'",
            "`chat`, `streams`, `all`, `none`",
        ),
        ("policy.retry = ['chat', 7]", "the name of a method"),
        ("policy.retry = 5", "`chat`, `streams`, `all`, `none`"),
        (
            "policy.retry = ['chat_completion_stream_passthrough']",
            "consumed",
        ),
        ("policy.backoff.jitter = 'some'", "`equal`, `full`, `none`"),
        ("policy.backoff = 5", "a table"),
        ("policy.backoff = ['1s', '2s', 'full']", "a table"),
        ("policy = [4]", "a table"),
        ("models.m = [4]", "a table"),
        ("budget = [500]", "a table"),
        ("policy.backoff.initail = 1", "`initial`, `max`, `jitter`"),
        ("policy.retries = 3", "`max_retries`, `timeout`"),
        ("models.m.throttle_backoff.max = -3", duration),
        ("models = 3", "map"),
        ("budget.capacity = 1.5", "u32"),
        ("budget = 3", "a table"),
        ("polciy.max_retries = 3", "`policy`, `models`, `budget`"),
        ("policy.timeout = 1\npolicy.timeout = 2", "duplicate key"),
    ] {
        let message = toml::from_str::<Config>(&format!("\n{written}"))
            .unwrap_err()
            .to_string();
        let line = if right == "duplicate key" { 3 } else { 2 };
        let place = format!("at line {line}, column ");
        assert!(message.contains(&place), "{written}: {message}");
        assert!(message.contains(right), "{written}: {message}");
    }
}

#[test]
fn a_wrong_name_in_a_list_is_found_at_its_place() {
    let written = "[policy]\nretry = [\n  'chat',\n  'bogus',\n]";
    let message = toml::from_str::<Config>(written).unwrap_err().to_string();
    assert!(message.contains("at line 4, column 3"), "{message}");
}

/// Asserts that a file does the same to a wrapper as the setters do.
fn assert_same(
    by_file: Retrying<(), VirtualTimer>,
    file: &str,
    by_hand: Retrying<(), VirtualTimer>,
) {
    let config: Config = toml::from_str(file).unwrap();
    assert_eq!(
        format!("{:?}", by_file.config(config)),
        format!("{by_hand:?}")
    );
}

fn wrapper() -> Retrying<(), VirtualTimer> {
    Retrying::with_timer((), VirtualTimer::new())
}

#[test]
fn keys_that_the_file_does_not_name_stay() {
    let recommended = || wrapper().recommended().policy_for("n", Policy::default());
    assert_same(recommended(), "", recommended());
    let file = r#"
        [policy]
        max_retries = 7
        retry = "embedding"
        backoff.max = "9s"
    "#;
    let policy = Policy::recommended()
        .max_retries(7)
        .retry(Operations::EMBEDDING);
    let backoff = Backoff::exponential(Duration::from_millis(500), secs(9));
    assert_same(
        recommended(),
        file,
        recommended().policy(policy.backoff(backoff)),
    );
}

#[test]
fn a_model_inherits_from_the_policy_key_by_key() {
    let file = r#"
        [policy]
        timeout = 40
        backoff = { initial = 1, jitter = "none" }

        [models."a-slow-model"]
        timeout = "10m"
        backoff.max = 30
        throttle_backoff.initial = 5

        [models.known]
        max_retries = 1
    "#;
    let backoff =
        |initial, max| Backoff::exponential(secs(initial), secs(max)).jitter(Jitter::None);
    let policy = Policy::default().timeout(secs(40)).backoff(backoff(1, 20));
    let slow = policy
        .clone()
        .timeout(secs(600))
        .backoff(backoff(1, 30))
        .throttle_backoff(backoff(5, 30));
    let known = Policy::default().max_retries(9);
    let by_hand = wrapper().policy(policy).policy_for("a-slow-model", slow);
    assert_same(
        wrapper().policy_for("known", known.clone()),
        file,
        by_hand.policy_for("known", known.max_retries(1)),
    );
}

#[test]
fn a_models_throttle_backoff_starts_from_the_policys() {
    let file = "policy.throttle_backoff.initial = 3\nmodels.m.throttle_backoff.max = 7";
    let throttled = Policy::default().throttle_backoff(Backoff::exponential(secs(3), secs(20)));
    let model = throttled
        .clone()
        .throttle_backoff(Backoff::exponential(secs(3), secs(7)));
    assert_same(
        wrapper(),
        file,
        wrapper().policy(throttled).policy_for("m", model),
    );
}

#[test]
fn a_budget_keeps_what_the_file_does_not_name() {
    let budget = || RetryBudget::new(100).cost(3);
    for (file, expected) in [
        ("", None),
        ("[budget]", Some(RetryBudget::default())),
        ("budget.capacity = 7", Some(RetryBudget::new(7))),
        ("budget.cost = 7", Some(RetryBudget::default().cost(7))),
    ] {
        let by_hand = match expected {
            Some(budget) => wrapper().budget(budget),
            None => wrapper(),
        };
        assert_same(wrapper(), file, by_hand);
    }
    let file = "budget.capacity = 7\nbudget.throttle_cost = 2";
    let changed = RetryBudget::new(7).cost(3).throttle_cost(2);
    assert_same(wrapper().budget(budget()), file, wrapper().budget(changed));
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

/// Configurations that name some keys.
fn config() -> impl Strategy<Value = Config> {
    let keys = || {
        (policy(), any::<u16>()).prop_map(|(policy, named)| {
            let mut keys = serde_json::to_value(policy).unwrap();
            let mut position = 0;
            keys.as_object_mut().unwrap().retain(|_, _| {
                position += 1;
                named & 1 << position != 0
            });
            keys
        })
    };
    let budget = proptest::option::of((any::<u32>(), any::<u32>(), any::<u32>()));
    (keys(), vec((any::<String>(), keys()), 0..3), budget).prop_map(|(policy, models, budget)| {
        let models: serde_json::Map<_, _> = models.into_iter().collect();
        let mut config = json!({ "policy": policy, "models": models });
        if let Some((capacity, cost, throttle_cost)) = budget {
            config["budget"] =
                json!({ "capacity": capacity, "cost": cost, "throttle_cost": throttle_cost });
        }
        serde_json::from_value(config).unwrap()
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
    fn every_configuration_is_read_back_as_it_was_written(config in config()) {
        let written = toml::to_string(&config).unwrap();
        prop_assert_eq!(&toml::from_str::<Config>(&written).unwrap(), &config);
        let written = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Config>(&written).unwrap(), &config);
    }

    #[test]
    fn whatever_is_read_is_read_back_as_it_was_understood(text in typed()) {
        if let Ok(policy) = serde_json::from_str::<Policy>(&text) {
            let written = serde_json::to_string(&policy).unwrap();
            prop_assert_eq!(serde_json::from_str::<Policy>(&written).unwrap(), policy);
        }
    }
}
