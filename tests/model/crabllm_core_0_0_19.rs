//! The model against crabllm-core 0.0.19.

use crate::{case::CaseError, methods::crabllm_core_0_0_19::ThisRelease, run::Subject};
use crabllm_retry::crabllm_core_0_0_19::Error;

impl Subject for ThisRelease {
    const HINTS: bool = false;

    fn fault(error: &Error) -> CaseError {
        match error {
            Error::Provider { status, body } => CaseError::Status {
                status: *status,
                body: body.clone(),
                retry_after: None,
            },
            Error::Internal(_) => CaseError::Disconnect,
            Error::Config(_) => CaseError::Invalid,
            Error::Timeout => CaseError::Timeout,
            other => panic!("not scripted: {other}"),
        }
    }
}

crate::claims!(ThisRelease);
