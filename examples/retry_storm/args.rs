//! The command line.

use crate::scenario::Scenario;
use clap::{Parser, builder::RangedU64ValueParser};
use std::path::PathBuf;

/// Simulate an outage and what four retry policies make of it.
#[derive(Parser)]
pub struct Args {
    /// Where to write the chart
    #[arg(long, value_name = "PATH", default_value = "retry_storm.svg")]
    pub svg: PathBuf,
    /// The seed of all randomness
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many callers there are, at most 100 in a process
    #[arg(
        long,
        value_name = "N",
        default_value = "10000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000),
    )]
    callers: usize,
    /// The cost of a rejected request for the server, in requests that it could have served
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    rejection_cost: f64,
}

impl Args {
    /// The scenario to simulate.
    pub fn scenario(&self) -> Scenario {
        Scenario {
            callers: self.callers,
            rejection_cost: self.rejection_cost,
            seed: self.seed,
        }
    }
}

fn share(argument: &str) -> Result<f64, String> {
    let share = argument.parse().map_err(|_| "not a number")?;
    match share {
        0.0..=1.0 => Ok(share),
        _ => Err("not between 0 and 1".into()),
    }
}
