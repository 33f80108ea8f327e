//! An outage of half a minute.

use crate::{
    Played, Simulation,
    calls::{Record, Scenario, play},
    chart::{Chart, per_second},
    peers::{Peer, with_others},
    report::Kind::{Detail, Most},
};
use crabllm_retry::RetryBudget;
use std::{ops::Range, time::Duration};

const OUTAGE: Range<u64> = 10..40;

/// The seconds that are counted. Callers go on, so that the last retries meet the same load.
const END: u64 = 60;

/// A hundred callers in each process, and a server that serves 1.2 times their load.
fn scenario(processes: usize) -> Scenario {
    let capacity = processes as f64 * 120.0;
    let millis = Duration::from_millis;
    Scenario {
        limit: capacity,
        burst: capacity / 10.0,
        refusal_cost: 0.1,
        way: millis(10)..millis(10),
        service: [480, 250, 1500].map(millis),
        outage: Duration::from_secs(OUTAGE.start)..Duration::from_secs(OUTAGE.end),
        processes,
        callers: 100,
        end: Duration::from_secs(END + 3),
        ..Scenario::default()
    }
}

pub fn simulation() -> Simulation {
    let times = [0.0, 10.0, 10.0, 40.0, 40.0, 60.0].into_iter();
    let capacity = times.zip([12e3, 12e3, 0.0, 0.0, 12e3, 12e3]);
    Simulation {
        title: "10000 callers in 100 processes make one call a second each. The server serves \
                12000 requests a second,\nand a rejected one costs a tenth of a served one. From \
                second 10 to 40 it answers 503.",
        peers: with_others(Peer {
            name: "with budget",
            budget: Some(RetryBudget::default),
            ..Peer::default()
        }),
        play: figures,
        chart: Chart {
            x: ("seconds", &[0, 10, 20, 30, 40, 50, 60]),
            y: ("attempts per second", &[0, 10_000, 20_000, 30_000]),
            scale: |value| value,
            lines: vec![("capacity", capacity.collect())],
        },
    }
}

fn figures(peer: &Peer, seed: u64) -> Played {
    let record = play(scenario(100), peer, seed);
    let counted = OUTAGE.start..END;
    let calls = record.calls.iter();
    let calls = calls.filter(|call| counted.contains(&call.began.as_secs()));
    let (ok, failed): (Vec<_>, Vec<_>) = calls.partition(|call| call.ok);
    let succeeded = ok.len() as f64 / (ok.len() + failed.len()) as f64;
    let time_to_fail = failed.iter().map(|call| call.took.as_secs_f64());
    let time_to_fail = time_to_fail.sum::<f64>() / failed.len() as f64;
    let figures = vec![
        ("outage_attempts_per_call", Most, attempts_per_call(&record)),
        ("succeeded since it began", Detail, succeeded),
        ("seconds until a call fails", Detail, time_to_fail),
    ];
    let line = (peer.name, per_second(record.requests(), END));
    (figures, vec![line])
}

/// In the outage.
fn attempts_per_call(record: &Record) -> f64 {
    let is_in = |time: &Duration| OUTAGE.contains(&time.as_secs());
    let calls = record.calls.iter().filter(|call| is_in(&call.began));
    record.requests().filter(is_in).count() as f64 / calls.count() as f64
}

#[test]
fn a_budget_limits_an_outage_to_one_retry_in_ten_calls() {
    let peers = simulation().peers;
    for (peer, expected) in peers.iter().zip([1.0..=1.1, 2.8..=3.0]) {
        let record = play(scenario(1), peer, 1);
        assert_eq!(record, play(scenario(1), peer, 1));
        let attempts = attempts_per_call(&record);
        assert!(expected.contains(&attempts), "{attempts}");
    }
}
