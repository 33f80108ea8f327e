//! A provider that is silent for a minute, and another one to fall back to.

use crate::{
    Played, Simulation,
    chart::{Chart, per_second},
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
use std::{cell::RefCell, ops::Range, sync::Mutex, time::Duration};

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
    let silence = [(60.0, 0.0), (60.0, 200.0), (120.0, 200.0), (120.0, 0.0)];
    Simulation {
        title: "200 callers, each of which calls again a second after its answer. From second 60 \
                to 120 of 180\nthe first provider is silent. With breaker: the worst of all \
                seeds; the others: the first seed.",
        peers: peers.into(),
        play: figures,
        chart: Chart {
            x: ("seconds", &[0, 30, 60, 90, 120, 150, 180]),
            y: ("answers/s", &[0, 50, 100, 150, 200]),
            scale: |value| value,
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
    ended: Duration,
    model: Option<String>,
}

impl Call {
    fn is_slow(&self) -> bool {
        self.ended - self.began >= TIMEOUT
    }
}

fn play(peer: &Peer, seed: u64) -> Vec<Call> {
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
    let calls = RefCell::new(Vec::new());
    let caller = async |phase| {
        clock.sleep(phase).await;
        while clock.elapsed() < END {
            let began = clock.elapsed();
            let answer = fallback.chat_completion(&request).await;
            calls.borrow_mut().push(Call {
                began,
                ended: clock.elapsed(),
                model: answer.ok().map(|answer| answer.model),
            });
            clock.sleep(SECOND).await;
        }
    };
    let phases = (0..200).map(|_| SECOND.mul_f64(rng.f64()));
    block_on(clock.task(join_all(phases.map(caller))));
    calls.into_inner()
}

fn figures(peer: &Peer, seed: u64) -> Played {
    let calls = play(peer, seed);
    let answered = calls.iter().filter(|call| call.model.is_some());
    let is_in = |call: &&Call| call.began < OUTAGE.end && call.ended > OUTAGE.start;
    let outage = calls.iter().filter(is_in);
    let slow = outage.clone().filter(|call| call.is_slow()).count() as f64;
    let outage = outage.count() as f64;
    // The last call that goes straight to the second provider.
    let skips = |call: &&Call| call.model.as_deref() == Some("second") && !call.is_slow();
    let last = calls.iter().filter(skips).map(|call| call.began).max();
    let back = last.unwrap_or_default().saturating_sub(OUTAGE.end);
    let ok = answered.clone().count() as f64 / calls.len() as f64;
    let figures = vec![
        ("failover_ok_share", Least, ok),
        ("failover_slow_share", Most, slow / outage),
        ("failover_back_s", Most, back.as_secs_f64()),
        ("calls of the outage", Detail, outage),
    ];
    let answers = per_second(answered.map(|call| call.ended), END.as_secs());
    (figures, vec![(peer.name, answers)])
}

#[test]
fn a_silent_provider_costs_each_caller_one_timeout_and_the_breaker_one_probe() {
    let (figures, _) = figures(&simulation().peers[0], 1);
    let [ok, slow, back, outage] = [0, 1, 2, 3].map(|row| figures[row].2);
    assert_eq!((ok, (slow * outage).round()), (1.0, 201.0));
    assert!((10.0..=31.0).contains(&back), "{back}");
}
