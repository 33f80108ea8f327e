//! The law of the rate: what refusals and turns teach about a server's limit.
//!
//! Between two decreases it learns two rates: the one that the server took, and the one
//! that it refused. It restarts just below the first, climbs fast, flattens near the
//! second, as in TCP CUBIC ([RFC 9438]), and then leaves it faster and faster. The
//! constants are those that did best in the simulations, `cargo run --release -p
//! simulations -- rate-limit`. The model of calls in `tests/model` has the law a second time.
//!
//! [RFC 9438]: https://www.rfc-editor.org/rfc/rfc9438

use crate::timer::{FOREVER, Instant};
use std::time::Duration;

/// The rate of a model that has just been refused for the first time, in turns a second.
/// Half of it costs time at high limits; twice as much loses calls if refusals are slow.
const FIRST_RATE: f64 = 4.0;

/// The lowest rate: a probe every 20 s.
const LOWEST_RATE: f64 = 0.05;

/// The highest rate, so that every interval is a `Duration`.
const HIGHEST_RATE: f64 = 1e6;

/// The share of the rate that the server took with which it is tried again.
const DECREASE: f64 = 0.95;

/// How far the ceiling is from the rate that the server took to the one that it refused.
/// With 1 there are 15 to 50 % more refusals, with ½ one token at 2/s takes longer.
const CEILING: f64 = 0.75;

/// The growth along the cubic, for the root of a second. A third less is too slow for a
/// raised limit, two thirds more bring half as many refusals again.
const GROWTH: f64 = 0.03;

/// How much lost time the turns may catch up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The state of an awake model.
#[derive(Clone, Debug)]
pub struct Law {
    /// Turns a second.
    rate: f64,

    /// The rate near which the growth is slow; infinite until a limit was met.
    ceiling: f64,

    /// The place on the cubic: the rate is `ceiling * (1 + x³)`.
    x: f64,

    /// Names the time since the last decrease; not zero.
    epoch: u32,

    /// The turns since the last decrease that were waited for.
    sent: u32,

    /// The time that they took, in seconds.
    span: f64,

    /// The moment of the last turn.
    last: Instant,

    /// Until when the server asked to wait.
    hold: Instant,

    /// Since when somebody has been waiting without a break.
    waiting_since: Option<Instant>,
}

/// A snapshot of the law at the turn of an attempt. The default is the ticket of an attempt
/// that needed no turn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ticket {
    epoch: u32,

    /// The turns before this one since the last decrease.
    earlier: u32,

    /// The time that those and this one took, in seconds.
    span: f64,
}

impl Law {
    /// The state after a model's first refusal.
    pub fn new(now: Instant, epoch: u32) -> Self {
        Self {
            rate: FIRST_RATE,
            ceiling: f64::INFINITY,
            x: 0.0,
            epoch,
            sent: 0,
            span: 0.0,
            last: now,
            hold: now,
            waiting_since: None,
        }
    }

    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Until when the server asked to wait; in the past if it did not.
    pub fn held_until(&self) -> Instant {
        self.hold
    }

    /// When the next turn is.
    pub fn due(&self) -> Instant {
        after(self.last, 1.0 / self.rate).max(self.hold)
    }

    /// When the turn is that comes after so many others, unless the rate changes.
    pub fn due_after(&self, others: usize) -> Instant {
        after(self.due(), others as f64 / self.rate)
    }

    /// Tells whether somebody waits from now on. Only turns that were waited for say
    /// something about the limit.
    pub fn set_waiting(&mut self, is_waiting: bool, now: Instant) {
        match is_waiting {
            true => _ = self.waiting_since.get_or_insert(now),
            false => self.waiting_since = None,
        }
    }

    /// Grants the turn that is due.
    pub fn grant(&mut self, now: Instant) -> Ticket {
        let (due, last, earlier) = (self.due(), self.last, self.sent);
        self.last = now;
        if let Some(since) = self.waiting_since {
            let missed = now.saturating_duration_since(due);
            if missed.as_secs_f64() >= 1.0 / self.rate {
                self.last = now.checked_sub(CATCH_UP).map_or(due, |then| due.max(then));
            }
            let turn = seconds(last, self.last);
            self.sent = self.sent.saturating_add(1);
            self.span += turn;
            self.grow(turn, seconds(since.max(last), self.last));
        }
        Ticket {
            epoch: self.epoch,
            earlier,
            span: self.span,
        }
    }

    /// Raises the rate after a turn of `turn` seconds, of which somebody waited `waited`.
    fn grow(&mut self, turn: f64, waited: f64) {
        let rate = if self.ceiling.is_infinite() {
            // A search that doubles, and then grows e-fold each 250 ms.
            self.rate + self.rate.min(FIRST_RATE) * (waited / turn).min(1.0)
        } else {
            self.x += GROWTH * waited.sqrt();
            self.ceiling * (1.0 + self.x.powi(3))
        };
        self.rate = rate.clamp(self.rate, HIGHEST_RATE);
    }

    /// Learns from the refusal of an attempt. One that was sent before the last decrease,
    /// or before the model woke, says nothing new: one burst is one decrease, which
    /// begins the next epoch.
    pub fn refused(&mut self, ticket: Ticket, next_epoch: u32) {
        if ticket.epoch != self.epoch {
            return;
        }
        let admitted = f64::from(ticket.earlier);
        let took = (1.0 + admitted) / (1.0 / self.rate + ticket.span);
        let low = (DECREASE * took).max(LOWEST_RATE);
        if ticket.earlier > 0 {
            self.ceiling = took + CEILING * (self.rate - took);
            self.span = 0.0;
        }
        self.epoch = next_epoch;
        self.sent = 0;
        self.x = -(1.0 - low / self.ceiling).max(0.0).cbrt();
        self.rate = low.min(HIGHEST_RATE);
    }

    /// Grants no turn before `wait` has passed.
    pub fn hold(&mut self, now: Instant, wait: Duration) {
        if let Some(until) = now.checked_add(wait.min(FOREVER)) {
            self.hold = self.hold.max(until);
        }
    }
}

fn after(time: Instant, seconds: f64) -> Instant {
    let later = time.checked_add(Duration::from_secs_f64(seconds));
    later.unwrap_or(time)
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sequence_of_events_breaks_the_bounds() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..40 {
            let mut now = Instant::now();
            let mut law = Law::new(now, 1);
            law.set_waiting(true, now);
            let mut tickets = vec![Ticket::default()];
            for epoch in 2..150 {
                now += Duration::from_nanos(1 << random.u32(0..36));
                match random.u32(0..4) {
                    0 => law.set_waiting(random.bool(), now),
                    1 => law.refused(*random.choice(&tickets).unwrap(), epoch),
                    2 => law.hold(now, Duration::from_nanos(1 << random.u32(0..30))),
                    _ => {
                        let mut granted = 0;
                        while law.due() <= now && granted < 200_000 {
                            let (rate, due) = (law.rate(), law.due());
                            tickets.push(law.grant(now));
                            assert!(law.rate() >= rate, "a turn lowers the rate");
                            assert!(law.last >= due && law.last <= now);
                            granted += 1;
                        }
                        assert!(granted < 200_000);
                    }
                }
                assert!((LOWEST_RATE..=HIGHEST_RATE).contains(&law.rate()));
                assert!(law.due() > law.last && law.due_after(100_000) >= law.due());
            }
        }
    }
}
