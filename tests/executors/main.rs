//! One script of behaviour on every executor, with every timer.
//!
//! In virtual time the trace is that of `script::EXPECTED`, to the nanosecond.
//! In real time the same things happen in the same order, and none too early.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util",
    any(
        feature = "async-io",
        all(target_family = "wasm", target_os = "unknown")
    )
))]

#[path = "../common/mod.rs"]
mod common;
mod script;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod executors;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod matrix;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod web;
