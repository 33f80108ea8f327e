//! Sides measured in turn, and the medians of their rounds.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

pub const ROUNDS: usize = 15;

/// The rough length of a slice, unless one run of the side takes longer. A busy machine
/// takes the processor away for milliseconds at a time: that spoils some slices of a round,
/// not all.
const SLICE: Duration = Duration::from_millis(2);

/// The number of places in the stack at which the slices of a side run, each once a round.
/// The place of an answer of some hundred bytes costs or saves nanoseconds, and the system
/// begins the stack elsewhere in each process.
const DEPTHS: u32 = 13;

/// The rough length of all slices of a side in a round, and of a side that needs only one.
const LEAST: Duration = SLICE.saturating_mul(DEPTHS);

/// The pause after each slice, in which the helper threads of timer crates finish the work
/// left to them. No side is charged for it, which flatters those that leave them much.
const SETTLE: Duration = Duration::from_micros(300);

/// The middle of the samples, whose number is odd.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// One of the things that [`measure`] compares.
pub struct Side<'a> {
    name: &'static str,
    calls: usize,
    run: Box<dyn FnMut() + 'a>,

    /// The place in the stack of the last slice.
    depth: u32,

    slices: u32,
    runs_of_a_slice: u32,
}

impl<'a> Side<'a> {
    /// A side that makes so many calls in each run.
    pub fn new<R>(name: &'static str, calls: usize, mut run: impl FnMut() -> R + 'a) -> Self {
        Self {
            name,
            calls,
            run: Box::new(move || {
                black_box(run());
            }),
            depth: 0,
            slices: 0,
            runs_of_a_slice: 0,
        }
    }

    /// Finds the number of runs that makes a slice long enough. There is one slice for each
    /// depth, or a single one if that is as long as all of them would be.
    fn calibrate(&mut self) {
        (self.run)();
        self.runs_of_a_slice = 1;
        loop {
            let times = [(); 3].map(|()| self.time());
            let elapsed = times.into_iter().min().unwrap_or_default();
            if elapsed >= SLICE {
                self.slices = if elapsed < LEAST { DEPTHS } else { 1 };
                let runs = f64::from(self.runs_of_a_slice) * SLICE.div_duration_f64(elapsed);
                self.runs_of_a_slice = runs.ceil() as u32;
                return;
            }
            self.runs_of_a_slice *= 2;
        }
    }

    fn time(&mut self) -> Duration {
        self.depth = (self.depth + 1) % DEPTHS;
        let start = Instant::now();
        deeper(self.depth, &mut || {
            for _ in 0..self.runs_of_a_slice {
                (self.run)();
            }
        });
        let elapsed = start.elapsed();
        thread::sleep(SETTLE);
        elapsed
    }

    fn nanos_per_call(&mut self) -> f64 {
        let elapsed = self.time().as_nanos() as f64;
        elapsed / (f64::from(self.runs_of_a_slice) * self.calls as f64)
    }
}

/// Calls `f` from further down the stack.
#[inline(never)]
fn deeper(depth: u32, f: &mut dyn FnMut()) {
    let room = black_box([0_u8; 48]);
    match depth.checked_sub(1) {
        Some(depth) => deeper(depth, f),
        None => f(),
    }
    black_box(&room);
}

/// The nanoseconds of a call, round by round.
pub struct Nanos(Vec<f64>);

impl Nanos {
    /// The overhead over the same call bare.
    pub fn beyond(&self, bare: &Self) -> Self {
        Self(self.0.iter().zip(&bare.0).map(|(a, b)| a - b).collect())
    }

    /// The median of the quotients of the rounds.
    pub fn over(&self, other: &Self) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    pub fn median(&self) -> f64 {
        median(self.0.clone())
    }
}

/// Runs slices of one side after the other, for [`ROUNDS`] rounds. The sample of a round is
/// the median of its slices.
pub fn measure<const N: usize>(title: &str, mut sides: [Side<'_>; N]) -> [Nanos; N] {
    sides.iter_mut().for_each(Side::calibrate);
    let mut measured = [(); N].map(|()| Nanos(Vec::new()));
    for _ in 0..ROUNDS {
        let mut samples = [(); N].map(|()| Vec::new());
        for turn in 0..DEPTHS {
            for (side, samples) in sides.iter_mut().zip(&mut samples) {
                if turn < side.slices {
                    samples.push(side.nanos_per_call());
                }
            }
        }
        for (nanos, samples) in measured.iter_mut().zip(samples) {
            nanos.0.push(median(samples));
        }
    }
    for (side, nanos) in sides.iter().zip(&measured) {
        eprintln!("{:>9.1} ns  {title}: {}", nanos.median(), side.name);
    }
    measured
}
