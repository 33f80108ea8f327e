//! The models that a raw JSON body names at its top level.

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The model of a call. If the body names several, it is the last one, which most parsers
/// keep.
#[allow(dead_code, reason = "0.0.15 has no raw bodies")]
pub fn model_in(body: &[u8]) -> Option<String> {
    text(values_of_model(body)?.last()?).map(Cow::into_owned)
}

/// A text, which is borrowed unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text(json: &str) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(json).ok()?;
    Some(text)
}

/// The body with other names of its models. All other bytes stay. `None` if no name changes.
#[allow(dead_code, reason = "0.0.15 has no raw bodies")]
pub fn renamed<'n>(body: &[u8], name: impl Fn(&str) -> Option<&'n str>) -> Option<Vec<u8>> {
    let mut renamed = Vec::new();
    let mut copied = 0;
    for value in values_of_model(body)? {
        let Some(to) = text(value).and_then(|from| name(&from)) else {
            continue;
        };
        let start = value.as_ptr() as usize - body.as_ptr() as usize;
        renamed.extend_from_slice(&body[copied..start]);
        serde_json::to_writer(&mut renamed, to).ok()?;
        copied = start + value.len();
    }
    if copied == 0 {
        return None;
    }
    renamed.extend_from_slice(&body[copied..]);
    Some(renamed)
}

/// The values of `model` as they are written. `None` if the body is not a JSON object.
fn values_of_model(body: &[u8]) -> Option<Vec<&str>> {
    struct Object;

    impl<'de> Visitor<'de> for Object {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            // As it is written, a key need not be valid Unicode.
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                if text(key.get()).is_some_and(|key| key == "model") {
                    values.push(value.get());
                }
            }
            Ok(values)
        }
    }

    let mut json = serde_json::Deserializer::from_str(str::from_utf8(body).ok()?);
    let values = json.deserialize_map(Object).ok()?;
    json.end().ok()?;
    Some(values)
}

#[cfg(test)]
#[test]
fn a_body_changes_only_in_its_models() {
    let names = |name: &str| (name == "m").then_some("a \"b\"");
    let renamed = |body: &str| {
        let renamed = renamed(body.as_bytes(), names)?;
        Some(String::from_utf8(renamed).unwrap())
    };
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    // § stands for the model.
    for body in [
        r#"{"model":§}"#,
        " \r\n{ \"model\"\t:  § \n} ",
        r#"{"stream": true, "model": §, "x": -0.10e+99}"#,
        r#"{"m\u006fdel": §, "é": "\u00e9 🦀 \\\"m\\\""}"#,
        r#"{"model": §, "x": {"model": "m"}, "y": [{"model": "m"}], "Model": "m"}"#,
        r#"{"x": 12345678901234567890123456789.0, "y": 1e999, "model": §}"#,
        r#"{"\ud800": "\udc00", "model": §}"#,
        r#"{"model": "other", "model": 1, "model": §, "x": "m", "model": §}"#,
        &format!(r#"{{"x": {deep}, "model": §}}"#),
    ] {
        for name in [r#""m""#, r#""\u006d""#] {
            let original = body.replace('§', name);
            assert_eq!(model_in(original.as_bytes()).as_deref(), Some("m"));
            let expected = body.replace('§', r#""a \"b\"""#);
            assert_eq!(renamed(&original), Some(expected));
        }
    }
    for body in [
        "",
        r#""m""#,
        r#"["m"]"#,
        r#"{"model": ["m"]}"#,
        r#"{"messages": [{"model": "m"}]}"#,
        r#"{"model": "m""#,
        r#"{"model": "m"} x"#,
    ] {
        assert_eq!(model_in(body.as_bytes()), None, "{body}");
        assert_eq!(renamed(body), None, "{body}");
    }
    assert_eq!(model_in(b"{\"model\": \"m\", \"x\": \"\xff\"}"), None);
}
