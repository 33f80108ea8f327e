//! How punctual timeouts are.

use crate::{
    executor::Executor,
    paired::median,
    peers,
    report::Report,
    server::{Never, Server, request},
};
use crabllm_retry::{AsyncIoTimer, Retrying, crabllm_core_0_0_19::Provider};
use futures::{StreamExt, stream::FuturesUnordered};
use std::time::{Duration, Instant};
use tokio::{task::unconstrained, time::timeout};

/// How many timeouts are awaited at the same time.
const TIMEOUTS: usize = 10_000;

const AFTER: Duration = Duration::from_millis(50);

/// How late the timeouts of one kind were.
#[derive(Default)]
struct Punctuality {
    /// The 99th percentile of each volley, in microseconds.
    p99: Vec<f64>,

    /// How many ended early, in all volleys.
    early: usize,
}

impl Punctuality {
    /// Awaits many calls at the same time on one thread, and takes for each how
    /// much longer it took than it should have.
    ///
    /// On tokio its cooperative budget, which is meant for a task with few
    /// futures, would have one task poll ten thousand again and again.
    fn volley<F: Future>(&mut self, executor: &Executor, call: impl Fn() -> F) {
        let calls: FuturesUnordered<_> = (0..TIMEOUTS).map(|_| elapsed(call())).collect();
        let mut elapsed: Vec<Duration> = executor.block_on(unconstrained(calls.collect()));
        elapsed.sort();
        self.early += elapsed.partition_point(|elapsed| *elapsed < AFTER);
        let late = elapsed[TIMEOUTS * 99 / 100].saturating_sub(AFTER);
        self.p99.push(late.as_secs_f64() * 1e6);
    }

    fn p99(&self) -> f64 {
        median(self.p99.clone())
    }
}

/// The time from a call's first poll to its end.
async fn elapsed(call: impl Future) -> Duration {
    let start = Instant::now();
    call.await;
    start.elapsed()
}

/// Ten thousand timeouts at the same time, again and again, each kind in turn.
pub fn volleys(rounds: usize, report: &mut Report) {
    let (tokio, futures) = (Executor::tokio(), Executor::Futures);
    let (server, request) = (Server(Never), request());
    let ours = Retrying::new(Server(Never)).timeout(AFTER).max_retries(0);
    let ours_async_io = Retrying::with_timer(Server(Never), AsyncIoTimer)
        .timeout(AFTER)
        .max_retries(0);

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
        let call = || server.chat_completion(&request);
        a.1.volley(&futures, || ours.chat_completion(&request));
        b.1.volley(&futures, || ours_async_io.chat_completion(&request));
        c.1.volley(&tokio, || async { timeout(AFTER, call()).await });
        d.1.volley(&futures, || peers::naive_futures_timer(call(), AFTER));
        e.1.volley(&futures, || peers::naive_async_io(call(), AFTER));
    }
    report.values(
        "10,000 timeouts of 50 ms at once: microseconds late, 99th percentile",
        kinds.each_ref().map(|(name, kind)| (*name, kind.p99())),
    );
    report.values(
        "how many of them, in all rounds, were early",
        kinds
            .each_ref()
            .map(|(name, kind)| (*name, kind.early as f64)),
    );
    let [(_, ours), ..] = &kinds;
    report.count("late_p99_us", Some(ours.p99()));
    report.count("early", Some(ours.early as f64));
}
