//! The model against crabllm-core 0.0.25.

use crate::{case::CaseError, methods::crabllm_core_0_0_25::ThisRelease, run::Subject};
use crabllm_retry::crabllm_core_0_0_25::Error;

impl Subject for ThisRelease {
    const HINTS: bool = true;

    fn fault(error: &Error) -> CaseError {
        match error {
            Error::Provider {
                status,
                body,
                retry_after,
            } => CaseError::Status {
                status: *status,
                body: body.clone(),
                retry_after: *retry_after,
            },
            Error::Network(_) => CaseError::Disconnect,
            Error::Config(_) => CaseError::Invalid,
            Error::Timeout => CaseError::Timeout,
            other => panic!("not scripted: {other}"),
        }
    }
}

crate::claims!(ThisRelease);
