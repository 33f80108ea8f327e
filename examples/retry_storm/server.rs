//! The provider that fails.
//!
//! It admits requests from a bucket that fills at the rate of its capacity and holds a tenth of
//! a second's worth. An admitted request takes one token, a rejected one its cost, because
//! reading and refusing a request is work too. So retries lower the number of requests that are
//! served, and a storm can outlast its outage. At OpenAI a rejected request can cost as much as
//! a served one: "unsuccessful requests contribute to your per-minute limit"
//! (<https://developers.openai.com/api/docs/guides/rate-limits>).

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
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The seconds in which every request fails.
pub const OUTAGE: Range<usize> = 10..40;

/// The latency of a failed request.
const FAILURE_LATENCY: Duration = Duration::from_millis(20);

/// The least latency of a served request; the most is twice that.
const LATENCY: Duration = Duration::from_millis(500);

/// The server; clones share its state.
#[derive(Clone)]
pub struct Server {
    clock: VirtualTimer,
    bucket: Arc<Mutex<Bucket>>,
    rng: Arc<Mutex<Rng>>,
}

impl Server {
    pub fn new(clock: VirtualTimer, capacity: f64, rejection_cost: f64, seed: u64) -> Self {
        Self {
            clock,
            bucket: Arc::new(Mutex::new(Bucket::new(capacity, rejection_cost))),
            rng: Arc::new(Mutex::new(Rng::with_seed(seed))),
        }
    }
}

impl Provider for Server {
    async fn chat_completion(
        &self,
        _request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let now = self.clock.elapsed();
        let status = if OUTAGE.contains(&(now.as_secs() as usize)) {
            503
        } else if self.bucket.lock().unwrap().admits(now) {
            let latency = LATENCY.mul_f64(1.0 + self.rng.lock().unwrap().f64());
            self.clock.sleep(latency).await;
            return Ok(ChatCompletionResponse::default());
        } else {
            429
        };
        self.clock.sleep(FAILURE_LATENCY).await;
        let body = String::new();
        Err(Error::Provider { status, body })
    }

    async fn chat_completion_stream(
        &self,
        _request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        Err(Error::not_implemented("chat_completion_stream"))
    }
}

/// The requests that the server can serve now.
struct Bucket {
    /// The requests that are added each second.
    rate: f64,
    rejection_cost: f64,
    size: f64,
    level: f64,
    filled: Duration,
}

impl Bucket {
    fn new(rate: f64, rejection_cost: f64) -> Self {
        let size = (rate / 10.0).max(1.0);
        Self {
            rate,
            rejection_cost,
            size,
            level: size,
            filled: Duration::ZERO,
        }
    }

    fn admits(&mut self, now: Duration) -> bool {
        let gained = (now - self.filled).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.size);
        self.filled = now;
        let admitted = self.level >= 1.0;
        let cost = if admitted { 1.0 } else { self.rejection_cost };
        self.level = (self.level - cost).max(0.0);
        admitted
    }
}

#[test]
fn rejected_requests_lower_the_number_of_served_ones() {
    // Of r requests a second, a server of 120 admits x, where x + cost (r - x) = 120.
    for (requests, cost, expected) in [
        (100, 0.1, 100.0),
        (240, 0.0, 120.0),
        (240, 0.1, 106.7),
        (240, 0.25, 80.0),
        (240, 1.0, 0.0),
    ] {
        let mut bucket = Bucket::new(120.0, cost);
        let interval = Duration::from_secs(1) / requests;
        let admitted = (0..10 * requests).filter(|&n| bucket.admits(n * interval));
        let admitted = admitted.count() as f64 / 10.0;
        assert!((admitted - expected).abs() < 3.0, "{cost}: {admitted}");
    }
}
