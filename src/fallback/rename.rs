//! The names of models at `second`.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The names at `second` by the names at `first`. Other models have the same name at both.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<BTreeMap<String, String>>);

impl Names {
    pub fn insert(&mut self, from: String, to: String) {
        Arc::make_mut(&mut self.0).insert(from, to);
    }

    /// The name at `second`, if it is another one.
    pub fn get(&self, name: &str) -> Option<&str> {
        let to = self.0.get(name)?;
        (to != name).then_some(to)
    }

    /// A raw body with the name at `second`, if that is another one. All other bytes stay.
    pub fn in_body(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let Models(models) = serde_json::from_slice(body).ok()?;
        let mut renamed = Vec::new();
        let mut copied = 0;
        for value in models.into_iter().map(RawValue::get) {
            let name: Option<String> = serde_json::from_str(value).ok();
            if let Some(to) = name.as_deref().and_then(|name| self.get(name)) {
                let start = value.as_ptr() as usize - body.as_ptr() as usize;
                renamed.extend_from_slice(&body[copied..start]);
                serde_json::to_writer(&mut renamed, to).ok()?;
                copied = start + value.len();
            }
        }
        if copied == 0 {
            return None;
        }
        renamed.extend_from_slice(&body[copied..]);
        Some(renamed)
    }
}

/// The values of a JSON object's keys `model`, of which there may be several.
struct Models<'b>(Vec<&'b RawValue>);

impl<'b> Deserialize<'b> for Models<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Models(Vec::new()))
    }
}

impl<'b> Visitor<'b> for Models<'b> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'b>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some((key, value)) = map.next_entry::<String, _>()? {
            if key == "model" {
                self.0.push(value);
            }
        }
        Ok(self)
    }
}

/// An argument of a call.
pub trait Argument<'c>: Clone {
    /// A copy under another name, if one is needed beside the argument.
    type Copy;

    /// The model that it names, if it is a raw body.
    fn model_in_body(&self) -> Option<String> {
        None
    }

    /// The argument of the same call to `second`.
    fn renamed(self, _names: &'c Names, _copy: &'c mut Option<Self::Copy>) -> Self {
        self
    }
}

impl<'c> Argument<'c> for &'c str {
    type Copy = ();

    fn renamed(self, names: &'c Names, _: &'c mut Option<()>) -> Self {
        names.get(self).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_body_changes_only_in_the_name() {
        let mut names = Names::default();
        let renamed = |names: &Names, body: &str| {
            let renamed = names.in_body(body.as_bytes())?;
            Some(String::from_utf8(renamed).unwrap())
        };
        assert_eq!(renamed(&names, r#"{"model": "m"}"#), None);
        for (from, to) in [
            ("m", "first"),
            ("m", "a \"b\""),
            ("a \"b\"", "c"),
            ("s", "s"),
        ] {
            names.insert(from.into(), to.into());
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        // § stands for the model.
        for body in [
            r#"{"model":§}"#,
            " \r\n{ \"model\"\t:  § \n} ",
            r#"{"stream": true, "model": §, "x": -0.10e+99}"#,
            r#"{"m\u006fdel": §, "é": "\u00e9 🦀 \\\"m\\\""}"#,
            r#"{"model": §, "model": null, "model": §, "model": "s", "model": "other"}"#,
            r#"{"model": §, "x": {"model": "m"}, "y": [{"model": "m"}], "Model": "m"}"#,
            r#"{"x": 12345678901234567890123456789.0, "y": 1e999, "model": §}"#,
            &format!(r#"{{"x": {deep}, "model": §}}"#),
        ] {
            for name in [r#""m""#, r#""\u006d""#] {
                let expected = body.replace('§', r#""a \"b\"""#);
                assert_eq!(renamed(&names, &body.replace('§', name)), Some(expected));
            }
            // Without its end it is no object.
            let (cut, _) = body.rsplit_once('}').unwrap();
            assert_eq!(renamed(&names, &cut.replace('§', r#""m""#)), None);
        }
        for body in [
            "",
            r#""m""#,
            r#"["model", "m"]"#,
            r#"{"model": "other"}"#,
            r#"{"model": "s"}"#,
            r#"{"model": ["m"]}"#,
            r#"{"messages": [{"model": "m"}]}"#,
            r#"{"model": "m"} x"#,
        ] {
            assert_eq!(renamed(&names, body), None, "{body}");
        }
    }
}
