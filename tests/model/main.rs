//! Random calls go as a model of the contract says, to the nanosecond.
//!
//! The model is told the delays that jitter drew, and asks only that they lie within
//! their bounds. Everything else it predicts: the attempts, the result, the items of a
//! stream, the events, the sleeps, and what is left of the budget.
//!
//! `MODEL_SEED` and `MODEL_CASES` choose other cases and more.

#![cfg(feature = "test-util")]
#![cfg(not(all(target_family = "wasm", target_os = "unknown")))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/methods/mod.rs"]
mod methods;
#[path = "../common/random.rs"]
mod random;

mod case;
mod coverage;
mod limiter;
mod model;
mod releases;
mod run;

use case::{Case, cases};
use crabllm_retry::{DelaySource, GiveUpReason, Operation, Operations};
use model::{Account, Class, Model, What, class};
use proptest::{prelude::*, test_runner::TestCaseError};
use random::for_random_cases;
use run::{Manner, Subject, run};
use std::{ops::RangeInclusive, time::Duration};

/// The model's prediction for a case, in which jitter drew as it did in `seen`.
///
/// The delay of a retry is told; one that would have reached past the deadline was
/// long; for other failures it does not matter. A delay beyond the bounds of the
/// jitter is brought within them, so that the prediction differs from it.
fn predict(case: &Case, seen: &[Account], shareable: bool) -> Vec<Account> {
    let mut model = Model::new(case, shareable);
    let predict = |(call, seen): (_, &Account)| {
        let told = seen.events.iter().map(|told| &told.what);
        let mut failures = told.filter(|what| matches!(what, What::Retry(..) | What::GaveUp(..)));
        let mut failure = None;
        let mut draw = |drawer, range: RangeInclusive<Duration>| {
            if drawer == DelaySource::Backoff {
                failure = failures.next();
            }
            let delay = match failure {
                Some(What::Retry(delay, source, _)) if *source == drawer => *delay,
                Some(What::GaveUp(GiveUpReason::Deadline, _)) => Duration::MAX,
                _ => Duration::ZERO,
            };
            delay.clamp(*range.start(), *range.end())
        };
        model.call(call, &mut draw)
    };
    case.calls.iter().zip(seen).map(predict).collect()
}

/// Whether a case goes as the model says, with and without observers, and however the
/// timer sleeps.
fn agrees<R: Subject>(case: &Case) -> Result<(), TestCaseError> {
    for shareable in [false, true] {
        let run = |brief| run::<R>(case, Manner { shareable, brief });
        let (seen, mut unobserved) = (run(false), run(true));
        let mut predicted = predict(case, &seen, shareable);
        for (index, seen) in seen.iter().enumerate() {
            if shareable {
                // Shared sleeps are asked for at other times.
                predicted[index].sleeps.clone_from(&seen.sleeps);
            }
            // With the same seed, jitter draws the same.
            unobserved[index].events.clone_from(&seen.events);
        }
        prop_assert_eq!(&seen, &predicted);
        prop_assert_eq!(&unobserved, &seen);
    }
    Ok(())
}

#[test]
fn the_sets_of_operations_are_the_classes_of_the_contract() {
    for operation in Operations::ALL.iter() {
        let sets = [Operations::CHAT, Operations::STREAMS];
        let classes = [Class::Chat, Class::Stream].map(|of| class(operation) == of);
        assert_eq!(sets.map(|set| set.contains(operation)), classes);
    }
    let passthrough = Operation::ChatCompletionStreamPassthrough;
    assert!(!Operations::ALL.contains(passthrough));
}

fn random_calls_go_as_the_contract_says<R: Subject>(hints: bool) {
    let cases = cases(R::METHODS, hints);
    for_random_cases("MODEL", 2000, &cases, |case| agrees::<R>(&case));
}
