//! The claims about every method, for any release. The model in `tests/model` checks that
//! each is timed and retried by its class.

use crate::{
    common::{Scene, Wrapper, block_on, plain},
    methods::Calls,
    recorder::{Recorded, Recorder, Speaks},
};
use crabllm_retry::{Operation, Operations, Retrying, test_util::VirtualTimer};

/// A test for each claim about a release.
macro_rules! tests {
    ($release:ty) => {
        crate::claims::tests! { $release:
            every_method_reaches_the_inner_providers_own
            every_attempt_is_given_the_callers_arguments
            an_operation_that_is_not_implemented_is_never_retried
            the_dialects_are_the_inner_providers_own
        }
    };
    ($release:ty: $($claim:ident)*) => {
        $(
            #[test]
            fn $claim() {
                crate::claims::$claim::<$release>();
            }
        )*
    };
}

pub(crate) use tests;

pub fn every_method_reaches_the_inner_providers_own<R: Calls<Wrapper>>() {
    for &method in R::METHODS {
        let scene = Scene::new([]);
        block_on(R::call(&scene.retrying, method)).unwrap();
        let attempts = scene.scripted.attempts();
        let called: Vec<_> = attempts.iter().map(|a| a.operation).collect();
        assert_eq!(called, [method]);
    }
}

pub fn every_attempt_is_given_the_callers_arguments<R: Calls<Recorder> + Calls<Recorded>>() {
    for &method in R::METHODS {
        let bare = Recorder::default();
        assert!(block_on(R::call(&bare, method)).is_err());
        let [asked] = <[_; 1]>::try_from(bare.asked()).unwrap();

        let retrying = Retrying::with_timer(Recorder::default(), VirtualTimer::new())
            .policy(plain().retry(Operations::ALL));
        assert!(block_on(R::call(&retrying, method)).is_err());
        // A passthrough has no argument left for another attempt.
        let once = method == Operation::ChatCompletionStreamPassthrough;
        let expected = vec![asked; if once { 1 } else { 3 }];
        assert_eq!(retrying.get_ref().asked(), expected, "{method}");
    }
}

pub fn an_operation_that_is_not_implemented_is_never_retried<R: Calls<Recorded>>() {
    for &method in R::METHODS {
        let retrying = Retrying::with_timer(Recorder::unimplemented(), VirtualTimer::new())
            .policy(plain().retry(Operations::ALL))
            .retry_if(|_| true);
        assert!(block_on(R::call(&retrying, method)).is_err());
        assert_eq!(retrying.get_ref().asked().len(), 1, "{method}");
    }
}

pub fn the_dialects_are_the_inner_providers_own<R: Speaks>() {
    for (spoken, _) in R::DIALECTS {
        let retrying = Retrying::with_timer(Recorder::speaking(spoken), VirtualTimer::new());
        for (dialect, speaks) in R::DIALECTS {
            assert_eq!(speaks(&retrying), dialect == spoken, "{dialect}, {spoken}");
        }
    }
}
