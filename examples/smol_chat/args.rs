//! The command line and the environment.

use crate::flaky_server::Limit;
use clap::{Parser, builder::RangedU64ValueParser};
use std::{env, ops::RangeInclusive, path::PathBuf, time::Duration};

/// Ask an OpenAI-compatible server, patiently, and draw what became of each call.
///
/// The server is the one at OPENAI_BASE_URL, with the key OPENAI_API_KEY. Without OPENAI_BASE_URL
/// it is a flaky one in this process.
#[derive(Parser)]
pub struct Args {
    /// The question to ask
    #[arg(default_value = "What is patience?")]
    pub prompt: String,
    /// Which model to ask [default: $OPENAI_MODEL or gpt-4o-mini]
    #[arg(long)]
    model: Option<String>,
    /// Stream every reply [default: some of those of the flaky server]
    #[arg(long)]
    pub stream: bool,
    /// How many times to ask [default: 1, or once for each script of the flaky server]
    #[arg(long, value_name = "N", value_parser = count(1..=100_000))]
    pub calls: Option<usize>,
    /// How many calls may be under way at once
    #[arg(long, value_name = "K", default_value = "8", value_parser = count(1..=1_000))]
    pub concurrency: usize,
    /// Settings in TOML, such as examples/smol_chat/config.toml; other options go before them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many times to retry a call [default: 2, or 0 with --fallback]
    #[arg(long, value_name = "N")]
    pub max_retries: Option<u32>,
    /// The limit for an attempt, 0 for none [default: 30, or 1 with the faults of the flaky server]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// The limit for the silence of an open stream, 0 for none [default: 90, or 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub stream_idle: Option<Duration>,
    /// Retry streams until their first content; ► is their opening otherwise [always on with the
    /// flaky server]
    #[arg(long)]
    pub retry_streams: bool,
    /// Let the flaky server refuse what exceeds this limit, such as 20/s or 20/min, without other
    /// faults
    #[arg(long, value_name = "N/PERIOD")]
    pub server_limit: Option<Limit>,
    /// Find the rate that the server allows, and let calls wait for their turn
    #[arg(long)]
    pub rate_limit: bool,
    /// Fall back to a second server while the flaky one is silent, from its 5th call to its 12th
    #[arg(long)]
    pub fallback: bool,
    /// Print nothing but the last line and errors
    #[arg(long)]
    pub quiet: bool,
}

impl Args {
    /// The name of the model to ask.
    pub fn model(&self) -> String {
        let model = self.model.clone().or_else(|| variable("OPENAI_MODEL"));
        model.unwrap_or_else(|| "gpt-4o-mini".into())
    }
}

/// The value of an environment variable, unless it is empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn count(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

fn seconds(argument: &str) -> Result<Duration, String> {
    let seconds: f64 = argument.parse().map_err(|_| "not a number")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
