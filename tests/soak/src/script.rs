//! The script of a call. This is the one place where faults are drawn.

use crabllm_retry::{Backoff, Jitter, Operations, Policy};
use fastrand::Rng;
use std::time::Duration;

/// All times are multiples of it, so that many things happen at one instant.
const TICK: Duration = Duration::from_millis(50);

/// The script of a call: a function of the call's seed, so that a failure can be repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script {
    pub seed: u64,
    pub streams: bool,

    /// The moment at which the call is dropped, in half polls: an even one is in place of a poll,
    /// an odd one after a poll that finds it pending.
    pub cancel_at: Option<usize>,

    /// Whether the call has a rate limiter.
    pub limited: bool,

    /// Whether the call moves to another executor after its first poll.
    pub moves: bool,

    /// Whether the call's wrapper has a timer of its own. A stream outlives such a wrapper.
    pub own_timer: bool,

    /// The event at which the observer panics, from 0.
    pub observer_panics_at: Option<usize>,

    /// The pause of the caller before it reads an item.
    pub pause: Duration,

    /// The jump of the clock before the call, which ends sleeps.
    pub jump: Duration,

    /// The jump of the clock that leaves the sleeps behind, as after the suspend of a laptop.
    pub suspend: Duration,
}

/// The action of an attempt, or of a stream in place of an item.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Succeed,
    /// An error with this status that asks to wait so many seconds, unless they are zero.
    Fail(u16, u64),
    Hang,
    Panic,
    /// The stream ends.
    End,
}

impl Script {
    /// The script of a call in a round. Every third round has a rate limiter.
    pub fn new(seed: u64, round: usize) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let streams = rng.bool();
        let hours = |hours| Duration::from_secs(3600 * hours);
        let jumps = |rng: &mut Rng| hours(if one_in(rng, 512) { rng.u64(1..5) } else { 0 });
        Self {
            seed,
            streams,
            cancel_at: one_in(rng, 4).then(|| rng.usize(..24)),
            limited: round.is_multiple_of(3),
            moves: one_in(rng, 8),
            own_timer: one_in(rng, if streams { 4 } else { 64 }),
            observer_panics_at: one_in(rng, 32).then(|| rng.usize(..6)),
            // Longer than any `stream_idle`.
            pause: Duration::from_secs(if one_in(rng, 8) { 8 } else { 0 }),
            jump: jumps(rng),
            suspend: jumps(rng),
        }
    }

    /// The action of each attempt, from 0, and its delay.
    pub fn attempt(&self, number: usize) -> (Duration, Act) {
        let rng = &mut Rng::with_seed(mix(self.seed, number as u64));
        let act = match rng.u8(..100) {
            0..45 => Act::Succeed,
            45..69 => Act::Fail(503, 0),
            69..75 => Act::Fail(429, 0),
            75..78 => Act::Fail(429, rng.u64(1..6)),
            78..81 => Act::Fail(503, rng.u64(1..6)),
            81 => Act::Fail(503, 3600),
            82..89 => Act::Fail(400, 0),
            89..98 => Act::Hang,
            _ => Act::Panic,
        };
        // Half of them at once, the others up to a little above the longest timeout.
        let ticks = if rng.bool() { rng.u32(..50) } else { 0 };
        (TICK * ticks, act)
    }

    /// The announcements at the start of an attempt's stream.
    pub fn announcements(&self, attempt: usize) -> usize {
        let rng = &mut Rng::with_seed(mix(!self.seed, attempt as u64));
        let most = if one_in(rng, 16) { 20 } else { 4 };
        rng.usize(..most)
    }

    /// The action of each attempt's stream in place of an item, from 0, and its delay.
    pub fn item(&self, attempt: usize, number: usize) -> (Duration, Act) {
        let rng = &mut Rng::with_seed(mix(mix(!self.seed, attempt as u64), number as u64));
        // Most faults are before or at the first content.
        let is_early = number <= self.announcements(attempt);
        let faults = if is_early { 40 } else { 160 };
        let act = match rng.u8(..faults) {
            0..3 => Act::Fail(503, 0),
            3 => Act::Fail(400, 0),
            4..7 => Act::Hang,
            7 => Act::Panic,
            8..11 => Act::End,
            _ => Act::Succeed,
        };
        let ticks = if rng.bool() { rng.u32(..20) } else { 0 };
        (TICK * ticks, act)
    }
}

/// The policy of a wrapper.
pub fn policy(rng: &mut Rng) -> Policy {
    let jitters = [Jitter::None, Jitter::Equal, Jitter::Full];
    let initial = TICK * rng.u32(..10);
    let backoff = Backoff::exponential(initial, Duration::from_secs(2));
    let deadline = if one_in(rng, 3) { rng.u32(20..120) } else { 0 };
    let first_content = if one_in(rng, 4) { rng.u32(20..60) } else { 0 };
    let retried = match rng.bool() {
        true => Operations::CHAT | Operations::STREAMS,
        false => Operations::CHAT,
    };
    Policy::default()
        .max_retries(rng.u32(..5))
        .timeout(TICK * rng.u32(10..40))
        .deadline(TICK * deadline)
        .first_content(TICK * first_content)
        .backoff(backoff.jitter(jitters[rng.usize(..3)]))
        .max_retry_after(Duration::from_secs(4))
        .stream_idle(TICK * rng.u32(21..60))
        .retry(retried)
}

fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// The seed of one part of what another seed determines: the finisher of SplitMix64.
pub fn mix(seed: u64, part: u64) -> u64 {
    let mut mixed = seed.wrapping_add(part.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
