//! Retries and timeouts for [`crabllm`] providers, on any async executor and
//! without tokio.
//!
//! Wrap a provider: its transient failures are retried with jittered exponential
//! backoff, and a timeout limits each attempt.
//!
//! ```
//! # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
//! use crabllm_retry::Retrying;
//! use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider};
//!
//! async fn ask(
//!     provider: impl Provider,
//!     request: &ChatCompletionRequest,
//! ) -> Result<String, Error> {
//!     let provider = Retrying::new(provider).recommended();
//!     let answer = provider.chat_completion(request).await?;
//!     Ok(answer.content().unwrap_or_default().to_owned())
//! }
//! # use crabllm_retry::{FuturesTimer, crabllm_core_0_0_19::json, test_util::{Scripted, Step}};
//! # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
//! # let provider = Scripted::new(FuturesTimer, [Step::status(503)]);
//! # futures::executor::block_on(ask(provider.clone(), &request))?;
//! # assert_eq!(provider.attempts().len(), 2);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`recommended`](Retrying::recommended) is our choice for production. Without it, only
//! chats are retried, and the values are those of crabllm-core's own wrapper, which are
//! small: two retries within 0.3 s, and 30 s for each attempt.
//!
//! The same code runs on smol, async-std, tokio, a game engine's executor, or
//! none: the wrapper spawns nothing and enters no runtime.
//!
//! # A tour
//!
//! * [`Retrying`] is the wrapper. It implements the `Provider` trait of each enabled
//!   `crabllm-core` release for any inner provider that does, and serves other clients
//!   with [`Retrying::call`] and [`Retrying::open`].
//! * [`Policy`] sets the number of retries, the time limits and
//!   [which operations](Operations) are retried; [`Backoff`] and [`Jitter`] set the
//!   delays. [`Config`](struct.Config.html) reads all of it from a file. A
//!   [`RetryBudget`], shared by many calls, keeps retries from making an outage worse, and
//!   a [`RateLimiter`] learns the rate that a server allows.
//! * [`Fallback`](struct.Fallback.html) asks a second provider while the first one is down.
//! * [`Timer`] is the source of time: [`FuturesTimer`](struct.FuturesTimer.html) by
//!   default, [`AsyncIoTimer`](struct.AsyncIoTimer.html) on the reactor of smol and
//!   async-std, or any closure that sleeps.
//! * [`Failure`] is the wrapper's view of an error. Hooks receive it to decide
//!   [what is transient](Retrying::retry_if) and
//!   [how long to wait](Retrying::retry_after). [`hints`] knows the error codes of
//!   vendors and reads the delays that servers write into errors.
//! * An [observer](Retrying::observe) receives [`Event`]s; [`trace`](fn.trace.html) is one
//!   that emits `tracing` events.
//! * [`test_util`](test_util/index.html) has a clock for tests,
//!   [`VirtualTimer`](test_util/struct.VirtualTimer.html), and a provider that follows a
//!   script, [`Scripted`](test_util/struct.Scripted.html).
//!
//! Guides:
//! [choosing a release and a timer](docs/setup/index.html),
//! [reading errors and events](docs/errors_and_events/index.html),
//! [streams](docs/streams/index.html),
//! [settings for single calls](docs/recipes/index.html),
//! [rate limits](docs/rate_limits/index.html),
//! [a second provider](docs/fallback/index.html),
//! [testing your own code](docs/testing/index.html),
//! [in a browser](docs/browser/index.html), coming from
//! [crabllm-core's wrapper](docs/from_crabllm_core/index.html) or from
//! [backon or reqwest-retry](docs/from_other_crates/index.html).
//!
//! # Semantics
//!
//! An *attempt* polls the inner future first. If that is pending, it races a timer; if
//! both are ready, the inner future wins. If the timer wins, the inner future is dropped
//! and the attempt fails with `Error::Timeout`.
//!
//! A failed attempt is followed by another one if the error is transient, the policy
//! retries the operation, and retries, deadline and budget allow it; otherwise the
//! call returns that error unchanged, without a further sleep. The delay is the
//! backoff's or, if that is longer, the one that the server requests, spread by up to a
//! quarter and at most 5 s. If the server requests more than
//! [`Policy::max_retry_after`], the error is returned at once.
//!
//! With a [`RateLimiter`], attempts for a model that was throttled wait for their turn, at
//! a rate that all calls learn together, until the deadline at most.
//!
//! A stream that is retried is returned at its first content; a failure before that is a
//! failed attempt, and after that nothing is retried. A returned stream is passed through
//! item by item. If it is silent for longer than [`Policy::stream_idle`], it ends with
//! `Error::Timeout`; a stream of bytes ends with a `std::io::Error` of kind `TimedOut` that
//! contains it.
//!
//! | operations | timeout | retried |
//! | --- | --- | --- |
//! | `chat_completion`, `anthropic_messages`, `gemini_generate_content`, their `_raw` variants, `complete` | yes | yes |
//! | streams, until their first content | of the opening | [on request](Operations::STREAMS) |
//! | `chat_completion_stream_passthrough` | of the opening | never: its body is consumed |
//! | `embedding`, `image_generation`, `audio_speech`, `audio_transcription`, `models` | if retried | on request |
//! | [`Operation::Other`], for [`Retrying::call`] and [`Retrying::open`] | yes | yes |
//!
//! A [deadline](Policy::deadline) limits all of them. Dropping a call drops the inner
//! future and cancels its timer at once.
//!
//! # Implementation
//!
//! A call is one future: a loop over attempts and the delays between them, and one pure
//! function that decides about each failure. The loop depends neither on `crabllm-core`
//! nor on a runtime. It serves [`Retrying::call`] and the methods of `Provider`, which are
//! generated from one table of releases.
//!
//! If the timer [allows it](Timer::is_shareable), as `FuturesTimer` and `AsyncIoTimer`
//! do, all calls and open streams of a wrapper and its clones share one sleep of the
//! timer crate. Their deadlines are kept in a list, and the sleep is for the earliest one.
//! So the sleep's allocation and the wake of the timer's thread happen once per timeout,
//! not once per call, and the timer crate never holds the waker of a call. Dropping a call
//! removes its entry at once; the shared sleep may still run to its end.
//!
//! This crate has no thread, task or global of its own. The only threads are those of
//! the timer crates: `futures-timer` keeps one helper thread for the process,
//! `async-io` its reactor.
//!
//! # Stability
//!
//! In 0.1.x nothing public is removed or renamed, and no default changes. Exceptions are
//! the texts of `Display` and `Debug`, the fields of `trace`, which follow
//! OpenTelemetry's conventions, the rules of [`hints`], which follow the vendors, and
//! the sets `CHAT`, `STREAMS` and `ALL` of [`Operations`], which include the new methods
//! of new releases.
//!
//! Types that may grow are `non_exhaustive`. [`Failure`] and [`Timer`] may get methods
//! that have a default. The API shows types of std, crabllm-core, `bytes::Bytes`,
//! futures' `BoxStream`, in browsers `web_time::Instant`, and serde's traits with that
//! feature. A new release of crabllm-core becomes a new feature. A new minor version is
//! needed to drop a release, to change the default one or to require a newer Rust; the
//! changelog of an earlier version announces it.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `crabllm-core-0_0_19` | yes | `Provider` of crabllm-core 0.0.19, the newest release that does not depend on tokio |
//! | `crabllm-core-0_0_15` … `-0_0_18`, `-0_0_21` … `-0_0_25` | no | the same for each other release (there is no 0.0.20). From 0.0.21 on crabllm-core depends on tokio, which is compiled but not used by the wrapper |
//! | `futures-timer` | yes | `FuturesTimer` and `Retrying::new` |
//! | `async-io` | no | `AsyncIoTimer`: the timers of the reactor that smol and async-std already run |
//! | `serde` | no | `Config`, `Policy`, `Backoff`, `Jitter` and `Operations` from a configuration file |
//! | `tracing` | no | `trace`: an observer that emits `tracing` events |
//! | `test-util` | no | `test_util`: `VirtualTimer` and `Scripted`, for tests |
//!
//! [`crabllm`]: https://docs.rs/crabllm-core

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, rust_2018_idioms)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
#[cfg(feature = "serde")]
mod config;
#[cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "serde",
    feature = "test-util",
    feature = "tracing"
))]
pub mod docs;
mod event;
mod failure;
#[cfg(feature = "_provider")]
mod fallback;
pub mod hints;
mod limits;
mod policy;
#[cfg(feature = "_provider")]
mod provider;
#[cfg(feature = "_provider")]
mod raw_body;
mod retrying;
#[cfg(feature = "test-util")]
pub mod test_util;
mod timer;

#[cfg(feature = "serde")]
pub use config::Config;
#[cfg(feature = "tracing")]
pub use event::trace;
pub use event::{DelaySource, Event, GiveUpReason};
pub use failure::Failure;
#[cfg(feature = "_provider")]
pub use fallback::Fallback;
pub use limits::{RateLimiter, RetryBudget};
pub use policy::{Backoff, Jitter, NotRetryable, Operation, Operations, Policy};
pub use retrying::Retrying;
#[cfg(feature = "async-io")]
pub use timer::{AsyncIoSleep, AsyncIoTimer};
pub use timer::{FnSleep, Instant, Timer};
#[cfg(feature = "futures-timer")]
pub use timer::{FuturesSleep, FuturesTimer};

#[cfg(feature = "_provider")]
pub use provider::exports::*;

/// Tests the code in the README.
#[cfg(all(
    doctest,
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer"
))]
#[doc = include_str!("../README.md")]
mod readme {}
