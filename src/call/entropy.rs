//! The random numbers of one wrapper.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The randomness of jitter.
#[derive(Clone, Default)]
pub struct Entropy {
    /// `None` uses the thread's own entropy.
    sequence: Option<Sequence>,
}

/// A sequence of seeds.
#[derive(Clone)]
struct Sequence {
    first: u64,

    /// Seeds taken by this wrapper and its clones.
    taken: Arc<AtomicUsize>,
}

impl Entropy {
    pub fn seeded(seed: u64) -> Self {
        Self {
            sequence: Some(Sequence {
                first: seed,
                taken: Arc::default(),
            }),
        }
    }

    /// A generator for one draw.
    pub fn rng(&self) -> fastrand::Rng {
        // Weyl's sequence on the golden ratio, as in SplitMix64: successive seeds
        // lie far apart.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        match &self.sequence {
            Some(Sequence { first, taken }) => {
                let taken = taken.fetch_add(1, Ordering::Relaxed) as u64;
                fastrand::Rng::with_seed(first.wrapping_add(STEP.wrapping_mul(taken)))
            }
            None => fastrand::Rng::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_sequences() {
        let drawn = |seed| {
            let entropy = Entropy::seeded(seed);
            [(); 3].map(|()| entropy.rng().u64(..))
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_ne!(drawn(7)[0], drawn(7)[1]);
        let unseeded = Entropy::default();
        assert_ne!(unseeded.rng().u64(..), unseeded.rng().u64(..));
    }
}
