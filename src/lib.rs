//! Retries and timeouts for [`crabllm`] providers, on any async executor and
//! without tokio.
//!
//! Wrap a provider, and its transient failures are retried with jittered
//! exponential backoff, each attempt limited by a timeout:
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
//! [`recommended`](Retrying::recommended) is our choice for production. Without it the
//! values are those of crabllm-core's own wrapper, which are small: two retries within
//! 0.3 s, and 30 s for each attempt.
//!
//! The same code runs on smol, async-std, tokio, a game engine's executor, or
//! none: the wrapper spawns nothing and enters no runtime.
//!
//! # A tour
//!
//! * [`Retrying`] is the wrapper. It implements the `Provider` trait of each enabled
//!   `crabllm-core` release for any inner provider that does, and serves other clients
//!   with [`Retrying::call`] and [`Retrying::open`].
//! * [`Policy`] sets the number of retries, the limits of time and
//!   [which operations](Operations) are retried; [`Backoff`] and [`Jitter`] set the
//!   delays. A [`RetryBudget`], shared by many calls, keeps retries from adding to an
//!   outage.
//! * [`Timer`] is where time comes from: `FuturesTimer` by default, `AsyncIoTimer` if
//!   that reactor runs anyway, or any closure that sleeps.
//! * [`Failure`] is what the wrapper asks of an error. Callbacks receive it to decide
//!   [what is transient](Retrying::retry_if) and
//!   [how long to wait](Retrying::retry_after). [`hints`] knows the rules of vendors and
//!   the delays that servers write into errors.
//! * [`Event`] is what an [observer](Retrying::observe) receives; `trace` is an
//!   observer that emits `tracing` events.
//! * `test_util` has a virtual clock and a scripted provider, for tests that do not
//!   wait.
//!
//! # Semantics
//!
//! An *attempt* polls the inner future first. If it is pending, a timer is made and
//! the two race, the inner future first in each poll. If the timeout wins, the inner
//! future is dropped and the attempt fails with `Error::Timeout`.
//!
//! A failed attempt is followed by another one if the error is transient, the policy
//! retries the operation, and retries, deadline and budget allow it; otherwise the
//! call returns that very error. There is no sleep after the last attempt. The delay
//! is the backoff's, or the one that the server asked for if that is longer, spread by
//! up to a quarter and 5 s; if it is longer than [`Policy::max_retry_after`], the error
//! is returned at once.
//!
//! An open stream is passed through item by item. If it is silent for longer than
//! [`Policy::stream_idle`], it ends with `Error::Timeout`; a stream of bytes, whose
//! errors are `std::io::Error`, with one of the kind `TimedOut` around it.
//!
//! | operations | timeout | retried |
//! | --- | --- | --- |
//! | `chat_completion`, `anthropic_messages`, `gemini_generate_content`, their `_raw` twins, `complete` | yes | yes |
//! | opening a stream | yes | [on request](Operations::STREAMS) |
//! | `chat_completion_stream_passthrough` | yes | never: its body is consumed |
//! | `embedding`, `image_generation`, `audio_speech`, `audio_transcription`, `models` | if retried | on request |
//!
//! A [deadline](Policy::deadline) limits all of them. Dropping a call drops the inner
//! future and cancels its timer at once.
//!
//! # Implementation
//!
//! A call is one future: attempts, the delays between them, and one pure function
//! that decides about each failure. That loop knows neither `crabllm-core` nor a
//! runtime. The methods of `Provider`, which come from one table of releases, and
//! [`Retrying::call`] hand it what to attempt.
//!
//! If the timer [allows it](Timer::is_shareable), as `FuturesTimer` and `AsyncIoTimer`
//! do, all calls and open streams of a wrapper and its clones share one sleep of the
//! timer crate: their deadlines wait in a list, and the sleep is for the earliest. So
//! there is an allocation and a wake of the timer's thread once per timeout, not once
//! per call, and no waker of a call is in the hands of the timer crate. Dropping a
//! call removes its entry at once; the shared sleep may run out with nobody waiting.
//!
//! This crate has no thread, task or global of its own. The only threads are those of
//! the timer crates: `futures-timer` keeps one helper thread for the process,
//! `async-io` its reactor.
//!
//! # In a browser
//!
//! On `wasm32-unknown-unknown` the clock is the page's, through `web-time`, which is
//! where [`Instant`] comes from there. `FuturesTimer` uses the page's timers, which
//! count whole milliseconds and may end early; it rounds up, goes by the clock, and
//! waits again until its time. Providers must be `Send` there too: wrap values that
//! are not in `send_wrapper`'s `SendWrapper`. The features `async-io` and those of
//! releases from 0.0.21 on do not compile there.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `crabllm-core-0_0_19` | yes | `Provider` of crabllm-core 0.0.19, the newest release that does not depend on tokio |
//! | `crabllm-core-0_0_15` … `-0_0_18`, `-0_0_21` … `-0_0_25` | no | the same for each other release (there is no 0.0.20). From 0.0.21 on crabllm-core depends on tokio, which is compiled and never entered |
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
mod event;
mod failure;
pub mod hints;
mod limits;
mod policy;
#[cfg(feature = "_provider")]
mod provider;
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
pub use limits::RetryBudget;
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
