//! The model against each enabled release of crabllm-core.

use crate::{coverage, methods::releases};

macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use crate::methods::$release::ThisRelease;

            const HINTS: bool = errors_carry_a_retry_after!($errors);

            #[test]
            fn random_calls_go_as_the_contract_says() {
                crate::random_calls_go_as_the_contract_says::<ThisRelease>(HINTS);
            }

            #[test]
            fn random_cases_reach_every_situation() {
                super::coverage::random_cases_reach_every_situation::<ThisRelease>(HINTS);
            }
        }
    };
}

macro_rules! errors_carry_a_retry_after {
    (internal) => {
        false
    };
    ($since_0_0_21:ident) => {
        true
    };
}

releases! { release }
