//! The keys of policies in configuration files.

use super::{Backoff, Jitter, Operation, Operations, Policy};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData, time::Duration};

/// The keys of a policy that a file names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_content: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retry_after: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_idle: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<Operations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<Table<BackoffKeys>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_backoff: Option<Table<BackoffKeys>>,
}

/// The keys of a backoff that a file names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackoffKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    initial: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<Jitter>,
}

/// A table with keys. A derived struct would also accept a list of its values.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Table<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}

/// Sets a value if the file names it.
fn set<T, U: Clone + Into<T>>(value: &mut T, named: &Option<U>) {
    if let Some(named) = named {
        *value = named.clone().into();
    }
}

impl PolicyKeys {
    /// Changes the values that the file names. If the policy has no `throttle_backoff`, a
    /// change of it starts from the given one, or else from the `backoff`.
    pub fn lay_over(&self, policy: &mut Policy, throttle_backoff: Option<Backoff>) {
        set(&mut policy.max_retries, &self.max_retries);
        set(&mut policy.timeout, &self.timeout);
        set(&mut policy.deadline, &self.deadline);
        set(&mut policy.first_content, &self.first_content);
        set(&mut policy.max_retry_after, &self.max_retry_after);
        set(&mut policy.stream_idle, &self.stream_idle);
        set(&mut policy.retry, &self.retry);
        if let Some(Table(keys)) = &self.backoff {
            keys.lay_over(&mut policy.backoff);
        }
        if let Some(Table(keys)) = &self.throttle_backoff {
            let start = throttle_backoff.unwrap_or(policy.backoff);
            keys.lay_over(policy.throttle_backoff.get_or_insert(start));
        }
    }
}

impl BackoffKeys {
    fn lay_over(&self, backoff: &mut Backoff) {
        set(&mut backoff.initial, &self.initial);
        set(&mut backoff.max, &self.max);
        set(&mut backoff.jitter, &self.jitter);
    }
}

/// Keys that the file does not name have their defaults.
impl From<Table<PolicyKeys>> for Policy {
    fn from(Table(keys): Table<PolicyKeys>) -> Self {
        let mut policy = Self::default();
        keys.lay_over(&mut policy, None);
        policy
    }
}

impl From<Policy> for PolicyKeys {
    fn from(policy: Policy) -> Self {
        Self {
            max_retries: Some(policy.max_retries),
            timeout: Some(Written(policy.timeout)),
            deadline: Some(Written(policy.deadline)),
            first_content: Some(Written(policy.first_content)),
            max_retry_after: Some(Written(policy.max_retry_after)),
            stream_idle: Some(Written(policy.stream_idle)),
            retry: Some(policy.retry),
            backoff: Some(Table(policy.backoff.into())),
            throttle_backoff: policy.throttle_backoff.map(|keys| Table(keys.into())),
        }
    }
}

/// Keys that the file does not name have their defaults.
impl From<Table<BackoffKeys>> for Backoff {
    fn from(Table(keys): Table<BackoffKeys>) -> Self {
        let mut backoff = Self::default();
        keys.lay_over(&mut backoff);
        backoff
    }
}

impl From<Backoff> for BackoffKeys {
    fn from(backoff: Backoff) -> Self {
        Self {
            initial: Some(Written(backoff.initial)),
            max: Some(Written(backoff.max)),
            jitter: Some(backoff.jitter),
        }
    }
}

impl From<Written> for Duration {
    fn from(Written(duration): Written) -> Self {
        duration
    }
}

impl<'de> Deserialize<'de> for Jitter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(JitterVisitor)
    }
}

struct JitterVisitor;

impl Visitor<'_> for JitterVisitor {
    type Value = Jitter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`equal`, `full` or `none`")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Jitter, E> {
        match name {
            "equal" => Ok(Jitter::Equal),
            "full" => Ok(Jitter::Full),
            "none" => Ok(Jitter::None),
            _ => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }
}

/// The name of a method or of a set, `"chat"`, `"streams"`, `"all"` or `"none"`, or a
/// list of names.
impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OperationsVisitor)
    }
}

struct OperationsVisitor;

impl<'de> Visitor<'de> for OperationsVisitor {
    type Value = Operations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`chat`, `streams`, `all`, `none`, the name of a method, or a list of these")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Operations, E> {
        NameVisitor.visit_str(name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Operations, A::Error> {
        let mut set = Operations::NONE;
        while let Some(Named(operations)) = names.next_element()? {
            set |= operations;
        }
        Ok(set)
    }
}

/// One name in a list, so that an error points to it.
struct Named(Operations);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor).map(Self)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Operations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`chat`, `streams`, `all`, `none` or the name of a method")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Operations, E> {
        if let Some((_, set)) = SETS.iter().find(|(known, _)| *known == name) {
            return Ok(*set);
        }
        match Operation::named(name) {
            Some(operation) => Operations::try_from(operation).map_err(E::custom),
            None => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }
}

/// The named sets; those that contain others come first.
const SETS: [(&str, Operations); 4] = [
    ("all", Operations::ALL),
    ("chat", Operations::CHAT),
    ("streams", Operations::STREAMS),
    ("none", Operations::NONE),
];

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named = Self::NONE;
        let mut names = Vec::new();
        for (name, set) in SETS {
            if *self | set == *self && named | set != named {
                names.push(name);
                named |= set;
            }
        }
        let others = self.iter().filter(|&operation| !named.contains(operation));
        names.extend(others.map(Operation::as_str));
        serializer.collect_seq(names)
    }
}

/// A duration in a file: "30s", "1m 30s", or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Written(Duration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\" or \"1m 30s\", or a number of seconds")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Written, E> {
        Ok(Written(Duration::from_secs(seconds)))
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Written, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => self.visit_u64(seconds),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(seconds), &self)),
        }
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Written, E> {
        Duration::try_from_secs_f64(seconds)
            .map(Written)
            .map_err(|_| E::invalid_value(Unexpected::Float(seconds), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        humantime::parse_duration(text)
            .map(Written)
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}
