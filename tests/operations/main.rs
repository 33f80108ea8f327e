//! Every method of the trait, in each release: forwarded, and classed as the
//! contract says.

#![cfg(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/methods/mod.rs"]
mod methods;

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;

use crabllm_retry::Operation;

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

/// The claims about a release, for its `METHODS` and its `call` to one of them.
macro_rules! claims {
    () => {
        use crate::{
            Treatment, asked_for, by_default,
            common::{Scene, block_on, plain},
        };
        use crabllm_retry::{Event, Operation, Operations, Retrying, Step, VirtualTimer};
        use futures::future::FutureExt;
        use std::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        };

        #[test]
        fn every_method_reaches_the_inner_providers_own() {
            for method in METHODS {
                let scene = Scene::new([]);
                block_on(call(&scene.retrying, method)).unwrap();
                let attempts = scene.scripted.attempts();
                let called: Vec<_> = attempts.iter().map(|a| a.operation).collect();
                assert_eq!(called, [method]);
            }
        }

        fn treatment(method: Operation, retry: Operations) -> Treatment {
            let scene = Scene::new((0..9).map(|_| Step::status(503)))
                .set(|r| r.policy(plain().retry(retry)));
            assert!(block_on(call(&scene.retrying, method)).is_err());

            let hanging = Scene::by_hand([Step::hang()]).set(|r| r.policy(plain().retry(retry)));
            assert!(call(&hanging.retrying, method).now_or_never().is_none());
            Treatment {
                attempts: scene.attempts(),
                timed: !hanging.sleeps.asked().is_empty(),
            }
        }

        #[test]
        fn by_default_chats_are_retried_and_streams_only_timed() {
            for method in METHODS {
                let treated = treatment(method, plain().retry);
                assert_eq!(treated, by_default(method), "{method}");
            }
        }

        #[test]
        fn what_is_asked_for_is_retried_and_timed() {
            for method in METHODS {
                let expected = asked_for(method);
                assert_eq!(treatment(method, Operations::ALL), expected, "{method}");
                if let Ok(only) = Operations::try_from(method) {
                    assert_eq!(treatment(method, only), expected, "{method}");
                }
            }
        }

        #[test]
        fn what_is_not_asked_for_is_not_retried() {
            for method in METHODS {
                let treated = treatment(method, Operations::NONE);
                assert_eq!(treated.attempts, 1, "{method}");
            }
        }

        #[test]
        fn every_event_names_the_method_and_its_model() {
            for method in METHODS {
                let told = Arc::new(AtomicUsize::new(0));
                let count = told.clone();
                let script = [Step::status(503), Step::ok(), Step::invalid()];
                let scene = Scene::new(script).set(|r| {
                    let policy = plain().retry(Operations::ALL);
                    r.policy(policy).observe(move |event| {
                        let (Event::Retry {
                            operation, model, ..
                        }
                        | Event::Success {
                            operation, model, ..
                        }
                        | Event::GaveUp {
                            operation, model, ..
                        }) = *event
                        else {
                            panic!("{event:?}");
                        };
                        assert_eq!((operation, model), (method, crate::model(method)));
                        count.fetch_add(1, Ordering::Relaxed);
                    })
                });
                for _ in 0..3 {
                    let _ = block_on(call(&scene.retrying, method));
                }
                // A retry, a success, a surrender, and a success on what is
                // over of the script; or without retries one event a call.
                let expected = 3 + usize::from(asked_for(method).attempts > 1);
                assert_eq!(told.load(Ordering::Relaxed), expected, "{method}");
            }
        }

        #[test]
        fn the_policy_for_a_model_is_that_of_calls_which_name_it() {
            let general = || plain().retry(Operations::ALL);
            for method in METHODS {
                let attempts = |model| {
                    let own = general().max_retries(1);
                    let failing = Scene::new((0..9).map(|_| Step::status(503)))
                        .set(|r| r.policy_for(model, own).policy(general()));
                    assert!(block_on(call(&failing.retrying, method)).is_err());
                    failing.attempts()
                };
                let usual = asked_for(method).attempts;
                let named = crate::model(method).is_some();
                let expected = if named { usual.min(2) } else { usual };
                assert_eq!(attempts("m"), expected, "{method}");
                assert_eq!(attempts("M"), usual, "{method}");
            }
        }

        #[test]
        fn the_inner_providers_dialects_show_through() {
            for dialect in 0..=3 {
                let speaks = Speaks(dialect);
                let retrying = Retrying::with_timer(Speaks(dialect), VirtualTimer::new());
                assert_eq!(dialects(&retrying), dialects(&speaks), "{dialect}");
            }
        }
    };
}

pub(crate) use claims;
