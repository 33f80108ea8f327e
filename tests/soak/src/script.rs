//! The script of each call: drawn from the seed and the number of the call, so that nothing
//! has to be kept and a failure can be repeated.

use fastrand::Rng;
use std::time::Duration;

/// All times are multiples of it, so that many things happen at one instant.
pub const TICK: Duration = Duration::from_millis(50);
/// The pause of a consumer that is slow: longer than any bound on the silence of a stream.
pub const SLOW: Duration = Duration::from_secs(8);

/// The actions of one call, and the faults that it meets.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    pub streams: bool,
    /// When its caller drops it, counted from its first poll.
    pub cancel: Option<Cancel>,
    /// Whether it goes on on another executor after its first poll.
    pub hops: bool,
    /// Whether it is made by a clone of a wrapper.
    pub clones: bool,
    /// Whether it is made by a wrapper of its own, which goes as soon as a stream is open.
    pub orphaned: bool,
    /// Which of the events told makes the observer panic.
    pub observer_panics_at: Option<usize>,
    /// The items of its stream once it is open.
    pub flow: Flow,
    /// Whether its consumer takes a long while over each item.
    pub slow: bool,
    /// The seed of the outcomes of its attempts.
    pub key: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cancel {
    Unpolled,
    /// At this time, wherever the call is then.
    After(Duration),
    /// When so many items of its stream have arrived.
    Items(usize),
}

/// The outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    pub after: Duration,
    pub act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    Succeed,
    /// Fails with this status and asks to wait so many seconds.
    Fail(u16, u64),
    Disconnect,
    Misconfigured,
    Hang,
    Panic,
}

/// The items of an open stream, and its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    pub items: usize,
    pub pace: Duration,
    pub end: FlowEnd,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FlowEnd {
    Finish,
    Fail,
    Hang,
    Panic,
}

impl Script {
    /// The script of the call with this number.
    pub fn of(seed: u64, call: usize) -> Self {
        let key = mix(seed, call as u64);
        let rng = &mut Rng::with_seed(key);
        let streams = one_in(rng, 4);
        Self {
            streams,
            cancel: Cancel::draw(rng, streams),
            hops: one_in(rng, 8),
            clones: one_in(rng, 8),
            orphaned: one_in(rng, if streams { 4 } else { 64 }),
            observer_panics_at: one_in(rng, 64).then(|| rng.usize(..3)),
            flow: Flow::draw(rng),
            slow: one_in(rng, 8),
            key,
        }
    }

    /// The outcome of an attempt, counted from zero.
    pub fn turn(&self, attempt: usize) -> Turn {
        Turn::draw(&mut Rng::with_seed(mix(self.key, attempt as u64)))
    }
}

impl Cancel {
    fn draw(rng: &mut Rng, streams: bool) -> Option<Self> {
        match rng.u8(..24) {
            0 => Some(Self::Unpolled),
            1 => Some(Self::After(Duration::ZERO)),
            // Between two ticks, so that it never falls on anything else.
            2..5 => Some(Self::After(TICK * rng.u32(..60) + TICK / 2)),
            5..9 if streams => Some(Self::Items(rng.usize(..4))),
            _ => None,
        }
    }
}

impl Turn {
    fn draw(rng: &mut Rng) -> Self {
        let act = match rng.u8(..100) {
            0..45 => Act::Succeed,
            45..60 => Act::Fail(503, 0),
            60..66 => Act::Fail(429, 0),
            66..69 => Act::Fail(429, rng.u64(1..6)),
            69..72 => Act::Fail(503, rng.u64(1..6)),
            72..73 => Act::Fail(503, 3600),
            73..82 => Act::Disconnect,
            82..86 => Act::Misconfigured,
            86..89 => Act::Fail(400, 0),
            89..98 => Act::Hang,
            _ => Act::Panic,
        };
        // Half of them at once, the others up to a little above the longest timeout.
        let after = if rng.bool() {
            TICK * rng.u32(..50)
        } else {
            Duration::ZERO
        };
        Self { after, act }
    }
}

impl Flow {
    fn draw(rng: &mut Rng) -> Self {
        let end = match rng.u8(..16) {
            0..10 => FlowEnd::Finish,
            10..12 => FlowEnd::Fail,
            12..15 => FlowEnd::Hang,
            _ => FlowEnd::Panic,
        };
        Self {
            items: rng.usize(..6),
            pace: TICK * rng.u32(..20),
            end,
        }
    }
}

pub fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// A seed for one part of what is drawn from another: the finisher of SplitMix64.
pub fn mix(seed: u64, part: u64) -> u64 {
    let mut mixed = seed.wrapping_add(part.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_scripts() {
        let scripts = |seed| (0..100).map(move |call| Script::of(seed, call));
        assert!(scripts(1).eq(scripts(1)));
        assert!(!scripts(1).eq(scripts(2)));
        let script = Script::of(1, 7);
        assert_eq!(script.turn(3), script.turn(3));
    }
}
