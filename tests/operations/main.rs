//! Every method of the trait, in each release: forwarded, and classed as the
//! contract says.

#![cfg(feature = "test-util")]
#![cfg(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/methods/mod.rs"]
mod methods;

mod claims;
mod recorder;

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;
