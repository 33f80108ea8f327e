//! Properties of random cases.

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use std::env;

/// Asserts that `property` holds for that many random cases. The variables
/// `<subject>_SEED` and `<subject>_CASES` choose other cases and more; a failure tells the
/// seed that repeats it.
pub fn for_random_cases<S: Strategy>(
    subject: &str,
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let number = |what: &str| {
        let set = env::var(format!("{subject}_{what}")).ok();
        set.map(|text| text.parse::<u64>().unwrap())
    };
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = number("CASES").map_or(cases, |cases| cases as u32);
    runner(seed, cases)
        .run(strategy, property)
        .unwrap_or_else(|error| panic!("{subject}_SEED={seed}: {error}"));
}

/// Draws and shrinks the cases.
pub fn runner(seed: u64, cases: u32) -> TestRunner {
    let mut seed_bytes = [0; 32];
    seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(
        config,
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes),
    )
}
