//! Settings in configuration files.

#![cfg(all(feature = "serde", feature = "test-util"))]

use crabllm_retry::{
    Backoff, Config, Jitter, Operation, Operations, Policy, RetryBudget, Retrying,
    test_util::VirtualTimer,
};
use proptest::{prelude::*, sample::subsequence};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{fmt::Debug, time::Duration};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn operations_are_read_by_name_or_set_and_printed_in_few_names() {
    let (chat, streams) = (Operations::CHAT, Operations::STREAMS);
    for (written, set, printed) in [
        (r#""all""#, Operations::ALL, r#"["all"]"#),
        (r#""none""#, Operations::NONE, "[]"),
        ("[]", Operations::NONE, "[]"),
        (r#""models""#, Operations::MODELS, r#"["models"]"#),
        (r#"["streams"]"#, streams, r#"["streams"]"#),
        (
            r#"["streams", "chat_completion", "chat"]"#,
            chat | streams,
            r#"["chat","streams"]"#,
        ),
        (
            r#"["audio_speech", "chat"]"#,
            chat | Operations::AUDIO_SPEECH,
            r#"["chat","audio_speech"]"#,
        ),
    ] {
        let read: Operations = serde_json::from_str(written).unwrap();
        assert_eq!(read, set, "{written}");
        assert_eq!(serde_json::to_string(&set).unwrap(), printed);
    }
}

#[test]
fn a_policy_is_written_as_people_write_it() {
    const WRITTEN: &str = r#"max_retries = 5
timeout = "1m 30s"
deadline = "5m"
first_content = "7s"
max_retry_after = "2s 500ms"
stream_idle = "0s"
retry = ["chat", "complete_stream", "models"]

[backoff]
initial = "250ms"
max = "8s"
jitter = "full"

[throttle_backoff]
initial = "1s"
max = "9s"
jitter = "none"
"#;
    let millis = Duration::from_millis;
    let retry = Operations::CHAT | Operations::MODELS;
    let policy = Policy::default()
        .max_retries(5)
        .timeout(secs(90))
        .deadline(secs(300))
        .first_content(secs(7))
        .max_retry_after(millis(2500))
        .stream_idle(Duration::ZERO)
        .retry(retry | Operations::try_from(Operation::CompleteStream).unwrap())
        .backoff(Backoff::exponential(millis(250), secs(8)).jitter(Jitter::Full))
        .throttle_backoff(Backoff::exponential(secs(1), secs(9)).jitter(Jitter::None));
    assert_eq!(toml::to_string(&policy).unwrap(), WRITTEN);
    assert_eq!(toml::from_str::<Policy>(WRITTEN).unwrap(), policy);
}

#[test]
fn keys_that_a_policy_does_not_name_have_their_defaults() {
    assert_eq!(toml::from_str::<Policy>("").unwrap(), Policy::default());
    let half = Policy::default().max_retry_after(Duration::from_millis(2500));
    assert_eq!(
        toml::from_str::<Policy>("max_retry_after = 2.5").unwrap(),
        half
    );
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_the_accepted_values() {
    let duration = "a duration such as \"30s\"";
    let names = "`chat`, `streams`, `all`, `none`";
    let jitter = "`equal`, `full` or `none`";
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
        ("policy.retry = 'everything'", names),
        ("policy.retry = ['chat', 7]", "the name of a method"),
        ("policy.retry = 5", names),
        (
            "policy.retry = ['chat_completion_stream_passthrough']",
            "consumed",
        ),
        ("policy.backoff.jitter = 'some'", jitter),
        ("policy.backoff.jitter = 3", jitter),
        ("policy.backoff.jitter = { equal = {} }", jitter),
        ("policy.backoff = 5", "a table"),
        ("policy.backoff = ['1s', '2s', 'full']", "a table"),
        ("policy = [4]", "a table"),
        ("models.m = [4]", "a table"),
        ("budget = [500]", "a table"),
        ("policy.backoff.initail = 1", "`initial`, `max`, `jitter`"),
        ("policy.retries = 3", "`max_retries`, `timeout`"),
        ("models.m.throttle_backoff.max = -3", duration),
        ("models = [3]", "a table"),
        ("budget.capacity = 1.5", "u32"),
        ("budget = 3", "a table"),
        ("rate_limiter.rate = 4", "there are no fields"),
        ("polciy.max_retries = 3", "`policy`, `models`, `budget`"),
        ("policy.timeout = 1\npolicy.timeout = 2", "duplicate key"),
        ("policy.retry = [\n'bogus']", names),
    ] {
        let message = toml::from_str::<Config>(&format!("\n{written}"))
            .unwrap_err()
            .to_string();
        let line = 1 + written.lines().count();
        let place = format!("at line {line}, column ");
        assert!(message.contains(&place), "{written}: {message}");
        assert!(message.contains(right), "{written}: {message}");
    }
    let list = serde_json::from_str::<Config>("[{}]").unwrap_err();
    assert!(list.to_string().contains("a table"), "{list}");
}

type Wrapper = Retrying<(), VirtualTimer>;

/// Asserts that a file does the same to a wrapper as the setters.
fn assert_same(by_file: Wrapper, file: &str, by_hand: Wrapper) {
    let config: Config = toml::from_str(file).unwrap();
    assert_eq!(
        format!("{:?}", by_file.config(config)),
        format!("{by_hand:?}")
    );
}

fn wrapper() -> Wrapper {
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

        [models.m]
        throttle_backoff.max = 7

        [models.n]
        throttle_backoff.max = 7
    "#;
    let policy = Policy::recommended()
        .max_retries(7)
        .retry(Operations::EMBEDDING)
        .backoff(Backoff::exponential(Duration::from_millis(500), secs(9)));
    let own = Backoff::exponential(secs(1), secs(7));
    let model = policy.clone().throttle_backoff(own);
    let by_hand = recommended().policy(policy).policy_for("m", model);
    let by_hand = by_hand.policy_for("n", Policy::default().throttle_backoff(own));
    assert_same(recommended(), file, by_hand);
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
fn a_budget_keeps_what_the_file_does_not_name() {
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
    assert_same(
        wrapper().budget(RetryBudget::new(100).cost(3)),
        "budget.capacity = 7\nbudget.throttle_cost = 2",
        wrapper().budget(RetryBudget::new(7).cost(3).throttle_cost(2)),
    );
}

/// The keys of a policy, each with a value.
const POLICY: &str = "max_retries = 4294967295
timeout = '1m 30s'
deadline = 300
first_content = 0.25
max_retry_after = '0s'
stream_idle = '1year 1ns'
retry = ['chat', 'models', 'complete']
backoff.initial = 1
backoff.max = '8s'
backoff.jitter = 'full'
throttle_backoff.initial = '2s'
throttle_backoff.max = 9
throttle_backoff.jitter = 'none'";

/// The keys of a configuration besides those of policies.
const OTHERS: &str =
    "budget.capacity = 7\nbudget.cost = 0\nbudget.throttle_cost = 2\nrate_limiter = {}";

/// Files with some of the keys.
fn files(keys: Vec<String>) -> impl Strategy<Value = String> {
    let every = 0..=keys.len();
    subsequence(keys, every).prop_map(|keys| keys.join("\n"))
}

fn configs() -> impl Strategy<Value = String> {
    let tables = ["policy", "models.m", "models.'a slow. \u{e9}'"];
    let policies = tables.into_iter().flat_map(|table| {
        let keys = POLICY.lines();
        keys.map(move |key| format!("{table}.{key}"))
    });
    files(policies.chain(OTHERS.lines().map(str::to_owned)).collect())
}

/// Asserts that a value is read back as it is printed.
fn assert_read_back<T: Debug + DeserializeOwned + PartialEq + Serialize>(value: &T) {
    let printed = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&printed).unwrap(), *value);
    let printed = toml::to_string(value).unwrap();
    assert_eq!(toml::from_str::<T>(&printed).unwrap(), *value);
}

// `PROPTEST_CASES=1000000 cargo test --release --test config` tries a million.
proptest! {
    #[test]
    fn every_configuration_is_read_back_as_it_was_printed(
        config in configs(),
        policy in files(POLICY.lines().map(str::to_owned).collect()),
    ) {
        assert_read_back(&toml::from_str::<Config>(&config).unwrap());
        assert_read_back(&toml::from_str::<Policy>(&policy).unwrap());
    }

    #[test]
    fn every_duration_is_read_back(duration in prop_oneof![Just(Duration::MAX), any::<Duration>()]) {
        assert_read_back(&Policy::default().timeout(duration));
    }

    #[test]
    fn every_written_duration_is_refused_or_read_back(
        number in any::<f64>(),
        text in prop_oneof![any::<String>(), "[0-9]{0,3}(\\.[0-9])?(ns|us|ms|s|m|h|days|years)?( [0-9]{1,2}s)?"],
    ) {
        for value in [json!(number), json!(text)] {
            if let Ok(policy) = serde_json::from_value::<Policy>(json!({ "timeout": value })) {
                assert_read_back(&policy);
            }
        }
    }
}
