//! Any body gives the same reading each time, and no panic.
//!
//! ```sh
//! cargo install cargo-fuzz --locked
//! mkdir -p tests/fuzz/corpus/retry_after
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz retry_after \
//!     tests/fuzz/corpus/retry_after tests/fuzz/seeds/retry_after -- -runs=10000000 -max_len=512
//! ```

#![no_main]

use crabllm_retry::{Failure, hints};
use libfuzzer_sys::fuzz_target;
use std::{error::Error, fmt};

#[derive(Debug)]
struct Throttled(String);

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Throttled {}

impl Failure for Throttled {
    fn timeout() -> Self {
        Self(String::new())
    }

    fn is_transient(&self) -> bool {
        true
    }

    fn status(&self) -> Option<u16> {
        Some(429)
    }

    fn body(&self) -> Option<&str> {
        Some(&self.0)
    }
}

fuzz_target!(|body: String| {
    let failure = Throttled(body);
    assert_eq!(hints::is_transient(&failure), hints::is_transient(&failure));
    // Between the two, a point in time comes closer.
    let waits = [hints::retry_after(&failure), hints::retry_after(&failure)];
    assert!(waits[0] >= waits[1]);
    let _ = hints::retry_after_header("retry-after", &failure.0);
});
