//! The names of models at `second`.

use crate::raw_body;
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

    /// A raw body with the names at `second`. `None` if no name changes.
    #[allow(dead_code, reason = "0.0.15 has no raw bodies")]
    pub fn in_body(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        raw_body::renamed(body, |name| self.get(name))
    }
}

#[cfg(test)]
#[test]
fn a_raw_body_has_the_last_name_that_was_set_and_stays_if_it_is_the_same() {
    let mut names = Names::default();
    assert_eq!(names.in_body(br#"{"model": "m"}"#), None);
    for (from, to) in [("m", "first"), ("m", "n"), ("s", "s")] {
        names.insert(from.into(), to.into());
    }
    for (body, expected) in [
        (r#"{"model": "m"}"#, Some(r#"{"model": "n"}"#)),
        (r#"{"model": "s"}"#, None),
        (r#"{"model": "other"}"#, None),
    ] {
        let renamed = names.in_body(body.as_bytes());
        assert_eq!(renamed.as_deref(), expected.map(str::as_bytes));
    }
}
