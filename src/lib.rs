//! Retries and timeouts for [`crabllm`] providers, on any async executor and
//! without tokio.
//!
//! Wrap a provider, and its transient failures are retried with jittered
//! exponential backoff, each attempt bounded by a timeout:
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
//!     let provider = Retrying::new(provider);
//!     let answer = provider.chat_completion(request).await?;
//!     Ok(answer.content().unwrap_or_default().to_owned())
//! }
//! # use crabllm_retry::{FuturesTimer, Scripted, Step, crabllm_core_0_0_19::json};
//! # let request: ChatCompletionRequest = json::from_str(r#"{"model": "m", "messages": []}"#)?;
//! # let provider = Scripted::new(FuturesTimer, [Step::status(503)]);
//! # futures::executor::block_on(ask(provider.clone(), &request))?;
//! # assert_eq!(provider.attempts().len(), 2);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same code runs on smol, async-std, tokio, a game engine's executor, or
//! none: the wrapper spawns nothing and enters no runtime.
//!
//! # A tour
//!
//! * [`Retrying`] is the wrapper. It implements the `Provider` trait of each
//!   enabled `crabllm-core` release for any inner provider that does.
//! * [`Policy`] says how often, how long and [which operations](Operations);
//!   [`Backoff`] and [`Jitter`] how to wait in between; a [`RetryBudget`],
//!   shared by many calls, keeps retries from adding to an outage.
//! * [`Timer`] is where time comes from: `FuturesTimer` by default,
//!   `AsyncIoTimer` where that reactor runs anyway, or any closure that sleeps.
//! * [`Failure`] is what the wrapper asks of an error. Hooks get it to decide
//!   [what is transient](Retrying::retry_if) and
//!   [how long to wait](Retrying::retry_after).
//! * `vendor` has two such hooks, after the rules of the vendors' own SDKs and
//!   the waits that their servers write into errors.
//! * [`Event`] is what an [observer](Retrying::observe) is told; `trace` is a
//!   ready one, which emits `tracing` events.
//! * `VirtualTimer` and `Scripted` test all of it without waiting.
//!
//! # What a call does
//!
//! An *attempt* polls the inner future first. Only if it is not ready at once
//! is a timer made, and the two race, the inner future first in each poll. When
//! the timeout wins, the inner future is dropped and the attempt has failed
//! with `Error::Timeout`.
//!
//! A failed attempt is followed by another one if the error is transient, the
//! operation is one that the policy retries, and retries, deadline and budget
//! allow it; otherwise the call returns that very error. There is no sleep
//! after the last attempt. The delay is the backoff's, or what the server asked
//! for if that is longer; if it is longer than [`Policy::max_retry_after`], the
//! error is returned at once.
//!
//! An open stream is passed through item by item. A wait for the next item that
//! lasts longer than [`Policy::stream_idle`] ends it with `Error::Timeout`; a
//! stream of bytes, whose errors are `std::io::Error`, with one of the kind
//! `TimedOut` around that.
//!
//! | operations | timeout | retried |
//! | --- | --- | --- |
//! | `chat_completion`, `anthropic_messages`, `gemini_generate_content`, their `_raw` twins, `complete` | yes | yes |
//! | opening a stream | yes | if [asked for](Operations::STREAMS) |
//! | `chat_completion_stream_passthrough` | yes | never: its body is consumed |
//! | `embedding`, `image_generation`, `audio_speech`, `audio_transcription`, `models` | if retried | if asked for |
//!
//! A [deadline](Policy::deadline) bounds all of them.
//!
//! # Architecture
//!
//! A call is one future: the attempts one after the other, the delays in
//! between, and one pure function that decides what to do about a failure.
//!
//! ```text
//!    provider.chat_completion(&request)
//!                 │
//!                 ▼
//!  ┌──────►  an attempt: the inner provider's own chat_completion
//!  │              │ polled first
//!  │              ├── ready at once ─────────────────────────┐
//!  │              │ pending                                  │
//!  │              ▼                                          │
//!  │         select(inner future, its timeout)               │
//!  │              │                    │                     │
//!  │              │ answer             │ timeout             │
//!  │              ├────────────────────│─────────────────────┘
//!  │              ▼                    ▼
//!  │         Ok  or  Err           Error::Timeout, the inner future is dropped
//!  │          │       │                │
//!  │          │       └────┬───────────┘
//!  │          │            ▼
//!  │          │         decide: policy, hooks, what the server asks for,
//!  │          │            │     deadline, budget
//!  │          │            ├── give up ──► that very error
//!  │          │            │ retry
//!  │          ▼            ▼
//!  │        the answer   the delay, on the same timer
//!  └───────────────────────┘
//! ```
//!
//! The observer is told of each retry and of the end. Dropping the call,
//! wherever it is, drops the inner future and cancels its timer.
//!
//! Each file has one subject, and the arrows between them point one way. The
//! adapters, one for each release of `crabllm-core`, give each method's future
//! to `call`, the loop; that knows neither `crabllm-core` nor a runtime. It is
//! made of `attempt`, `decision`, `backoff`, `budget`, `hooks`, and the `timeout`
//! of each attempt; `stream` is what becomes of an answer that is one.
//!
//! The calls of a wrapper and its clones share one sleep of the timer crate for
//! all their timeouts, where the timer [allows it](Timer::is_shareable), as
//! `FuturesTimer` and `AsyncIoTimer` do: in `deadlines`, the ends of the timeouts
//! wait in a list, and the sleep is for the first of them. So only once a
//! timeout, not once a call, there is an allocation and a wake of the thread
//! that keeps the timers. Dropping a call takes its entry out at once; the
//! shared sleep may run out for nobody. Open streams that wait are in that list
//! too.
//!
//! There is no thread, task or global of this crate's own; the only threads are
//! those of the timer crates: `futures-timer` keeps one helper for the process,
//! `async-io` its reactor.
//!
//! # In a browser
//!
//! On `wasm32-unknown-unknown` the clock is the page's, by way of `web-time`:
//! that is what [`Instant`] is there. `FuturesTimer` waits by the page's timers,
//! which count whole milliseconds and may end early; it rounds up, goes by the
//! clock and waits on. Providers must be `Send` there too; `send_wrapper` lets
//! through what belongs to a page's one thread. The features `async-io` and
//! `crabllm-core-0_0_25` do not compile there.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `crabllm-core-0_0_19` | yes | `Provider` of crabllm-core 0.0.19, the last release that does not depend on tokio |
//! | `crabllm-core-0_0_25` | no | `Provider` of crabllm-core 0.0.25, the newest release in November 2026; it depends on tokio, which is compiled and never entered |
//! | `futures-timer` | yes | `FuturesTimer` and `Retrying::new` |
//! | `async-io` | no | `AsyncIoTimer`: the timers of the reactor that smol and async-std already run |
//! | `serde` | no | `Policy`, `Backoff`, `Jitter` and `Operations` from a configuration file |
//! | `tracing` | no | `trace`: an observer that emits `tracing` events |
//! | `test-util` | no | `VirtualTimer` and `Scripted`, for tests |
//!
//! [`crabllm`]: https://docs.rs/crabllm-core

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, rust_2018_idioms)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without an adapter nothing calls the engine.
#![cfg_attr(
    not(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25")),
    allow(dead_code)
)]

