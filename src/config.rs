//! Settings in configuration files.

use crate::{
    limits::RateLimiter,
    policy::{PolicyKeys, Table},
    retrying::Retrying,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The settings of a file, which [`Retrying::config`](crate::retrying::Retrying::config)
/// applies over those of a wrapper. Keys that the file does not name keep their values.
///
/// | table | keys |
/// | --- | --- |
/// | `policy` | the fields of [`Policy`](crate::policy::Policy) |
/// | `models.<name>` | the same, for calls whose request names this model. Missing keys are inherited from the policy, also within `backoff`; `retry` replaces the whole set |
/// | `budget` | `capacity`, `cost`, `throttle_cost`: see [`RetryBudget`](crate::limits::RetryBudget) |
/// | `rate_limiter` | none; the table alone sets a [`RateLimiter`](crate::limits::RateLimiter), unless the wrapper has one |
///
/// A duration is text such as `"1m 30s"` or a number of seconds. `backoff` and
/// `throttle_backoff` are tables of `initial`, `max` and `jitter`; a `throttle_backoff`
/// that is not set yet starts from the `backoff`. `retry` is one of `"chat"`,
/// `"streams"`, `"all"`, `"none"` and the names of methods, or a list of these.
///
/// # Errors
///
/// Unknown keys and wrong values are deserialization errors that say what was expected.
/// The `toml` crate adds the line and the column.
///
/// ```
/// # #[cfg(feature = "futures-timer")]
/// # fn wrap<P>(client: P) -> Result<crabllm_retry::Retrying<P>, toml::de::Error> {
/// use crabllm_retry::{Config, Retrying};
///
/// let config: Config = toml::from_str(r#"
///     [policy]
///     max_retries = 4
///     timeout = "1m 30s"
///     retry = ["chat", "streams"]
///     backoff = { initial = "250ms", max = "8s", jitter = "full" }
///
///     [models."a-slow-model"]
///     timeout = "10m"
///
///     [budget]
///     capacity = 500
///
///     [rate_limiter]
/// "#)?;
/// # Ok(
/// Retrying::new(client).recommended().config(config)
/// # )
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
#[must_use = "a configuration does nothing until a `Retrying` uses it"]
pub struct Config(Table<Tables>);

/// The tables of a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Tables {
    policy: Table<PolicyKeys>,
    models: Table<BTreeMap<String, Table<PolicyKeys>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<Table<BudgetKeys>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<Table<RateLimiterKeys>>,
}

/// A rate limiter has no keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RateLimiterKeys {}

/// The keys of a budget that a file names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct BudgetKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_cost: Option<u32>,
}

impl<P, T> Retrying<P, T> {
    /// Applies the settings of a file over those of the wrapper; keys that it does not name
    /// keep their values. A model without a policy of its own starts from the general one as
    /// it is then: later changes of the general one do not reach the model. `capacity` makes
    /// a new budget; costs alone change this wrapper's costs, and its tokens stay shared.
    ///
    /// See [`Config`] for the file.
    pub fn config(mut self, Config(Table(tables)): Config) -> Self {
        let policies = &mut self.engine.policies;
        let general = &mut policies.general;
        tables.policy.0.lay_over(general, None);
        for (model, Table(keys)) in tables.models.0 {
            let by_model = Arc::make_mut(&mut policies.by_model);
            let policy = by_model.entry(model).or_insert_with(|| general.clone());
            keys.lay_over(policy, general.throttle_backoff);
        }
        if let Some(Table(keys)) = tables.budget {
            let budget = self.engine.budget.get_or_insert_default();
            *budget = budget.changed(keys.capacity, keys.cost, keys.throttle_cost);
        }
        if tables.rate_limiter.is_some() {
            let limiter = &mut self.engine.limiter;
            limiter.get_or_insert_with(RateLimiter::adaptive);
        }
        self
    }
}
