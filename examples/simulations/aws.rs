//! The rate limiter of the AWS SDKs' adaptive mode, `botocore/retries/adaptive.py`.

use futures::channel::oneshot;
use std::{collections::VecDeque, time::Duration};

/// The constants of `bucket.py`, of CUBIC (`throttling.py`) and of the measured rate.
const MIN_RATE: f64 = 0.5;
const SCALE: f64 = 0.4;
const BETA: f64 = 0.7;
const SPAN: f64 = 0.5;
const SMOOTHING: f64 = 0.8;

/// Times are in seconds.
#[derive(Default)]
pub struct AwsLimiter {
    /// Whether an attempt was throttled: before that, none waits.
    enabled: bool,

    rate: f64,
    tokens: f64,
    filled: f64,

    /// The answers of the current span, its start, and the rate of the earlier ones.
    answers: f64,
    span: f64,
    measured: f64,

    last_max: f64,
    throttled: f64,

    /// Attempts that wait for a token. One of them looks again when the rate has changed.
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl AwsLimiter {
    pub fn new() -> Self {
        Self {
            rate: 1.0,
            ..Self::default()
        }
    }

    /// Takes a token, or tells how long to wait before the next look.
    pub fn take(&mut self, now: f64) -> Option<(Duration, oneshot::Receiver<()>)> {
        self.refill(now);
        if !self.enabled || self.tokens >= 1.0 - 1e-9 {
            self.tokens -= f64::from(self.enabled);
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(sender);
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate);
        Some((wait.max(Duration::from_nanos(1)), receiver))
    }

    fn refill(&mut self, now: f64) {
        let tokens = self.tokens + (now - self.filled) * self.rate;
        self.tokens = tokens.min(self.rate.max(1.0));
        self.filled = now;
    }

    /// Changes the rate after an answer.
    pub fn learn(&mut self, throttled: bool, now: f64) {
        self.answers += 1.0;
        let span = (now / SPAN).floor() * SPAN;
        if span > self.span {
            let rate = self.answers / (span - self.span);
            self.measured = rate * SMOOTHING + self.measured * (1.0 - SMOOTHING);
            (self.answers, self.span) = (0.0, span);
        }
        let rate = if throttled {
            let rate = if self.enabled { self.rate } else { f64::MAX };
            self.last_max = self.measured.min(rate);
            self.throttled = now;
            self.enabled = true;
            self.last_max * BETA
        } else {
            let plateau = (self.last_max * (1.0 - BETA) / SCALE).cbrt();
            SCALE * (now - self.throttled - plateau).powi(3) + self.last_max
        };
        self.refill(now);
        self.rate = rate.min(2.0 * self.measured).max(MIN_RATE);
        self.refill(now);
        while let Some(waiting) = self.waiting.pop_front()
            && waiting.send(()).is_err()
        {}
    }
}
