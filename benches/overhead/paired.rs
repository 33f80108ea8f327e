//! Things measured in turn, and the medians of their rounds.

use std::{
    env,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

const LEAST_ROUNDS: usize = 9;

const USUAL_ROUNDS: usize = 15;

/// The rough length of a slice, unless one run of the side takes longer. A busy machine
/// takes the processor away for milliseconds at a time: that spoils some slices of a round,
/// not all.
const SLICE: Duration = Duration::from_millis(2);

/// The number of places in the stack at which the slices of a side run, each once a round.
/// The place of an answer of some hundred bytes decides over nanoseconds, and the system
/// begins the stack elsewhere in each process.
const DEPTHS: u32 = 13;

/// The rough length of all slices of a side in a round, and of a side that needs only one.
const LEAST: Duration = SLICE.saturating_mul(DEPTHS);

/// The pause after each slice, in which the helper threads of timer crates finish the work
/// it left to them. Nobody is charged for it, neither the slice, whose time is taken by
/// then, nor the next one: it flatters contenders that leave them much.
const SETTLE: Duration = Duration::from_micros(300);

/// The number of rounds to run.
pub fn rounds() -> usize {
    env::var("OVERHEAD_ROUNDS")
        .map_or(USUAL_ROUNDS, |asked| {
            asked.parse().expect("OVERHEAD_ROUNDS is a number")
        })
        .max(LEAST_ROUNDS)
}

/// The middle of the samples.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len().is_multiple_of(2) {
        (samples[middle - 1] + samples[middle]) / 2.0
    } else {
        samples[middle]
    }
}

/// One of the things that a [`Group`] compares.
#[derive(Clone, Copy)]
pub struct Side(usize);

struct Contender<'a> {
    row: Row,
    calls: usize,
    run: Box<dyn FnMut() + 'a>,

    /// The place in the stack of the last slice.
    depth: u32,

    slices: u32,
    runs_of_a_slice: u32,
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

impl Contender<'_> {
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

/// Things to be measured in turn.
pub struct Group<'a> {
    title: String,
    contenders: Vec<Contender<'a>>,
}

impl<'a> Group<'a> {
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            contenders: Vec::new(),
        }
    }

    /// Adds a side that makes so many calls in each run. `bare` is the side that makes the
    /// same calls without a wrapper.
    pub fn add<R>(
        &mut self,
        name: impl Into<String>,
        bare: impl Into<Option<Side>>,
        calls: usize,
        mut run: impl FnMut() -> R + 'a,
    ) -> Side {
        self.contenders.push(Contender {
            row: Row {
                name: name.into(),
                bare: bare.into(),
                samples: Vec::new(),
            },
            calls,
            run: Box::new(move || {
                black_box(run());
            }),
            depth: 0,
            slices: 0,
            runs_of_a_slice: 0,
        });
        Side(self.contenders.len() - 1)
    }

    /// Runs slices of one side after the other, for so many rounds.
    pub fn measure(mut self, rounds: usize) -> Measured {
        self.contenders.iter_mut().for_each(Contender::calibrate);
        for _ in 0..rounds {
            self.round();
        }
        Measured {
            title: self.title,
            rows: self.contenders.into_iter().map(|side| side.row).collect(),
        }
    }

    /// Adds to each side the nanoseconds of a call, as the median of its slices.
    fn round(&mut self) {
        let mut samples = vec![Vec::new(); self.contenders.len()];
        for turn in 0..DEPTHS {
            for (side, samples) in self.contenders.iter_mut().zip(&mut samples) {
                if turn < side.slices {
                    samples.push(side.nanos_per_call());
                }
            }
        }
        for (side, samples) in self.contenders.iter_mut().zip(samples) {
            side.row.samples.push(median(samples));
        }
    }
}

/// One side's nanoseconds for each call, round by round.
struct Row {
    name: String,
    bare: Option<Side>,
    samples: Vec<f64>,
}

/// The result of a [`Group`].
pub struct Measured {
    pub title: String,
    rows: Vec<Row>,
}

impl Measured {
    /// All sides, in the order in which they took turns.
    pub fn sides(&self) -> impl Iterator<Item = (Side, &str)> {
        let rows = self.rows.iter().enumerate();
        rows.map(|(index, row)| (Side(index), &*row.name))
    }

    pub fn name(&self, side: Side) -> &str {
        &self.rows[side.0].name
    }

    /// The nanoseconds of a call.
    pub fn nanos(&self, side: Side) -> f64 {
        median(self.rows[side.0].samples.clone())
    }

    /// The nanoseconds of a call less those of the same call bare, for a side
    /// that is not bare itself.
    pub fn overhead(&self, side: Side) -> Option<f64> {
        self.overheads(side).map(median)
    }

    /// The overhead of one side for each nanosecond of the other's.
    pub fn overhead_ratio(&self, side: Side, to: Side) -> Option<f64> {
        let (over, under) = (self.overheads(side)?, self.overheads(to)?);
        Some(quotient(&over, &under))
    }

    /// The time of one side for each nanosecond of the other's.
    pub fn ratio(&self, side: Side, to: Side) -> f64 {
        quotient(&self.rows[side.0].samples, &self.rows[to.0].samples)
    }

    fn overheads(&self, side: Side) -> Option<Vec<f64>> {
        let row = &self.rows[side.0];
        let bare = &self.rows[row.bare?.0].samples;
        Some(row.samples.iter().zip(bare).map(|(a, b)| a - b).collect())
    }
}

/// The median of the quotients of the rounds.
fn quotient(over: &[f64], under: &[f64]) -> f64 {
    median(over.iter().zip(under).map(|(a, b)| a / b).collect())
}
