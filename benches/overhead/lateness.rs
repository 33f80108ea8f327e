//! How punctual timeouts are.

use crate::{contenders::Contenders, executor::Executor, paired::median, report::Report, server};
use crabllm_retry::Policy;
use futures::{StreamExt, stream::FuturesUnordered};
use std::time::{Duration, Instant};
use tokio::task::unconstrained;

/// The timeouts of one volley.
const TIMEOUTS: usize = 10_000;

const AFTER: Duration = Duration::from_millis(50);

/// The lateness of one kind of timeout.
#[derive(Default)]
struct Punctuality {
    /// The 99th percentile of each volley, in microseconds.
    p99: Vec<f64>,

    /// The timeouts that ended early, in all volleys.
    early: usize,
}

impl Punctuality {
    /// Awaits many calls at the same time on one thread and records how late each ends.
    ///
    /// Unconstrained, because tokio's cooperative budget would have one task poll ten
    /// thousand futures again and again.
    fn volley<F: Future>(&mut self, executor: &Executor, call: impl Fn() -> F) {
        let calls: FuturesUnordered<_> = (0..TIMEOUTS).map(|_| elapsed(call())).collect();
        let mut elapsed: Vec<Duration> = executor.block_on(unconstrained(calls.collect()));
        elapsed.sort();
        self.early += elapsed.partition_point(|elapsed| *elapsed < AFTER);
        let late = elapsed[TIMEOUTS * 99 / 100].saturating_sub(AFTER);
        self.p99.push(late.as_secs_f64() * 1e6);
    }
}

/// The time from a call's first poll to its end.
async fn elapsed(call: impl Future) -> Duration {
    let start = Instant::now();
    call.await;
    start.elapsed()
}

/// Measures ten thousand timeouts at the same time, again and again, each kind in turn.
pub fn volleys(rounds: usize, report: &mut Report) {
    let (tokio, futures) = (Executor::tokio(), Executor::Futures);
    let policy = Policy::default().timeout(AFTER).max_retries(0);
    let ways = Contenders::with_policy(server::never, policy);
    let mut kinds = [
        "ours, FuturesTimer",
        "ours, AsyncIoTimer",
        "tokio::time::timeout",
        "race, fresh futures_timer::Delay",
        "race, fresh async_io::Timer",
    ]
    .map(|name| (name, Punctuality::default()));
    for _ in 0..rounds {
        let [a, b, c, d, e] = &mut kinds;
        a.1.volley(&futures, || ways.ours());
        b.1.volley(&futures, || ways.ours_async_io());
        c.1.volley(&tokio, || async { ways.tokio().await });
        d.1.volley(&futures, || ways.naive_futures_timer());
        e.1.volley(&futures, || ways.naive_async_io());
    }
    let kinds = kinds.map(|(name, kind)| (name, median(kind.p99), kind.early as f64));
    report.values(
        "10,000 timeouts of 50 ms at once: microseconds late, 99th percentile",
        kinds.map(|(name, p99, _)| (name, p99)),
    );
    report.values(
        "how many of them, in all rounds, were early",
        kinds.map(|(name, _, early)| (name, early)),
    );
    let [(_, p99, early), ..] = kinds;
    report.count("late_p99_us", p99);
    report.count("early", early);
}
