//! Any body gives a hint or none, the same one each time, and no panic.
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
    let error = Error::Provider { status: 429, body };
    assert_eq!(hints::retry_after(&error), hints::retry_after(&error));
});
