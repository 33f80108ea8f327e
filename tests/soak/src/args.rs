//! The command line.

use clap::Parser;
use std::time::Duration;

/// Make a great many calls under every mishap, and count what went wrong.
#[derive(Parser)]
pub struct Args {
    /// How many calls to make in virtual time; with few, some mishaps never happen, which is an
    /// error too
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub calls: usize,
    /// How long to go on over real sockets, on loopback
    #[arg(long, value_name = "M", default_value = "0", value_parser = minutes)]
    pub minutes: Duration,
    /// The seed of all randomness
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

fn minutes(argument: &str) -> Result<Duration, String> {
    let minutes: f64 = argument.parse().map_err(|_| "not a number")?;
    let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
    let day = Duration::from_secs(24 * 60 * 60);
    (time <= day)
        .then_some(time)
        .ok_or("longer than a day".into())
}
