//! The model against the oldest release, the default one and the newest.

use crate::{case::CaseError, coverage, run::Subject};

/// The tests of a release: its feature, whether its errors carry a retry-after, and
/// its error of a lost connection.
macro_rules! release {
    ($release:ident $feature:literal $hints:literal $disconnect:ident |$error:ident| $retry_after:expr) => {
        #[cfg(feature = $feature)]
        mod $release {
            use super::*;
            use crate::methods::$release::ThisRelease;
            use crabllm_retry::$release::Error;

            impl Subject for ThisRelease {
                const HINTS: bool = $hints;

                fn case_error($error: &Error) -> CaseError {
                    match $error {
                        Error::Provider { status, body, .. } => CaseError::Status {
                            status: *status,
                            body: body.clone(),
                            retry_after: $retry_after,
                        },
                        Error::$disconnect(_) => CaseError::Disconnect,
                        Error::Config(_) => CaseError::Invalid,
                        Error::Timeout => CaseError::Timeout,
                        other => panic!("not scripted: {other}"),
                    }
                }
            }

            #[test]
            fn random_calls_go_as_the_contract_says() {
                crate::random_calls_go_as_the_contract_says::<ThisRelease>();
            }

            #[test]
            fn random_cases_reach_every_situation() {
                coverage::random_cases_reach_every_situation::<ThisRelease>();
            }
        }
    };
}

release! { crabllm_core_0_0_15 "crabllm-core-0_0_15" false Internal |error| None }
release! { crabllm_core_0_0_19 "crabllm-core-0_0_19" false Internal |error| None }
release! { crabllm_core_0_0_25 "crabllm-core-0_0_25" true Network |error| error.retry_after() }
