//! The scripted provider.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, block_on, request};
use crabllm_retry::{
    Operation, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt};

#[test]
fn attempts_take_the_steps_in_turn_and_then_succeed() {
    let provider = Scripted::new(VirtualTimer::new(), [Step::status(503), Step::disconnect()]);
    let call = || block_on(provider.chat_completion(&request()));
    assert!(matches!(call(), Err(Error::Provider { status: 503, .. })));
    assert!(matches!(call(), Err(Error::Internal(_))));
    assert!(call().is_ok());
    assert!(call().is_ok());
}

#[test]
fn attempts_are_recorded_from_beginning_to_end() {
    let timer = VirtualTimer::new();
    let provider = Scripted::new(timer.clone(), [Step::ok().after(SECOND), Step::hang()]);
    let begin = timer.now();
    block_on(provider.chat_completion(&request())).unwrap();
    let mut call = Box::pin(provider.chat_completion_raw("m", "{}".into()));
    assert!((&mut call).now_or_never().is_none());
    let running = provider.attempts()[1].clone();
    assert_eq!((running.ended, running.cancelled), (None, false));
    drop(call);

    let [first, second] = &provider.clone().attempts()[..] else {
        panic!("two attempts");
    };
    assert_eq!(first.operation, Operation::ChatCompletion);
    assert_eq!((first.started, first.ended), (begin, Some(begin + SECOND)));
    assert!(!first.cancelled);
    assert_eq!(second.operation, Operation::ChatCompletionRaw);
    assert_eq!(second.ended, Some(begin + SECOND));
    assert!(second.cancelled);
}

#[test]
fn debug_output_shows_the_steps_that_are_left() {
    let provider = Scripted::new(VirtualTimer::new(), [Step::status(503), Step::hang()]);
    assert!(block_on(provider.chat_completion(&request())).is_err());
    let shown = format!("{provider:?}");
    let (steps, attempts) = shown.split_once("attempts: ").unwrap();
    assert!(steps.contains("Hang") && !steps.contains("503"), "{shown}");
    assert!(attempts.starts_with("[ScriptedAttempt"), "{shown}");
}

#[test]
fn it_is_compatible_where_the_traits_defaults_are_not() {
    let provider = Scripted::new(VirtualTimer::new(), []);
    assert!(provider.is_openai_compat() && provider.is_anthropic_compat());
}

#[test]
#[cfg(feature = "crabllm-core-0_0_25")]
fn it_is_compatible_in_the_newest_release_too() {
    use crabllm_retry::crabllm_core_0_0_25::Provider as Newest;
    let provider = Scripted::new(VirtualTimer::new(), []);
    assert!(Newest::is_openai_compat(&provider) && Newest::is_anthropic_compat(&provider));
    assert!(Newest::is_gemini_compat(&provider));
}

#[test]
fn a_streams_steps_are_its_items() {
    let timer = VirtualTimer::new();
    let items = [Step::ok(), Step::status(500).after(SECOND), Step::ok()];
    let provider = Scripted::new(timer.clone(), [Step::stream(items)]);
    let mut items = block_on(provider.chat_completion_stream(&request())).unwrap();
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    assert!(matches!(block_on(items.next()), Some(Err(_))));
    assert_eq!(timer.elapsed(), SECOND);
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    assert!(block_on(items.next()).is_none());
    assert!(block_on(items.next()).is_none());
}
