//! Every method of the trait is forwarded, in each release. The model in `tests/model` checks
//! that each is timed and retried by its class.

#![cfg(feature = "test-util")]

#[path = "../common/methods/mod.rs"]
mod methods;

mod fallback;
mod recorder;

use crabllm_retry::{Fallback, Operation, Operations, Retrying, test_util::VirtualTimer};
use futures::executor::block_on;
use methods::{Calls, releases};
use recorder::{Recorded, Recorder, Speaks};

/// A test for each claim about a release.
macro_rules! release {
    ($release:ident $feature:literal $($columns:ident)*) => {
        #[cfg(feature = $feature)]
        mod $release {
            use crate::methods::$release::ThisRelease;

            #[test]
            fn every_attempt_reaches_the_inner_providers_own_method_with_the_callers_arguments() {
                crate::every_attempt_is_forwarded::<ThisRelease>();
            }

            #[test]
            fn an_operation_that_is_not_implemented_is_never_retried() {
                crate::an_operation_that_is_not_implemented_is_never_retried::<ThisRelease>();
            }

            #[test]
            fn the_dialects_are_the_inner_providers_own() {
                crate::the_dialects_are_the_inner_providers_own::<ThisRelease>();
            }

            #[test]
            fn a_call_that_falls_is_the_same_under_the_other_name() {
                crate::fallback::a_call_that_falls_is_the_same::<ThisRelease>();
            }

            #[test]
            fn a_missing_operation_falls_unless_both_lack_it() {
                crate::fallback::a_missing_operation_falls::<ThisRelease>();
            }
        }
    };
}

/// The claims about each enabled release.
mod of {
    use super::*;

    releases! { release }
}

fn retrying(inner: Recorder) -> Recorded {
    Retrying::with_timer(inner, VirtualTimer::new()).retry(Operations::ALL)
}

fn every_attempt_is_forwarded<R: Calls<Recorder> + Calls<Recorded>>() {
    for &method in R::METHODS {
        let bare = Recorder::default();
        assert!(block_on(R::call(&bare, method)).is_err());
        let [asked] = <[_; 1]>::try_from(bare.asked()).unwrap();

        let retrying = retrying(Recorder::default());
        assert!(block_on(R::call(&retrying, method)).is_err());
        // A passthrough has no argument left for another attempt.
        let once = method == Operation::ChatCompletionStreamPassthrough;
        let expected = vec![asked; if once { 1 } else { 3 }];
        assert_eq!(retrying.get_ref().asked(), expected, "{method}");
    }
}

fn an_operation_that_is_not_implemented_is_never_retried<R: Calls<Recorded>>() {
    for &method in R::METHODS {
        let retrying = retrying(Recorder::unimplemented()).retry_if(|_| true);
        assert!(block_on(R::call(&retrying, method)).is_err());
        assert_eq!(retrying.get_ref().asked().len(), 1, "{method}");
    }
}

fn the_dialects_are_the_inner_providers_own<R: Speaks>() {
    for (spoken, ..) in R::DIALECTS {
        let retrying = retrying(Recorder::speaking(spoken));
        for (dialect, speaks, both_speak) in R::DIALECTS {
            assert_eq!(speaks(&retrying), dialect == spoken, "{dialect}, {spoken}");
            for sides in [[*spoken, *spoken], [spoken, ""], ["", spoken]] {
                let [first, second] = sides.map(Recorder::speaking);
                let both = dialect == spoken && sides[0] == sides[1];
                assert_eq!(both_speak(&Fallback::new(first, second)), both, "{sides:?}");
            }
        }
    }
}
