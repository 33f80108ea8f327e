//! Batches of calls against a token bucket.

use crate::{
    Played, Simulation,
    calls::{Record, Scenario, play},
    chart::{Chart, per_second},
    peers::{Peer, with_others},
    report::Kind::{Count, Least, Most},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// 200 callers in one process make 5,000 calls.
fn batch(limit: f64, burst: f64) -> Scenario {
    let millis = Duration::from_millis;
    Scenario {
        limit,
        burst,
        way: millis(10)..millis(25),
        service: [200, 167, 1500].map(millis),
        processes: 1,
        callers: 200,
        calls: Some(5_000),
        end: Duration::MAX,
        ..Scenario::default()
    }
}

/// The callers stop after some seconds.
fn until(end: u32, mut scenario: Scenario) -> Scenario {
    scenario.calls = Some(usize::MAX);
    scenario.end = end * SECOND;
    scenario
}

pub fn simulation() -> Simulation {
    let limit = [(0.0, 25.0), (30.0, 25.0), (30.0, 100.0), (50.0, 100.0)];
    Simulation {
        title: "200 callers make 5000 calls, unless named otherwise, against a bucket of 100 tokens \
                and 100/s.\nThe rate limiter: the worst of all seeds; the others: the first seed.",
        peers: with_others(Peer {
            name: "rate limiter",
            has_limiter: true,
            ..Peer::default()
        }),
        play: figures,
        chart: Chart {
            x: ("seconds", &[0, 10, 20, 30, 40, 50]),
            y: ("requests/s (log scale)", &[0, 1, 10, 100, 1_000, 10_000]),
            scale: f64::ln_1p,
            lines: vec![("limit", limit.to_vec())],
        },
    }
}

fn figures(peer: &Peer, seed: u64) -> Played {
    let mut steady = until(50, batch(100.0, 100.0));
    steady.callers = 48;
    let mut one_token = batch(100.0, 1.0);
    one_token.way = SECOND * 35 / 2000..SECOND * 35 / 2000;
    let mut minute = batch(20.0 / 60.0, 20.0);
    (minute.callers, minute.calls) = (8, Some(100));
    let mut raised = until(50, batch(25.0, 25.0));
    raised.raised = (30 * SECOND, 75.0);
    // 50 requests in flight are refused, and the first ones before, which wakes the limiter.
    let mut burst = until(12, batch(100.0, 1.0));
    burst.raised = (SECOND, 9_900.0);
    burst.callers = 50;
    burst.service = [SECOND / 2, Duration::ZERO, SECOND / 2];
    burst.closed = 10 * SECOND..10 * SECOND + SECOND / 2;
    let mut hundred = batch(100.0, 100.0);
    (hundred.processes, hundred.callers) = (100, 2);
    let long = until(60, hundred.clone());
    let play = |scenario| play(scenario, peer, seed);
    let [five, jitter] = [batch(100.0, 100.0), batch(100.0, 1.0)].map(play);
    let [steady, one_token, minute] = [steady, one_token, minute].map(play);
    let [raised, burst] = [raised, burst].map(play);
    let [hundred, long] = [hundred, long].map(play);
    let figures = vec![
        ("limit_5x_goodput", Least, five.goodput()),
        ("limit_throttled_share", Most, five.refused(1)),
        ("limit_failed", Count, five.failed()),
        ("limit_wait_p99_vs_p50", Most, five.wait_p99_vs_p50()),
        ("limit_1_2x_goodput", Least, steady.goodput()),
        ("limit_one_token_makespan", Most, one_token.makespan()),
        ("limit_one_token_jittered_makespan", Most, jitter.makespan()),
        ("limit_20_a_minute_failed", Count, minute.failed()),
        ("limit_20_a_minute_refused", Most, minute.refused(0)),
        ("limit_restored_10s", Least, raised.restored()),
        ("limit_cuts_per_burst", Count, burst.cuts()),
        ("limit_100_failed_share", Most, hundred.failed() / 5_000.0),
        ("limit_100_goodput", Least, long.goodput()),
        ("limit_100_fairness", Least, long.fairness()),
    ];
    let line = |name, times: &[Duration]| (name, per_second(times.iter().copied(), 50));
    let lines = match peer.name {
        "rate limiter" => vec![
            line("admitted", &raised.admitted),
            line("refused", &raised.refused),
        ],
        "default" => vec![line("refused without limiter", &raised.refused)],
        _ => vec![],
    };
    (figures, lines)
}

impl Record {
    /// The number of admitted requests while calls began, and the time of the last one.
    fn admitted(&self) -> (f64, Duration) {
        let count = self.admitted.partition_point(|at| *at <= self.scenario.end);
        let last = self.admitted[..count].last();
        (count as f64, last.copied().unwrap_or_default())
    }

    /// Admitted ÷ what the bucket admits until the last admission.
    fn goodput(&self) -> f64 {
        let (admitted, last) = self.admitted();
        admitted / self.scenario.most_until(last)
    }

    /// Admitted ÷ limit in the seconds 10 to 20 after the limit was raised.
    fn restored(&self) -> f64 {
        let seconds = self.admitted.iter().map(Duration::as_secs);
        seconds.filter(|second| (40..50).contains(second)).count() as f64 / 1_000.0
    }

    /// The time to the last admission ÷ the time that the limit needs.
    fn makespan(&self) -> f64 {
        let (admitted, last) = self.admitted();
        let Scenario { burst, limit, .. } = self.scenario;
        last.as_secs_f64() / ((admitted - burst) / limit)
    }

    /// Refused ÷ requests from some second on.
    fn refused(&self, from: u64) -> f64 {
        let is_later = |at: &Duration| at.as_secs() >= from;
        let refused = self.refused.iter().copied().filter(is_later);
        refused.count() as f64 / self.requests().filter(is_later).count() as f64
    }

    fn failed(&self) -> f64 {
        self.calls.iter().filter(|call| !call.ok).count() as f64
    }

    fn wait_p99_vs_p50(&self) -> f64 {
        let mut waits: Vec<_> = self.calls.iter().map(|call| call.took).collect();
        waits.sort_unstable();
        let at = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64();
        at(99) / at(50)
    }

    /// How often the learnt rate fell after the burst, whose last answer arrives within 50 ms.
    fn cuts(&self) -> f64 {
        let closed = &self.scenario.closed;
        let answers = closed.start..closed.end + SECOND / 20;
        let pairs = self.rates.windows(2);
        let cuts = pairs.filter(|pair| answers.contains(&pair[1].0) && pair[1].1 < pair[0].1);
        cuts.count() as f64
    }

    /// Jain's index of the calls that succeeded, by process: 1 if all are equal.
    fn fairness(&self) -> f64 {
        let mut shares = vec![0.0; self.scenario.processes];
        for call in self.calls.iter().filter(|call| call.ok) {
            shares[call.process] += 1.0;
        }
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        sum * sum / (shares.len() as f64 * squares)
    }
}