mod attempt;
mod backoff;
mod budget;
mod call;
#[cfg(feature = "serde")]
mod config;
mod deadlines;
mod decision;
mod event;
mod failure;
mod hooks;
mod operation;
mod policy;
#[cfg(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25"))]
mod provider;
mod retrying;
#[cfg(feature = "test-util")]
mod scripted;
mod stream;
mod timeout;
mod timer;
#[cfg(feature = "tracing")]
mod trace;
#[cfg(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25"))]
pub mod vendor;

pub use backoff::{Backoff, Jitter};
pub use budget::RetryBudget;
pub use event::{DelaySource, Event, GiveUpReason};
pub use failure::Failure;
pub use operation::{NotRetryable, Operation, Operations};
pub use policy::Policy;
pub use retrying::Retrying;
#[cfg(feature = "test-util")]
pub use scripted::{Scripted, ScriptedAttempt, Step};
#[cfg(feature = "async-io")]
pub use timer::{AsyncIoSleep, AsyncIoTimer};
#[cfg(feature = "futures-timer")]
pub use timer::{FuturesSleep, FuturesTimer};
pub use timer::{Instant, Timer};
#[cfg(feature = "test-util")]
pub use timer::{VirtualSleep, VirtualTask, VirtualTimer};
#[cfg(feature = "tracing")]
pub use trace::trace;

#[cfg(feature = "crabllm-core-0_0_19")]
pub use crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
pub use crabllm_core_0_0_25;

/// The code in the README is tested like that in the docs.
#[cfg(all(
    doctest,
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer"
))]
#[doc = include_str!("../README.md")]
mod readme {}
