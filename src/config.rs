//! Policies in configuration files.

use crate::policy::{Backoff, Operation, Operations, Policy};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Unexpected, Visitor},
    ser::SerializeStruct,
};
use std::{collections::BTreeSet, fmt, marker::PhantomData, time::Duration};

/// A type that is read from a table of a configuration.
trait Table: Default {
    const KEYS: &'static [&'static str];

    /// Sets the field of that name; false if there is none.
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

impl Table for Policy {
    const KEYS: &'static [&'static str] = &[
        "max_retries",
        "timeout",
        "deadline",
        "backoff",
        "throttle_backoff",
        "max_retry_after",
        "stream_idle",
        "retry",
    ];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "max_retries" => self.max_retries = map.next_value()?,
            "timeout" => self.timeout = duration(map)?,
            "deadline" => self.deadline = duration(map)?,
            "backoff" => self.backoff = map.next_value()?,
            "throttle_backoff" => self.throttle_backoff = map.next_value()?,
            "max_retry_after" => self.max_retry_after = duration(map)?,
            "stream_idle" => self.stream_idle = duration(map)?,
            "retry" => self.retry = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Table for Backoff {
    const KEYS: &'static [&'static str] = &["initial", "max", "jitter"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "initial" => self.initial = duration(map)?,
            "max" => self.max = duration(map)?,
            "jitter" => self.jitter = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads a table. The error of a wrong value names its key.
struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Table> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table of {}", T::KEYS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut table = T::default();
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("{key}: set twice")));
            }
            let known = table
                .set(&key, &mut map)
                .map_err(|error| A::Error::custom(format_args!("{key}: {error}")))?;
            if !known {
                return Err(A::Error::unknown_field(&key, T::KEYS));
            }
            keys.insert(key);
        }
        Ok(table)
    }
}

/// A missing key has its default. Unknown keys and wrong values are errors.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Policy", Self::KEYS, TableVisitor(PhantomData))
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let throttled = self.throttle_backoff.is_some();
        let len = Self::KEYS.len() - usize::from(!throttled);
        let mut table = serializer.serialize_struct("Policy", len)?;
        table.serialize_field("max_retries", &self.max_retries)?;
        table.serialize_field("timeout", &Written(self.timeout))?;
        table.serialize_field("deadline", &Written(self.deadline))?;
        table.serialize_field("max_retry_after", &Written(self.max_retry_after))?;
        table.serialize_field("stream_idle", &Written(self.stream_idle))?;
        table.serialize_field("retry", &self.retry)?;
        table.serialize_field("backoff", &self.backoff)?;
        match &self.throttle_backoff {
            Some(backoff) => table.serialize_field("throttle_backoff", backoff)?,
            None => table.skip_field("throttle_backoff")?,
        }
        table.end()
    }
}

/// A missing key has its default.
impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Backoff", Self::KEYS, TableVisitor(PhantomData))
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_struct("Backoff", Self::KEYS.len())?;
        table.serialize_field("initial", &Written(self.initial))?;
        table.serialize_field("max", &Written(self.max))?;
        table.serialize_field("jitter", &self.jitter)?;
        table.end()
    }
}

/// The names of operations, and of sets of them: `"chat"`, `"streams"`, `"all"`
/// and `"none"`. One name, or a list.
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
        if let Some((_, set)) = SETS.iter().find(|(known, _)| *known == name) {
            return Ok(*set);
        }
        match Operation::named(name) {
            Some(operation) => Operations::try_from(operation).map_err(E::custom),
            None => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Operations, A::Error> {
        let mut set = Operations::NONE;
        while let Some(name) = names.next_element::<String>()? {
            set |= Self.visit_str(&name)?;
        }
        Ok(set)
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
struct Written(Duration);

fn duration<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Duration, A::Error> {
    let Written(duration) = map.next_value()?;
    Ok(duration)
}

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
