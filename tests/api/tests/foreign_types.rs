//! The foreign types in the public API. Each ties this crate's version to that of another
//! crate, so the list grows only on purpose.
//!
//! The test reads rustdoc's JSON. That format is unstable; the test needs only the `id` of
//! each path and the table of paths.

use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Besides std's and crabllm-core's own.
const ALLOWED: [&str; 6] = [
    // The bodies in the methods of that trait.
    "bytes::bytes::Bytes",
    // The streams of `Retrying::open`.
    "futures_core::stream::BoxStream",
    // The feature `serde`.
    "serde_core::de::Deserialize",
    "serde_core::de::Deserializer",
    "serde_core::ser::Serialize",
    "serde_core::ser::Serializer",
];

#[test]
fn the_public_api_shows_only_the_allowed_foreign_types() {
    let docs = Docs::read();
    let shown = docs.foreign_types();
    let expected: BTreeSet<_> = ALLOWED.map(String::from).into();
    assert_eq!(shown, expected);
}

/// Rustdoc's description of the crate with all its features.
struct Docs(Value);

impl Docs {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target/api");
        let status = Command::new(env!("CARGO"))
            .args(["rustdoc", "--locked", "--lib", "--all-features", "--"])
            .args(["-Zunstable-options", "--output-format", "json"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &target)
            .current_dir(&root)
            .status()
            .unwrap();
        assert!(status.success());
        let json = fs::read(target.join("doc/crabllm_retry.json")).unwrap();
        Self(serde_json::from_slice(&json).unwrap())
    }

    fn foreign_types(&self) -> BTreeSet<String> {
        let mut ids = Vec::new();
        for item in self.0["index"].as_object().unwrap().values() {
            let kind = &item["inner"]["impl"];
            let derived = kind["is_synthetic"] == true || kind["blanket_impl"].is_object();
            if item["crate_id"] == 0 && !derived {
                collect_ids(&item["inner"], &mut ids);
            }
        }
        assert!(!ids.is_empty());
        let paths = ids.into_iter().filter_map(|id| self.foreign_path(id));
        paths.collect()
    }

    /// The path of a type, unless it is of this crate, std's or crabllm-core's, or private
    /// to a macro, such as the bound of `Unpin` that pin-project-lite makes.
    fn foreign_path(&self, id: &Value) -> Option<String> {
        let summary = self.0["paths"].get(id.to_string())?;
        let parts = summary["path"].as_array()?.iter().map(Value::as_str);
        let path: Vec<_> = parts.collect::<Option<_>>()?;
        let own = ["alloc", "core", "std", "crabllm_core", "crabllm_retry"].contains(&path[0]);
        (!own && !path.contains(&"__private")).then(|| path.join("::"))
    }
}

/// The ids of all paths in a signature.
fn collect_ids<'a>(json: &'a Value, ids: &mut Vec<&'a Value>) {
    match json {
        Value::Object(fields) => {
            if fields.contains_key("path") {
                ids.extend(fields.get("id"));
            }
            fields.values().for_each(|value| collect_ids(value, ids));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_ids(value, ids)),
        _ => {}
    }
}
