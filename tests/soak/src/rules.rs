//! The policy of a wrapper, and what it demands by the contract.

use crate::script::{TICK, one_in};
use crabllm_retry::{Backoff, Jitter, Operations, Policy};
use fastrand::Rng;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The settings of a wrapper.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_retries: u32,
    pub timeout: Duration,
    /// Zero is none.
    pub deadline: Duration,
    pub initial: Duration,
    pub max: Duration,
    pub jitter: Jitter,
    pub max_retry_after: Duration,
    pub stream_idle: Duration,
    pub retries_streams: bool,
    /// The budget of its retries.
    pub budget: Budget,
}

/// A retry budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// One for all, which never runs dry.
    Ample,
    /// One that may run dry.
    Scarce,
    None,
}

impl Rules {
    /// Rules at random.
    pub fn draw(rng: &mut Rng, budget: Budget) -> Self {
        let jitter = match rng.u8(..3) {
            0 => Jitter::None,
            1 => Jitter::Equal,
            _ => Jitter::Full,
        };
        Self {
            max_retries: rng.u32(..5),
            timeout: TICK * rng.u32(10..40),
            deadline: match one_in(rng, 3) {
                true => TICK * rng.u32(20..80),
                false => Duration::ZERO,
            },
            initial: match one_in(rng, 4) {
                true => Duration::ZERO,
                false => TICK * rng.u32(1..10),
            },
            max: 2 * SECOND,
            jitter,
            max_retry_after: 4 * SECOND,
            stream_idle: TICK * rng.u32(21..60),
            retries_streams: rng.bool(),
            budget,
        }
    }

    pub fn policy(&self) -> Policy {
        let retried = match self.retries_streams {
            true => Operations::CHAT | Operations::STREAMS,
            false => Operations::CHAT,
        };
        Policy::default()
            .max_retries(self.max_retries)
            .timeout(self.timeout)
            .deadline(self.deadline)
            .backoff(Backoff::exponential(self.initial, self.max).jitter(self.jitter))
            .max_retry_after(self.max_retry_after)
            .stream_idle(self.stream_idle)
            .retry(retried)
    }

    /// Whether a call is of those that are retried.
    pub fn retries(&self, streams: bool) -> bool {
        !streams || self.retries_streams
    }

    /// The most attempts that a call may make.
    pub fn limit(&self, streams: bool) -> usize {
        match self.retries(streams) {
            true => 1 + self.max_retries as usize,
            false => 1,
        }
    }

    /// The longest delay before a retry, counted from zero, where the server asks for `wait`.
    pub fn longest_delay(&self, retry: usize, wait: Duration) -> Duration {
        let doubled = self.initial * 2u32.saturating_pow(retry as u32);
        doubled.min(self.max).max(wait)
    }

    /// The shortest one.
    pub fn shortest_delay(&self, retry: usize, wait: Duration) -> Duration {
        let bound = self.longest_delay(retry, Duration::ZERO);
        let drawn = match self.jitter {
            Jitter::None => bound,
            Jitter::Equal => bound - bound / 2,
            _ => Duration::ZERO,
        };
        drawn.max(wait)
    }

    /// Whether the deadline does not leave the time for a delay.
    pub fn too_late(&self, elapsed: Duration, delay: Duration) -> bool {
        !self.deadline.is_zero() && elapsed + delay >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            initial: SECOND,
            timeout: 2 * SECOND,
            deadline: 5 * SECOND,
            jitter: Jitter::Equal,
            ..Rules::draw(&mut Rng::with_seed(1), Budget::None)
        }
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_are_never_shorter_than_asked() {
        let rules = rules();
        assert_eq!(rules.longest_delay(0, Duration::ZERO), SECOND);
        assert_eq!(rules.shortest_delay(0, Duration::ZERO), SECOND / 2);
        assert_eq!(rules.longest_delay(9, Duration::ZERO), 2 * SECOND);
        assert_eq!(rules.shortest_delay(0, 3 * SECOND), 3 * SECOND);
    }

    #[test]
    fn a_delay_ends_before_the_deadline() {
        let rules = rules();
        assert!(!rules.too_late(4 * SECOND, SECOND - TICK));
        assert!(rules.too_late(4 * SECOND, SECOND));
    }
}
