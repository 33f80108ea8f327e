//! The law of the rate limiter, for calls that are made one after the other.

use std::time::Duration;

/// A model that is awake. Times are counted from the start of the first call.
#[derive(Clone, Copy, Default)]
pub struct Law {
    rate: f64,
    ceiling: f64,
    x: f64,
    sent: u32,
    span: f64,
    last: Duration,
    pub hold: Duration,
    /// The last throttling, or the last moment at which a call waited.
    pub quiet_since: Duration,
}

impl Law {
    pub fn new(now: Duration) -> Self {
        Self {
            rate: 4.0,
            ceiling: f64::INFINITY,
            last: now,
            ..Self::default()
        }
    }

    pub fn due(&self) -> Duration {
        let next = self.last + Duration::from_secs_f64(1.0 / self.rate);
        next.max(self.hold)
    }

    /// Grants a turn, for which a call has been waiting since the given time. Returns the
    /// law as it is then, except that this turn is not sent.
    pub fn grant(&mut self, now: Duration, waiting_since: Option<Duration>) -> Self {
        let (due, last, sent) = (self.due(), self.last, self.sent);
        self.last = now;
        if let Some(since) = waiting_since {
            if (now - due).as_secs_f64() >= 1.0 / self.rate {
                self.last = due.max(now.saturating_sub(Duration::from_millis(100)));
            }
            let turn = (self.last - last).as_secs_f64();
            let waited = (self.last - since.max(last)).as_secs_f64();
            self.sent += 1;
            self.span += turn;
            if self.ceiling.is_infinite() {
                self.rate += self.rate.min(4.0) * (waited / turn).min(1.0);
            } else {
                self.x += 0.03 * waited.sqrt();
                self.rate = self.rate.max(self.ceiling * (1.0 + self.x.powi(3)));
            }
        }
        Self { sent, ..*self }
    }

    /// Learns from the refusal of an attempt, whose turn was granted by `ticket`.
    pub fn refused(&mut self, ticket: Self) {
        let seen = (1.0 + f64::from(ticket.sent)) / (1.0 / self.rate + ticket.span);
        let low = (0.95 * seen).max(0.05);
        if ticket.sent > 0 {
            self.ceiling = seen + 0.75 * (self.rate - seen);
            self.span = 0.0;
        }
        self.sent = 0;
        self.x = -(1.0 - low / self.ceiling).max(0.0).cbrt();
        self.rate = low;
    }
}
