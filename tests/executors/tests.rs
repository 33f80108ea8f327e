//! One script of behavior on every executor, with every timer.
//!
//! In virtual time the trace is `script::EXPECTED`, to the nanosecond. In real time the
//! same things happen in the same order, and none too early.

mod script;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod executors;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod matrix;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod web;
