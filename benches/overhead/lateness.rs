//! How punctual timeouts are.

use crate::{
    count,
    paired::{ROUNDS, median},
    server::{self, Server, request},
};
use crabllm_retry::{Retrying, crabllm_core_0_0_19::Provider};
use futures::{StreamExt, executor::block_on, stream::FuturesUnordered};
use std::time::{Duration, Instant};

/// Measures ten thousand timeouts at the same time on one thread, again and again.
pub fn volleys() {
    const TIMEOUTS: usize = 10_000;
    const AFTER: Duration = Duration::from_millis(50);
    let retrying = Retrying::new(Server(server::never))
        .timeout(AFTER)
        .max_retries(0);
    let request = request();
    let mut p99 = Vec::new();
    let mut early = 0;
    for _ in 0..ROUNDS {
        let calls: FuturesUnordered<_> = (0..TIMEOUTS)
            .map(|_| elapsed(retrying.chat_completion(&request)))
            .collect();
        let mut elapsed: Vec<Duration> = block_on(calls.collect());
        elapsed.sort();
        early += elapsed.partition_point(|elapsed| *elapsed < AFTER);
        let late = elapsed[TIMEOUTS * 99 / 100].saturating_sub(AFTER);
        p99.push(late.as_secs_f64() * 1e6);
    }
    count("late_p99_us", median(p99));
    count("early", early as f64);
}

/// The time from a call's first poll to its end.
async fn elapsed(call: impl Future) -> Duration {
    let start = Instant::now();
    call.await;
    start.elapsed()
}
