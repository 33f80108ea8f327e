//! The provider that fails.
//!
//! It admits requests from a bucket that fills at the rate of its capacity and holds what comes in
//! a tenth of a second. An admitted request takes one; a rejected one, while there is anything
//! left, its cost: a tenth by default. To read a request, check its key and refuse it is work too.
//! That is how a storm outlives its outage: the more retries there are, the less is served. At
//! OpenAI it can cost a whole one: "unsuccessful requests contribute to your per-minute limit"
//! (<https://developers.openai.com/api/docs/guides/rate-limits>). See what `--rejection-cost 0.5`
//! does.
//!
//! In the outage the bucket stays full: those who answer 503 are not those who serve.

use crate::{record::Record, scenario::Scenario};
use crabllm_retry::{
    Timer,
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    test_util::VirtualTimer,
};
use fastrand::Rng;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long the server saves up what it does not use.
const BURST_SECONDS: f64 = 0.1;

/// How long a request takes that is not served.
const FAILURE_LATENCY: Duration = Duration::from_millis(20);

/// How long a request takes that is served: at least this, at most twice this.
const LATENCY: Duration = Duration::from_millis(500);

/// The server; clones are connections to the same one.
#[derive(Clone)]
pub struct Server {
    clock: VirtualTimer,
    record: Arc<Mutex<Record>>,
    frontend: Arc<Mutex<Frontend>>,
}

impl Server {
    pub fn new(clock: VirtualTimer, record: Arc<Mutex<Record>>, scenario: &Scenario) -> Self {
        let frontend = Frontend {
            bucket: Bucket::new(scenario.capacity(), scenario.rejection_cost),
            rng: Rng::with_seed(scenario.seed),
        };
        Self {
            clock,
            record,
            frontend: Arc::new(Mutex::new(frontend)),
        }
    }
}

impl Provider for Server {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let now = self.clock.elapsed();
        self.record.lock().unwrap().attempt(now);
        let (latency, status) = self.frontend.lock().unwrap().answer(now);
        self.clock.sleep(latency).await;
        match status {
            200 => Ok(response(request)),
            status => Err(Error::Provider {
                status,
                body: String::new(),
            }),
        }
    }

    async fn chat_completion_stream(
        &self,
        _request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        Err(Error::not_implemented("chat_completion_stream"))
    }
}

/// Decides about each request.
struct Frontend {
    bucket: Bucket,
    rng: Rng,
}

impl Frontend {
    /// How long the answer to a request takes, and its status.
    fn answer(&mut self, now: Duration) -> (Duration, u16) {
        if Scenario::OUTAGE.contains(&now) {
            (FAILURE_LATENCY, 503)
        } else if self.bucket.admits(now) {
            (LATENCY.mul_f64(1.0 + self.rng.f64()), 200)
        } else {
            (FAILURE_LATENCY, 429)
        }
    }
}

/// The requests that the server can serve now.
struct Bucket {
    /// The requests that are added each second.
    rate: f64,
    rejection_cost: f64,
    level: f64,
    filled: Duration,
}

impl Bucket {
    fn new(rate: f64, rejection_cost: f64) -> Self {
        let mut bucket = Self {
            rate,
            rejection_cost,
            level: 0.0,
            filled: Duration::ZERO,
        };
        bucket.level = bucket.size();
        bucket
    }

    /// The most that it holds; at least one request, however few callers there are.
    fn size(&self) -> f64 {
        (self.rate * BURST_SECONDS).max(1.0)
    }

    fn admits(&mut self, now: Duration) -> bool {
        let gained = (now - self.filled).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.size());
        self.filled = now;
        let admitted = self.level >= 1.0;
        let cost = if admitted { 1.0 } else { self.rejection_cost };
        self.level = (self.level - cost).max(0.0);
        admitted
    }
}

fn response(request: &ChatCompletionRequest) -> ChatCompletionResponse {
    ChatCompletionResponse {
        model: request.model.clone(),
        ..ChatCompletionResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests, spread over ten seconds, are admitted in a second.
    fn admitted(rate: f64, requests: u32, rejection_cost: f64) -> f64 {
        let mut bucket = Bucket::new(rate, rejection_cost);
        let interval = Duration::from_secs(10) / requests;
        let admitted = (0..requests).filter(|&n| bucket.admits(n * interval));
        admitted.count() as f64 / 10.0
    }

    #[test]
    fn all_is_admitted_up_to_the_capacity() {
        assert_eq!(admitted(120.0, 1_000, 0.1), 100.0);
    }

    #[test]
    fn what_is_rejected_takes_from_what_is_admitted() {
        // Of 240 requests a second a server of 120 admits x, where x + cost (240 - x) = 120.
        for (cost, expected) in [(0.0, 120.0), (0.1, 106.7), (0.25, 80.0)] {
            let admitted = admitted(120.0, 2_400, cost);
            assert!((admitted - expected).abs() < 3.0, "{cost}: {admitted}");
        }
    }

    #[test]
    fn a_server_that_is_busy_rejecting_admits_nothing() {
        assert!(admitted(120.0, 2_400, 1.0) < 3.0);
    }
}
