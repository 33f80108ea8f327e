//! Streams that open and then fail before their first content.

use crate::{
    Played, Simulation,
    chart::Chart,
    peers::{Peer, with_others},
    report::Kind::Count,
};
use crabllm_retry::{
    Operation, Operations, Policy, Retrying, crabllm_core_0_0_19::Error, test_util::VirtualTimer,
};
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt, executor::block_on, stream};
use std::sync::Mutex;

pub fn simulation() -> Simulation {
    Simulation {
        title: "100000 calls with 4 retries. 10 % of attempts open a stream that fails before its \
                first content.\nThe others retry no stream, or its opening.",
        peers: with_others(Peer {
            name: "streams retried",
            policy: Policy::default().also_retry(Operations::STREAMS),
            ..Peer::default()
        }),
        play: figures,
        chart: Chart {
            x: ("retries", &[0, 1, 2, 3, 4]),
            y: ("failed calls (log scale)", &[0, 1, 10, 100, 1_000, 10_000]),
            scale: f64::ln_1p,
            lines: vec![("failing streams", vec![(0.0, 1e4), (4.0, 1e4)])],
        },
    }
}

fn figures(peer: &Peer, seed: u64) -> Played {
    let failed = [0, 1, 2, 3, 4].map(|retries| failed(&peer.policy, retries, seed));
    let points = (0..5).map(|retries| (retries as f64, failed[retries]));
    let line = (peer.name, points.collect());
    (vec![("stream_failed", Count, failed[4])], vec![line])
}

/// The calls whose reader gets an error.
fn failed(policy: &Policy, retries: u32, seed: u64) -> f64 {
    let policy = policy.clone().max_retries(retries);
    let rng = Mutex::new(Rng::with_seed(seed));
    let wrapper = Retrying::with_timer(rng, VirtualTimer::new());
    let wrapper = wrapper.policy(policy).seed(seed);
    let open = async |rng: &Mutex<Rng>| {
        // An announcement, and then an error or content.
        let fails = rng.lock().unwrap().f64() < 0.1;
        let second = (!fails).then_some("word").ok_or(Error::Timeout);
        Ok(stream::iter([Ok(""), second]).boxed())
    };
    let fails = |_: &u32| {
        let operation = Operation::ChatCompletionStream;
        let opening = wrapper.open(operation, None, |item: &&str| !item.is_empty(), open);
        block_on(async { opening.await?.try_collect::<Vec<_>>().await }).is_err()
    };
    (0..100_000).filter(fails).count() as f64
}
