//! The model against each enabled release of crabllm-core.

use crate::{coverage, methods::releases};

macro_rules! release {
    ($release:ident $feature:literal $methods:ident $errors:ident $types:ident) => {
        #[cfg(feature = $feature)]
        mod $release {
            use crate::methods::$release::ThisRelease;

            /// Since 0.0.21 errors carry a retry-after.
            fn has_hints() -> bool {
                stringify!($errors) != "internal"
            }

            #[test]
            fn random_calls_go_as_the_contract_says() {
                crate::random_calls_go_as_the_contract_says::<ThisRelease>(has_hints());
            }

            #[test]
            fn random_cases_reach_every_situation() {
                super::coverage::random_cases_reach_every_situation::<ThisRelease>(has_hints());
            }
        }
    };
}

releases! { release }
