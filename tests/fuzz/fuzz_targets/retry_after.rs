//! Any body gives the same reading each time, and no panic.
//!
//! ```sh
//! cargo install cargo-fuzz --locked
//! mkdir -p tests/fuzz/corpus/retry_after
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz retry_after \
//!     tests/fuzz/corpus/retry_after tests/fuzz/seeds/retry_after -- -runs=10000000 -max_len=512
//! ```

#![no_main]

use crabllm_retry::{crabllm_core_0_0_19::Error, hints};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: String| {
    _ = hints::retry_after_header("retry-after", &body);
    let failure = Error::Provider { status: 429, body };
    assert_eq!(hints::is_transient(&failure), hints::is_transient(&failure));
    // Between the two, a point in time comes closer.
    let waits = [hints::retry_after(&failure), hints::retry_after(&failure)];
    assert!(waits[0] >= waits[1]);
});
