//! Guides, one for each task.
//!
//! * [Choosing a release and a timer](setup): lines for Cargo.toml, executors, clients
//!   that need tokio.
//! * [Reading errors and events](errors_and_events): what is retried, how long a
//!   retry waits, logs.
//! * [Streams](streams): what is retried until the first content, and what follows.
//! * [Settings for single calls](recipes): other timeouts, known rate limits, work that
//!   a retry may repeat.
//! * [Rate limits](rate_limits): how a rate limiter learns, and what it brings.
//! * [A second provider](fallback): which calls fall back, how long they take, what they cost.
//! * [Testing your own code](testing): a virtual clock and a scripted provider.
//! * [In a browser](browser).
//! * [Coming from crabllm-core's wrapper](from_crabllm_core).
//! * [Coming from backon or reqwest-retry](from_other_crates).

#[doc = include_str!("docs/setup.md")]
pub mod setup {}

#[doc = include_str!("docs/errors_and_events.md")]
pub mod errors_and_events {}

#[doc = include_str!("docs/streams.md")]
pub mod streams {}

#[doc = include_str!("docs/recipes.md")]
pub mod recipes {}

#[doc = include_str!("docs/rate_limits.md")]
pub mod rate_limits {}

#[doc = include_str!("docs/fallback.md")]
pub mod fallback {}

#[doc = include_str!("docs/testing.md")]
pub mod testing {}

#[doc = include_str!("docs/browser.md")]
pub mod browser {}

#[doc = include_str!("docs/from_crabllm_core.md")]
pub mod from_crabllm_core {}

#[doc = include_str!("docs/from_other_crates.md")]
pub mod from_other_crates {}
