//! The model against crabllm-core 0.0.19.

use crate::{
    case::Fault,
    methods::crabllm_core_0_0_19::{METHODS, call},
    run::{Items, Release, Wrapper},
};
use crabllm_retry::{Operation, crabllm_core_0_0_19::Error};

struct ThisRelease;

impl Release for ThisRelease {
    type Error = Error;

    const METHODS: &'static [Operation] = &METHODS;
    const HINTS: bool = false;

    fn call(
        retrying: &Wrapper,
        method: Operation,
    ) -> impl Future<Output = Result<Option<Items<Error>>, Error>> {
        call(retrying, method)
    }

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

crate::claims!();
