//! The provider, a token bucket that admits or refuses each request on arrival, and its clients.

use crate::aws::AwsLimiter;
use crate::calls::{Record, Scenario};
use crabllm_retry::{Failure, Timer, crabllm_core_0_0_19::Error, test_util::VirtualTimer};
use fastrand::Rng;
use futures::future::select;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Server {
    pub clock: VirtualTimer,
    pub scenario: Scenario,
    pub record: Mutex<Record>,
    pub rng: Mutex<Rng>,

    /// The tokens that were taken, and those that did not fit into the bucket.
    pub taken: Mutex<f64>,
}

impl Server {
    async fn chat(&self) -> Result<(), Error> {
        self.travel().await;
        let mut answer = self.admit();
        if let Ok(service) = answer {
            self.clock.sleep(service).await;
            if self.scenario.closed.contains(&self.clock.elapsed()) {
                answer = Err(429);
            }
        }
        self.travel().await;
        let body = String::new();
        let answer = answer.map_err(|status| Error::Provider { status, body });
        answer.map(drop)
    }

    async fn travel(&self) {
        let way = &self.scenario.way;
        let share = self.rng.lock().unwrap().f64();
        let time = way.start + (way.end - way.start).mul_f64(share);
        self.clock.sleep(time).await;
    }

    /// Decides about a request: the time to serve it, or the status of its refusal.
    fn admit(&self) -> Result<Duration, u16> {
        let now = self.clock.elapsed();
        let mut record = self.record.lock().unwrap();
        let most = self.scenario.most_until(now);
        let mut taken = self.taken.lock().unwrap();
        *taken = taken.max(most - self.scenario.burst);
        // A token is not refused because of a rounding error.
        let is_empty = most - *taken < 1.0 - 1e-9;
        let is_down = self.scenario.outage.contains(&now);
        if is_empty || is_down {
            *taken = most.min(*taken + self.scenario.refusal_cost);
            record.refused.push(now);
            return Err(if is_down { 503 } else { 429 });
        }
        *taken += 1.0;
        record.admitted.push(now);
        let mut rng = self.rng.lock().unwrap();
        Ok(service_time(self.scenario.service, &mut rng))
    }
}

/// The least time, an exponential part with this mean, and the most time of both.
pub fn service_time([least, mean, most]: [Duration; 3], rng: &mut Rng) -> Duration {
    (least + mean.mul_f64(-(1.0 - rng.f64()).ln())).min(most)
}

/// The client of a process.
pub struct Client {
    pub server: Arc<Server>,
    pub limiter: Option<Mutex<AwsLimiter>>,
}

impl Client {
    pub async fn chat(&self) -> Result<(), Error> {
        let Some(limiter) = &self.limiter else {
            return self.server.chat().await;
        };
        let clock = &self.server.clock;
        let take = || limiter.lock().unwrap().take(clock.elapsed().as_secs_f64());
        while let Some((wait, changed)) = take() {
            select(clock.sleep(wait), changed).await;
        }
        let answer = self.server.chat().await;
        let throttled = answer.as_ref().is_err_and(Error::is_throttled);
        let now = clock.elapsed().as_secs_f64();
        limiter.lock().unwrap().learn(throttled, now);
        answer
    }
}
