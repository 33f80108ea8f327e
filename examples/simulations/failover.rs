//! A provider that is silent for a minute, and another one to fall back to.

use crate::{
    Played, Simulation,
    chart::Chart,
    peers::Peer,
    report::Kind::{Detail, Least, Most},
    server::service_time,
};
use crabllm_retry::{
    Fallback, Policy, Retrying, Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider, json,
    },
    test_util::VirtualTimer,
};
use fastrand::Rng;
use futures::{
    executor::block_on,
    future::{join_all, pending},
};
use std::{ops::Range, sync::Mutex, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const OUTAGE: Range<Duration> = Duration::from_secs(60)..Duration::from_secs(120);
const END: Duration = Duration::from_secs(180);

pub fn simulation() -> Simulation {
    let ways = ["with breaker", "without breaker", "without fallback"];
    let peers = ways.map(|name| Peer {
        name,
        policy: Policy::default().timeout(TIMEOUT).max_retries(0),
        ..Peer::default()
    });
    let silence = [(60.0, 0.0), (60.0, 100.0), (120.0, 100.0), (120.0, 0.0)];
    Simulation {
        title: "200 callers, each of which calls again a second after its answer. From second 60 \
                to 120 of 180\nthe first provider is silent. With breaker: the worst of all \
                seeds; the others: the first seed.",
        peers: peers.into(),
        play: figures,
        chart: Chart {
            x: ("seconds", &[0, 30, 60, 90, 120, 150, 180]),
            y: ("seconds to an answer (log scale)", &[0, 1, 3, 10, 30, 100]),
            scale: f64::ln_1p,
            lines: vec![("first one silent", silence.to_vec())],
        },
    }
}

/// A provider that answers with the name of the model.
struct Side {
    clock: VirtualTimer,
    rng: Mutex<Rng>,

    /// When no answer leaves, and requests are lost.
    silence: Range<Duration>,
}

impl Provider for Side {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let began = self.clock.elapsed();
        let service = [200, 167, 1500].map(Duration::from_millis);
        let service = service_time(service, &mut self.rng.lock().unwrap());
        self.clock.sleep(service).await;
        if began < self.silence.end && self.clock.elapsed() >= self.silence.start {
            pending().await
        }
        Ok(ChatCompletionResponse {
            model: request.model.clone(),
            ..ChatCompletionResponse::default()
        })
    }

    async fn chat_completion_stream(
        &self,
        _: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        Err(Error::not_implemented("chat_completion_stream"))
    }
}

/// A call, and the model that answered.
struct Call {
    began: Duration,
    took: Duration,
    model: Option<String>,
}

/// The calls of each caller.
fn play(peer: &Peer, seed: u64) -> Vec<Vec<Call>> {
    let mut rng = Rng::with_seed(seed);
    let clock = VirtualTimer::new();
    let [first, second] = [OUTAGE, END..END].map(|silence| {
        let side = Side {
            clock: clock.clone(),
            rng: Mutex::new(rng.fork()),
            silence,
        };
        Retrying::with_timer(side, clock.clone()).policy(peer.policy.clone())
    });
    let now = clock.clone();
    let fallback = Fallback::new(first, second).model("first", "second");
    let fallback = match peer.name {
        "without fallback" => fallback.fall_if(|_| false),
        "without breaker" => fallback.breaker(0, SECOND),
        _ => fallback.clock(move || now.now()),
    };
    let request = json::from_str(r#"{"model": "first", "messages": []}"#).unwrap();
    let caller = async |phase| {
        clock.sleep(phase).await;
        let mut calls = Vec::new();
        while clock.elapsed() < END {
            let began = clock.elapsed();
            let answer = fallback.chat_completion(&request).await;
            calls.push(Call {
                began,
                took: clock.elapsed() - began,
                model: answer.ok().map(|answer| answer.model),
            });
            clock.sleep(SECOND).await;
        }
        calls
    };
    let phases = (0..200).map(|_| SECOND.mul_f64(rng.f64()));
    block_on(clock.task(join_all(phases.map(caller))))
}

fn figures(peer: &Peer, seed: u64) -> Played {
    let callers = play(peer, seed);
    let calls = callers.iter().flatten();
    let ok = calls.clone().filter(|call| call.model.is_some()).count() as f64;
    let is_slow = |call: &&Call| call.took >= TIMEOUT;
    let is_in = |call: &&Call| call.began < OUTAGE.end && call.began + call.took > OUTAGE.start;
    let outage = calls.clone().filter(is_in);
    let slow = outage.clone().filter(is_slow).count() as f64;
    let outage = outage.count() as f64;
    // The last call that goes straight to the second provider.
    let skips = |call: &&Call| call.model.as_deref() == Some("second") && !is_slow(call);
    let last = calls.clone().filter(skips).map(|call| call.began).max();
    let back = last.unwrap_or_default().saturating_sub(OUTAGE.end);
    let figures = vec![
        ("failover_ok_share", Least, ok / calls.count() as f64),
        ("failover_slow_share", Most, slow / outage),
        ("failover_back_s", Most, back.as_secs_f64()),
        ("calls of the outage", Detail, outage),
    ];
    (figures, vec![(peer.name, waits(&callers))])
}

/// The average time to an answer, for the callers that call in each second. While none calls,
/// all wait.
fn waits(callers: &[Vec<Call>]) -> Vec<(f64, f64)> {
    let mut waits = vec![Vec::new(); END.as_secs() as usize];
    for calls in callers {
        for (index, call) in calls.iter().enumerate() {
            if let Some(answer) = calls[index..].iter().find(|call| call.model.is_some()) {
                let wait = answer.began + answer.took - call.began;
                waits[call.began.as_secs() as usize].push(wait.as_secs_f64());
            }
        }
    }
    let mut last = 0.0;
    let points = (0..).zip(waits).map(|(second, waits)| {
        if !waits.is_empty() {
            last = waits.iter().sum::<f64>() / waits.len() as f64;
        }
        (f64::from(second) + 0.5, last)
    });
    points.collect()
}

#[test]
fn a_silent_provider_costs_each_caller_one_timeout_and_the_breaker_one_probe() {
    let (figures, _) = figures(&simulation().peers[0], 1);
    let [ok, slow, back, outage] = [0, 1, 2, 3].map(|row| figures[row].2);
    assert_eq!((ok, (slow * outage).round()), (1.0, 201.0));
    assert!((10.0..=31.0).contains(&back), "{back}");
}
