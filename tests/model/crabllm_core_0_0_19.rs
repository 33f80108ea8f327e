//! The model against crabllm-core 0.0.19.

use crate::{case::Fault, methods::crabllm_core_0_0_19::ThisRelease, run::Subject};
use crabllm_retry::crabllm_core_0_0_19::Error;

impl Subject for ThisRelease {
    const HINTS: bool = false;

    fn fault(error: &Error) -> Fault {
        match error {
            Error::Provider { status, body } => Fault::Status {
                status: *status,
                body: body.clone(),
                retry_after: None,
            },
            Error::Internal(_) => Fault::Disconnect,
            Error::Config(_) => Fault::Invalid,
            Error::Timeout => Fault::Timeout,
            other => panic!("not scripted: {other}"),
        }
    }
}

crate::claims!(ThisRelease);
