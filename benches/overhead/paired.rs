//! Things measured in turn, and the medians of their rounds.

use std::{
    env,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

/// The fewest rounds that count.
const LEAST_ROUNDS: usize = 9;

const USUAL_ROUNDS: usize = 15;

/// About how long a slice runs, unless the side takes longer to run once. A busy
/// machine takes the processor away for milliseconds at a time: that spoils some
/// slices of a round, not all.
const SLICE: Duration = Duration::from_millis(2);

/// How many places in the stack the slices of a side run at, each once a round.
/// Where an answer of some hundred bytes comes to lie there decides over
/// nanoseconds, and the system begins the stack elsewhere in each process.
const DEPTHS: u32 = 13;

/// About how long one side of a round runs, all its slices together, and how
/// long a slice is that needs no others.
const LEAST: Duration = SLICE.saturating_mul(DEPTHS);

/// The pause after each slice, in which the helper threads of timer crates
/// finish what it left to them. Nobody is charged for that, neither the slice,
/// whose time is taken by then, nor the next one: it flatters whoever leaves
/// them much.
const SETTLE: Duration = Duration::from_micros(300);

/// How many rounds to run.
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
    name: String,
    bare: Option<Side>,
    calls: usize,
    run: Box<dyn FnMut() + 'a>,

    /// How deep in the stack the last slice was.
    depth: u32,
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

/// How a side's share of a round is divided.
struct Slices {
    number: u32,

    /// How often the side is run in each.
    runs: u32,
}

impl Contender<'_> {
    /// Finds out what makes slices that are long enough: one for each depth, or
    /// one alone where it is as long as all of them would be.
    fn calibrate(&mut self) -> Slices {
        (self.run)();
        let mut runs = 1;
        loop {
            let times = [(); 3].map(|()| self.time(runs));
            let elapsed = times.into_iter().min().unwrap_or_default();
            if elapsed >= SLICE {
                let number = if elapsed < LEAST { DEPTHS } else { 1 };
                let runs = f64::from(runs) * SLICE.div_duration_f64(elapsed);
                let runs = runs.ceil() as u32;
                return Slices { number, runs };
            }
            runs *= 2;
        }
    }

    fn time(&mut self, runs: u32) -> Duration {
        self.depth = (self.depth + 1) % DEPTHS;
        let start = Instant::now();
        deeper(self.depth, &mut || {
            for _ in 0..runs {
                (self.run)();
            }
        });
        let elapsed = start.elapsed();
        thread::sleep(SETTLE);
        elapsed
    }

    fn nanos_per_call(&mut self, runs: u32) -> f64 {
        let elapsed = self.time(runs);
        elapsed.as_nanos() as f64 / (f64::from(runs) * self.calls as f64)
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

    /// Adds a side that makes so many calls each time it is run; `bare` is the
    /// side that makes the same calls without a wrapper.
    pub fn add<R>(
        &mut self,
        name: impl Into<String>,
        bare: impl Into<Option<Side>>,
        calls: usize,
        mut run: impl FnMut() -> R + 'a,
    ) -> Side {
        self.contenders.push(Contender {
            name: name.into(),
            bare: bare.into(),
            calls,
            depth: 0,
            run: Box::new(move || {
                black_box(run());
            }),
        });
        Side(self.contenders.len() - 1)
    }

    /// Runs slices of one side after the other, and that for so many rounds.
    pub fn measure(mut self, rounds: usize) -> Measured {
        let slices: Vec<Slices> = self
            .contenders
            .iter_mut()
            .map(Contender::calibrate)
            .collect();
        let rounds: Vec<Vec<f64>> = (0..rounds).map(|_| self.round(&slices)).collect();
        let samples = |side: usize| rounds.iter().map(|round| round[side]).collect();
        let rows = self.contenders.into_iter().enumerate();
        Measured {
            title: self.title,
            rows: rows
                .map(|(side, contender)| Row {
                    name: contender.name,
                    bare: contender.bare,
                    samples: samples(side),
                })
                .collect(),
        }
    }

    /// The nanoseconds of a call of each side, as the median of its slices.
    fn round(&mut self, slices: &[Slices]) -> Vec<f64> {
        let most = slices.iter().map(|slices| slices.number).max();
        let mut samples = vec![Vec::new(); slices.len()];
        for turn in 0..most.unwrap_or(0) {
            for (side, contender) in self.contenders.iter_mut().enumerate() {
                if turn < slices[side].number {
                    samples[side].push(contender.nanos_per_call(slices[side].runs));
                }
            }
        }
        samples.into_iter().map(median).collect()
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
        Some(self.differences(side, self.rows[side.0].bare?))
    }

    fn differences(&self, side: Side, from: Side) -> Vec<f64> {
        let [more, less] = [side, from].map(|Side(side)| &self.rows[side].samples);
        more.iter().zip(less).map(|(a, b)| a - b).collect()
    }
}

/// The median of the quotients of the rounds.
fn quotient(over: &[f64], under: &[f64]) -> f64 {
    median(over.iter().zip(under).map(|(a, b)| a / b).collect())
}
