//! Random calls go as a model of the contract says, to the nanosecond.
//!
//! The model is told the delays that jitter drew, and that they lie within
//! their bounds is all that it asks of them. Everything else it knows: the
//! attempts, the result, the items of a stream, the events, the sleeps, and
//! what is left of the budget.
//!
//! `MODEL_SEED` and `MODEL_CASES` choose other cases and more.

#![cfg(any(feature = "crabllm-core-0_0_19", feature = "crabllm-core-0_0_25"))]
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

#[cfg(feature = "crabllm-core-0_0_19")]
mod crabllm_core_0_0_19;
#[cfg(feature = "crabllm-core-0_0_25")]
mod crabllm_core_0_0_25;

use case::Case;
use crabllm_retry::{DelaySource, GiveUpReason};
use model::{Account, Model, What};
use proptest::{prelude::*, test_runner::TestCaseError};
use run::{Manner, Release, run};
use std::{ops::RangeInclusive, time::Duration};

/// What the model says of a case, in which jitter drew what it drew in `seen`.
fn predict(case: &Case, seen: &[Account]) -> Vec<Account> {
    let mut model = Model::new(case);
    let calls = case.calls.iter().zip(seen);
    let accounts = calls.map(|(call, seen)| {
        let mut failures = seen
            .events
            .iter()
            .filter_map(|(_, told)| wished(&told.what));
        let mut draw = |range: RangeInclusive<Duration>| {
            let wished = failures.next().unwrap_or(Duration::ZERO);
            wished.clamp(*range.start(), *range.end())
        };
        model.call(call, &mut draw)
    });
    accounts.collect()
}

/// What jitter has to have drawn for this to be told; anything that is drawn
/// where it does not matter. What is not within the range is brought there, and
/// something else is told.
fn wished(told: &What) -> Option<Duration> {
    match told {
        What::Retry {
            why: DelaySource::Backoff,
            delay,
            ..
        } => Some(*delay),
        What::GaveUp {
            why: GiveUpReason::Deadline,
            ..
        } => Some(Duration::MAX),
        What::Retry { .. } | What::GaveUp { .. } => Some(Duration::ZERO),
        What::Success { .. } | What::StreamStalled { .. } => None,
    }
}

/// Whether a case goes as the model says, whoever listens, and however the
/// timer sleeps.
fn agrees<R: Release>(case: &Case) -> Result<(), TestCaseError> {
    let manner = |shareable, observed| Manner {
        shareable,
        observed,
    };
    let mut seen = run::<R>(case, manner(false, true));
    prop_assert_eq!(&seen, &predict(case, &seen));

    // With the same seed, jitter draws the same. Sleeps that are shared are
    // asked for at other times.
    let run = |manner| {
        let mut calls = run::<R>(case, manner);
        calls.iter_mut().for_each(|call| call.sleeps.clear());
        calls
    };
    seen.iter_mut().for_each(|call| call.sleeps.clear());
    prop_assert_eq!(&run(manner(true, true)), &seen);

    seen.iter_mut().for_each(|call| call.events.clear());
    prop_assert_eq!(&run(manner(false, false)), &seen);
    prop_assert_eq!(&run(manner(true, false)), &seen);
    Ok(())
}

/// The claims about `ThisRelease`.
macro_rules! claims {
    () => {
        use crate::{agrees, case::cases, coverage, random::for_random_cases};

        #[test]
        fn random_calls_go_as_the_contract_says() {
            let cases = cases(ThisRelease::METHODS, ThisRelease::HINTS);
            for_random_cases("MODEL", 2000, &cases, |case| agrees::<ThisRelease>(&case));
        }

        #[test]
        fn random_calls_come_to_all_that_can_happen() {
            coverage::is_complete::<ThisRelease>();
        }
    };
}

pub(crate) use claims;
