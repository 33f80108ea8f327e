//! The `Provider` trait of each supported `crabllm-core` release: one adapter
//! for each, which hands every method to the engine.

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
