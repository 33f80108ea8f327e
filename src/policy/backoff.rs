//! The delay between two attempts.

#[cfg(feature = "serde")]
use super::keys::{BackoffKeys, Table};
use std::time::Duration;

/// Exponential backoff: each delay is drawn from a bound that doubles with
/// every retry, up to a maximum.
///
/// The bound before retry n (n = 0, 1, …) is `min(initial * 2^n, max)`, and
/// [`Jitter`] says how the delay is drawn from it. The default starts at 100 ms (as in
/// `crabllm-core`'s own wrapper), with at most 20 s (as in the AWS SDKs' standard mode)
/// and [`Jitter::Equal`].
///
/// ```
/// use crabllm_retry::{Backoff, Jitter};
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1));
/// let delays: Vec<_> = backoff.jitter(Jitter::None).delays().take(5).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000].map(Duration::from_millis));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(from = "Table<BackoffKeys>", into = "BackoffKeys")
)]
#[non_exhaustive]
#[must_use = "a backoff does nothing until a policy uses it"]
pub struct Backoff {
    /// The bound before the first retry. Default: 100 ms. Zero: no delays.
    pub initial: Duration,

    /// The longest delay. Default: 20 seconds. Zero: no delays.
    pub max: Duration,

    /// How a delay is drawn from its bound. Default: [`Jitter::Equal`].
    pub jitter: Jitter,
}

/// How a delay is drawn from its bound `d`: uniformly, to the nanosecond.
///
/// Callers that fail together and wait equally long fail together again. Jitter
/// spreads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Jitter {
    /// From `[d/2, d]`: spread, but never an immediate retry. The default.
    #[default]
    Equal,

    /// From `[0, d]`: the widest spread.
    Full,

    /// Exactly `d`.
    None,
}

impl Backoff {
    /// Delays that double from `initial` up to `max`.
    ///
    /// Every value is legal: if either is zero, there are no delays; a `max` below
    /// `initial` is the bound of every delay.
    pub const fn exponential(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            jitter: Jitter::Equal,
        }
    }

    /// Sets how a delay is drawn from its bound.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delays before the first retry, the second, and so on without end. Each call
    /// of this method draws new ones.
    pub fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        let backoff = *self;
        let mut rng = fastrand::Rng::new();
        let mut retry = 0u32;
        std::iter::repeat_with(move || {
            let delay = backoff.draw(retry, &mut rng);
            retry = retry.saturating_add(1);
            delay
        })
    }

    /// Draws the delay before retry number `retry`, counted from 0.
    pub(crate) fn draw(&self, retry: u32, rng: &mut fastrand::Rng) -> Duration {
        let bound = self.bound(retry);
        let lowest = match self.jitter {
            Jitter::Equal => bound - bound / 2,
            Jitter::Full => Duration::ZERO,
            Jitter::None => return bound,
        };
        from_nanos(rng.u128(lowest.as_nanos()..=bound.as_nanos()))
    }

    /// `min(initial * 2^retry, max)`.
    fn bound(&self, retry: u32) -> Duration {
        let factor = 1_u128.checked_shl(retry).unwrap_or(u128::MAX);
        let doubled = self.initial.as_nanos().saturating_mul(factor);
        from_nanos(doubled.min(self.max.as_nanos()))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(20))
    }
}

/// The duration of `nanos`, at most `Duration::MAX`.
fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    Duration::new((nanos / PER_SECOND) as u64, (nanos % PER_SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn bounds_and_draws_saturate() {
        const TICK: Duration = Duration::from_nanos(1);
        let mut rng = fastrand::Rng::with_seed(1);
        for (extreme, retry, bound) in [
            (Duration::ZERO, u32::MAX, Duration::ZERO),
            (TICK, 32, Duration::from_nanos(1 << 32)),
            (TICK, 127, Duration::MAX),
            (TICK, 128, Duration::MAX),
            (Duration::MAX, 0, Duration::MAX),
            (Duration::MAX, u32::MAX, Duration::MAX),
        ] {
            let backoff = Backoff::exponential(extreme, Duration::MAX);
            assert_eq!(backoff.bound(retry), bound, "{extreme:?} {retry}");
            for jitter in [Jitter::Equal, Jitter::Full, Jitter::None] {
                assert!(backoff.jitter(jitter).draw(retry, &mut rng) <= bound);
            }
        }
    }

    #[test]
    fn jitter_draws_every_value_of_its_range_equally_often() {
        const DRAWS: usize = 100_000;
        let most = Duration::from_nanos(21);
        let mut rng = fastrand::Rng::with_seed(1);
        for (jitter, range) in [
            (Jitter::Equal, 11..=21),
            (Jitter::Full, 0..=21),
            (Jitter::None, 21..=21),
        ] {
            let backoff = Backoff::exponential(most, most).jitter(jitter);
            let mut counts = BTreeMap::new();
            for _ in 0..DRAWS {
                let delay = backoff.draw(0, &mut rng).as_nanos();
                *counts.entry(delay).or_default() += 1;
            }
            let even = DRAWS / range.clone().count();
            let is_even = |count: &usize| count.abs_diff(even) < even / 10;
            assert!(counts.values().all(is_even), "{jitter:?}: {counts:?}");
            assert!(counts.into_keys().eq(range), "{jitter:?}");
        }
    }
}
