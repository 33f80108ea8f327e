//! The names of models at `second`.

use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};

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
    #[allow(dead_code, reason = "0.0.15 has no raw bodies")]
    pub fn in_body(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
        let value = fields.get("model")?.get();
        let name: String = serde_json::from_str(value).ok()?;
        let to = serde_json::to_string(self.get(&name)?).ok()?;
        let start = value.as_ptr() as usize - body.as_ptr() as usize;
        let (before, after) = (&body[..start], &body[start + value.len()..]);
        Some([before, to.as_bytes(), after].concat())
    }
}

#[cfg(test)]
#[test]
fn a_raw_body_changes_only_in_the_name() {
    let mut names = Names::default();
    let renamed = |names: &Names, body: &str| {
        let renamed = names.in_body(body.as_bytes())?;
        Some(String::from_utf8(renamed).unwrap())
    };
    assert_eq!(renamed(&names, r#"{"model": "m"}"#), None);
    for (from, to) in [("m", "first"), ("m", "a \"b\""), ("s", "s")] {
        names.insert(from.into(), to.into());
    }
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    // § stands for the model.
    for body in [
        r#"{"model":§}"#,
        " \r\n{ \"model\"\t:  § \n} ",
        r#"{"stream": true, "model": §, "x": -0.10e+99}"#,
        r#"{"m\u006fdel": §, "é": "\u00e9 🦀 \\\"m\\\""}"#,
        r#"{"model": §, "x": {"model": "m"}, "y": [{"model": "m"}], "Model": "m"}"#,
        r#"{"x": 12345678901234567890123456789.0, "y": 1e999, "model": §}"#,
        &format!(r#"{{"x": {deep}, "model": §}}"#),
    ] {
        for name in [r#""m""#, r#""\u006d""#] {
            let expected = body.replace('§', r#""a \"b\"""#);
            assert_eq!(renamed(&names, &body.replace('§', name)), Some(expected));
        }
    }
    for body in [
        "",
        r#""m""#,
        r#"["m"]"#,
        r#"{"model": "other"}"#,
        r#"{"model": "s"}"#,
        r#"{"model": ["m"]}"#,
        r#"{"messages": [{"model": "m"}]}"#,
        r#"{"model": "m""#,
        r#"{"model": "m"} x"#,
    ] {
        assert_eq!(renamed(&names, body), None, "{body}");
    }
}
