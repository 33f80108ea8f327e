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
