//! Every method of the trait is forwarded, in each release.

#![cfg(feature = "test-util")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/methods/mod.rs"]
mod methods;

mod claims;
mod recorder;

#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;

use methods::releases;

macro_rules! release {
    ($release:ident $feature:literal $($columns:ident)*) => {
        #[cfg(feature = $feature)]
        mod $release {
            crate::claims::tests!(crate::methods::$release::ThisRelease);
        }
    };
}

/// The claims about each enabled release.
mod of {
    use super::*;

    releases! { release }
}
