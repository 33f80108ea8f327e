//! The limit on the rate of requests.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

/// A number of requests in each period, and as many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub requests: u32,
    pub period: Duration,
}

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (requests, seconds) = match text.split_once('/') {
            Some((requests, "s")) => (requests, 1),
            Some((requests, "min")) => (requests, 60),
            _ => ("", 0),
        };
        let period = Duration::from_secs(seconds);
        match requests.parse() {
            Ok(requests @ 1..) => Ok(Self { requests, period }),
            _ => Err("a limit is a positive number and a period, such as 20/s or 20/min"),
        }
    }
}

/// The tokens that are left of a limit; each request takes one.
pub struct Bucket {
    limit: Limit,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(limit: Limit, now: Instant) -> Self {
        Self {
            limit,
            tokens: limit.requests.into(),
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let size = f64::from(self.limit.requests);
        let passed = now.duration_since(self.filled);
        let periods = passed.div_duration_f64(self.limit.period);
        self.tokens = (self.tokens + periods * size).min(size);
        self.filled = now;
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_size_at_once_and_then_its_rate() {
        let limit: Limit = "20/s".parse().unwrap();
        let start = Instant::now();
        let mut bucket = Bucket::new(limit, start);
        // A request every 10 ms, for 2 s.
        let times = (0..200).map(|number| start + Duration::from_millis(10 * number));
        let admitted = times.filter(|now| bucket.take(*now)).count();
        assert!((58..=60).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_limit_is_a_positive_number_and_a_period() {
        let period = Duration::from_secs(60);
        let requests = 20;
        assert_eq!("20/min".parse(), Ok(Limit { requests, period }));
        for wrong in ["", "20", "0/s", "-1/s", "20/h", "20/", "/s", "20/s/s"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
