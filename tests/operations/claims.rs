//! The claims about every method, for any release.

use crate::{
    common::{Scene, Wrapper, block_on, plain},
    methods::Calls,
    recorder::{Recorded, Recorder, Speaks},
};
use crabllm_retry::{
    Operation, Operations, Retrying,
    test_util::{Step, VirtualTimer},
};
use futures::future::FutureExt;
use std::sync::{Arc, Mutex};

/// A test for each claim about a release.
macro_rules! tests {
    ($release:ty) => {
        crate::claims::tests! { $release:
            every_method_reaches_the_inner_providers_own
            every_attempt_is_given_the_callers_arguments
            by_default_chats_are_retried_and_streams_only_timed
            what_is_asked_for_is_retried_and_timed
            what_is_not_asked_for_is_not_retried
            what_is_not_implemented_is_never_retried
            every_event_names_its_call_the_method_and_the_model
            the_policy_for_a_model_is_that_of_calls_which_name_it
            the_inner_providers_dialects_show_through
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

/// How many attempts a failing operation gets, and whether it is timed.
#[derive(Debug, PartialEq)]
struct Treatment {
    attempts: usize,
    timed: bool,
}

/// The treatment by a policy of two retries that says nothing of operations.
fn by_default(operation: Operation) -> Treatment {
    use Operation::*;
    let (attempts, timed) = match operation {
        ChatCompletion
        | ChatCompletionRaw
        | AnthropicMessages
        | AnthropicMessagesRaw
        | GeminiGenerateContent
        | GeminiGenerateContentRaw
        | Complete => (3, true),
        Embedding | ImageGeneration | AudioSpeech | AudioTranscription | Models => (1, false),
        _ => (1, true),
    };
    Treatment { attempts, timed }
}

/// The same where all operations are asked for.
fn asked_for(operation: Operation) -> Treatment {
    let once = operation == Operation::ChatCompletionStreamPassthrough;
    Treatment {
        attempts: if once { 1 } else { 3 },
        timed: true,
    }
}

/// The model that events name, when the request asks for "m".
fn model(operation: Operation) -> Option<&'static str> {
    (operation != Operation::Models).then_some("m")
}

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
        let expected = vec![asked; asked_for(method).attempts];
        assert_eq!(retrying.get_ref().asked(), expected, "{method}");
    }
}

fn treatment<R: Calls<Wrapper>>(method: Operation, retry: Operations) -> Treatment {
    let scene =
        Scene::new((0..9).map(|_| Step::status(503))).set(|r| r.policy(plain().retry(retry)));
    assert!(block_on(R::call(&scene.retrying, method)).is_err());

    let hanging = Scene::by_hand([Step::hang()]).set(|r| r.policy(plain().retry(retry)));
    assert!(R::call(&hanging.retrying, method).now_or_never().is_none());
    Treatment {
        attempts: scene.attempts(),
        timed: !hanging.sleeps.asked().is_empty(),
    }
}

pub fn by_default_chats_are_retried_and_streams_only_timed<R: Calls<Wrapper>>() {
    for &method in R::METHODS {
        let treated = treatment::<R>(method, plain().retry);
        assert_eq!(treated, by_default(method), "{method}");
    }
}

pub fn what_is_asked_for_is_retried_and_timed<R: Calls<Wrapper>>() {
    for &method in R::METHODS {
        let expected = asked_for(method);
        let treated = treatment::<R>(method, Operations::ALL);
        assert_eq!(treated, expected, "{method}");
        if let Ok(only) = Operations::try_from(method) {
            assert_eq!(treatment::<R>(method, only), expected, "{method}");
        }
    }
}

pub fn what_is_not_asked_for_is_not_retried<R: Calls<Wrapper>>() {
    for &method in R::METHODS {
        let treated = treatment::<R>(method, Operations::NONE);
        assert_eq!(treated.attempts, 1, "{method}");
    }
}

pub fn what_is_not_implemented_is_never_retried<R: Calls<Recorded>>() {
    for &method in R::METHODS {
        let retrying = Retrying::with_timer(Recorder::unimplemented(), VirtualTimer::new())
            .policy(plain().retry(Operations::ALL))
            .retry_if(|_| true);
        assert!(block_on(R::call(&retrying, method)).is_err());
        assert_eq!(retrying.get_ref().asked().len(), 1, "{method}");
    }
}

pub fn every_event_names_its_call_the_method_and_the_model<R: Calls<Wrapper>>() {
    for &method in R::METHODS {
        let named = model(method);
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let script = [Step::status(503), Step::ok(), Step::invalid()];
        let scene = Scene::new(script).set(|r| {
            let policy = plain().retry(Operations::ALL);
            r.policy(policy).observe(move |event| {
                assert_eq!((event.operation(), event.model()), (method, named));
                log.lock().unwrap().push((event.call(), event.attempt()));
            })
        });
        for _ in 0..3 {
            let _ = block_on(R::call(&scene.retrying, method));
        }
        // A start and an end for each call, and for a retry its announcement.
        let retried = asked_for(method).attempts > 1;
        let first: &[_] = match retried {
            true => &[(1, 1), (1, 1), (1, 2), (1, 2)],
            false => &[(1, 1), (1, 1)],
        };
        let expected = [first, &[(2, 1), (2, 1), (3, 1), (3, 1)]].concat();
        assert_eq!(*told.lock().unwrap(), expected, "{method}");
    }
}

pub fn the_policy_for_a_model_is_that_of_calls_which_name_it<R: Calls<Wrapper>>() {
    let general = || plain().retry(Operations::ALL);
    for &method in R::METHODS {
        let attempts = |model| {
            let own = general().max_retries(1);
            let failing = Scene::new((0..9).map(|_| Step::status(503)))
                .set(|r| r.policy_for(model, own).policy(general()));
            assert!(block_on(R::call(&failing.retrying, method)).is_err());
            failing.attempts()
        };
        let usual = asked_for(method).attempts;
        let named = model(method).is_some();
        let expected = if named { usual.min(2) } else { usual };
        assert_eq!(attempts("m"), expected, "{method}");
        assert_eq!(attempts("M"), usual, "{method}");
    }
}

pub fn the_inner_providers_dialects_show_through<R: Speaks>() {
    for (spoken, _) in R::DIALECTS {
        let retrying = Retrying::with_timer(Recorder::speaking(spoken), VirtualTimer::new());
        for (dialect, speaks) in R::DIALECTS {
            assert_eq!(speaks(&retrying), dialect == spoken, "{dialect}, {spoken}");
        }
    }
}
