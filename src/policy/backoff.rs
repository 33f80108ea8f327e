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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

    const MS: Duration = Duration::from_millis(1);

    fn bound(initial: Duration, max: Duration, retry: u32) -> Duration {
        Backoff::exponential(initial, max).bound(retry)
    }

    #[test]
    fn the_bound_doubles_up_to_the_maximum_and_saturates() {
        let second = Duration::from_secs(1);
        for (initial, max, retry, expected) in [
            (100 * MS, 20 * second, 0, 100 * MS),
            (100 * MS, 20 * second, 1, 200 * MS),
            (100 * MS, 20 * second, 7, 12_800 * MS),
            (100 * MS, 20 * second, 8, 20 * second),
            (100 * MS, 20 * second, u32::MAX, 20 * second),
            (
                Duration::from_nanos(1),
                20 * second,
                32,
                Duration::from_nanos(1 << 32),
            ),
            (Duration::ZERO, 20 * second, u32::MAX, Duration::ZERO),
            (20 * second, MS, 0, MS),
            (second, Duration::ZERO, 3, Duration::ZERO),
            (Duration::MAX, Duration::MAX, 0, Duration::MAX),
            (Duration::MAX, Duration::MAX, u32::MAX, Duration::MAX),
            (Duration::from_nanos(1), Duration::MAX, 127, Duration::MAX),
            (Duration::from_nanos(1), Duration::MAX, 128, Duration::MAX),
        ] {
            assert_eq!(
                bound(initial, max, retry),
                expected,
                "{initial:?} {max:?} {retry}"
            );
        }
    }

    #[test]
    fn the_default_doubles_from_100_ms_up_to_20_s() {
        let delays: Vec<_> = Backoff::default()
            .jitter(Jitter::None)
            .delays()
            .take(9)
            .collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 20_000];
        assert_eq!(delays, expected.map(Duration::from_millis));
        assert_eq!(Backoff::default().jitter, Jitter::Equal);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_comes_near_both() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (jitter, lowest) in [(Jitter::Equal, 500), (Jitter::Full, 0)] {
            let backoff = Backoff::exponential(1000 * MS, 1000 * MS).jitter(jitter);
            let mut drawn: Vec<_> = (0..1000).map(|_| backoff.draw(0, &mut rng)).collect();
            drawn.sort();
            let (first, last) = (drawn[0], drawn[999]);
            assert!(
                lowest * MS <= first && first < lowest * MS + 20 * MS,
                "{first:?}"
            );
            assert!(980 * MS < last && last <= 1000 * MS, "{last:?}");
        }
    }

    #[test]
    fn jitter_draws_uniformly() {
        const BINS: usize = 10;
        const DRAWS: usize = 100_000;
        let mut rng = fastrand::Rng::with_seed(1);
        for (jitter, lowest) in [(Jitter::Equal, 500 * MS), (Jitter::Full, Duration::ZERO)] {
            let backoff = Backoff::exponential(1000 * MS, 1000 * MS).jitter(jitter);
            let width = (1000 * MS - lowest).as_nanos() / BINS as u128;
            let mut counts = [0_usize; BINS];
            for _ in 0..DRAWS {
                let above = (backoff.draw(0, &mut rng) - lowest).as_nanos();
                // The highest value alone would need one more bin.
                let bin = (above / width) as usize;
                counts[bin.min(BINS - 1)] += 1;
            }
            let even = DRAWS / BINS;
            let is_even = |count: &usize| count.abs_diff(even) < even / 20;
            assert!(counts.iter().all(is_even), "{jitter:?}: {counts:?}");
        }
    }

    #[test]
    fn equal_jitter_never_draws_less_than_half_of_an_odd_bound() {
        let odd = Duration::from_nanos(3);
        let backoff = Backoff::exponential(odd, odd);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut drawn: Vec<_> = (0..100)
            .map(|_| backoff.draw(0, &mut rng).as_nanos())
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [2, 3]);
    }

    #[test]
    fn extreme_bounds_can_be_drawn_from() {
        let mut rng = fastrand::Rng::with_seed(1);
        for jitter in [Jitter::Equal, Jitter::Full, Jitter::None] {
            for extreme in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let drawn = Backoff::exponential(extreme, extreme)
                    .jitter(jitter)
                    .draw(u32::MAX, &mut rng);
                assert!(drawn <= extreme);
            }
        }
    }
}
