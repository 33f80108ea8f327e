//! The scripted provider.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{block_on, request};
use crabllm_retry::{
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::FutureExt;

// The model in `tests/model` checks the steps, and the times of attempts that have ended.

#[test]
fn an_attempt_that_runs_has_neither_ended_nor_been_cancelled() {
    let provider = Scripted::new(VirtualTimer::new(), [Step::hang()]);
    let request = request();
    let mut call = Box::pin(provider.chat_completion(&request));
    assert!((&mut call).now_or_never().is_none());
    let running = provider.attempts()[0].clone();
    assert_eq!((running.ended, running.cancelled), (None, false));
    drop(call);
    assert!(provider.attempts()[0].cancelled);
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
