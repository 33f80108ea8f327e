//! Random calls go as a model of the contract says, to the nanosecond.
//!
//! The model is told the delays that jitter drew, and that they lie within
//! their bounds is all that it asks of them. Everything else it knows: the
//! attempts, the result, the items of a stream, the events, the sleeps, and
//! what is left of the budget.
//!
//! `MODEL_SEED` and `MODEL_CASES` choose other cases and more.

#![cfg(feature = "test-util")]
#![cfg(not(all(target_family = "wasm", target_os = "unknown")))]

#[path = "../common/methods/mod.rs"]
mod methods;
#[path = "../common/random.rs"]
mod random;

mod case;
mod coverage;
mod model;
mod model_tests;
mod run;

mod releases;

use case::{Case, cases};
use crabllm_retry::{DelaySource, GiveUpReason};
use model::{Account, Model, What};
use proptest::{prelude::*, test_runner::TestCaseError};
use random::for_random_cases;
use run::{Manner, Subject, run};
use std::{ops::RangeInclusive, time::Duration};

/// The model's prediction for a case, in which jitter drew as it did in `seen`.
fn predict(case: &Case, seen: &[Account]) -> Vec<Account> {
    let mut model = Model::new(case);
    let calls = case.calls.iter().zip(seen);
    let accounts = calls.map(|(call, seen)| {
        let mut failures = seen.events.iter().filter_map(|(_, told)| drawn(&told.what));
        let mut told = None;
        let mut draw = |source, range: RangeInclusive<Duration>| {
            if source == DelaySource::Backoff {
                told = failures.next();
            }
            let delay = match told {
                Some(Drawn::Any(delay)) => delay,
                Some(Drawn::By(drawer, delay)) if drawer == source => delay,
                _ => Duration::ZERO,
            };
            delay.clamp(*range.start(), *range.end())
        };
        model.call(call, &mut draw)
    });
    accounts.collect()
}

/// The delay that jitter has drawn, as far as an event shows it.
#[derive(Clone, Copy)]
enum Drawn {
    By(DelaySource, Duration),
    Any(Duration),
}

/// The delay of a retry is told; one that would have reached past the deadline was
/// long; for any other failure it does not matter, and a success has none.
///
/// [`predict`] brings it within the bounds of the jitter. So where the library
/// has drawn beyond them, the model tells of another delay, and the case fails.
fn drawn(told: &What) -> Option<Drawn> {
    match told {
        What::Retry { source, delay, .. } => Some(Drawn::By(*source, *delay)),
        What::GaveUp {
            reason: GiveUpReason::Deadline,
            ..
        } => Some(Drawn::Any(Duration::MAX)),
        What::GaveUp { .. } => Some(Drawn::Any(Duration::ZERO)),
        What::Attempt { .. } | What::Success { .. } | What::StreamStalled { .. } => None,
    }
}

/// Whether a case goes as the model says, whoever listens, and however the
/// timer sleeps.
fn agrees<R: Subject>(case: &Case) -> Result<(), TestCaseError> {
    let alone = Manner {
        shareable: false,
        observed: true,
        stays: true,
    };
    let mut seen = run::<R>(case, alone);
    prop_assert_eq!(&seen, &predict(case, &seen));

    // With the same seed, jitter draws the same. Sleeps that are shared are
    // asked for at other times.
    let run = |manner| {
        let mut calls = run::<R>(case, manner);
        calls.iter_mut().for_each(|call| call.sleeps.clear());
        calls
    };
    let shared = Manner {
        shareable: true,
        ..alone
    };
    seen.iter_mut().for_each(|call| call.sleeps.clear());
    prop_assert_eq!(&run(shared), &seen);

    let unheard = |manner| Manner {
        observed: false,
        stays: false,
        ..manner
    };
    seen.iter_mut().for_each(|call| call.events.clear());
    prop_assert_eq!(&run(unheard(alone)), &seen);
    prop_assert_eq!(&run(unheard(shared)), &seen);
    Ok(())
}

fn random_calls_go_as_the_contract_says<R: Subject>() {
    let cases = cases(R::METHODS, R::HINTS);
    for_random_cases("MODEL", 2000, &cases, |case| agrees::<R>(&case));
}
