//! Every method of the `Provider` trait, called by its name.

#[cfg(feature = "crabllm-core-0_0_19")]
pub mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
pub mod crabllm_core_0_0_25;

/// The answer of a method that opens no stream.
fn whole<A, I>(_: A) -> Option<I> {
    None
}
