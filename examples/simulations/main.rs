//! Whole scenarios in virtual time, under this crate's policies and those of its peers.
//!
//! ```sh
//! cargo run --release -p simulations -- outage|rate-limit|streams|failover [--seed N] [--svg FILE]
//! ```
//!
//! This crate's engine plays all policies. Equal seeds give equal figures.

#![forbid(unsafe_code)]

mod aws;
mod calls;
mod chart;
mod failover;
mod outage;
mod peers;
mod rate_limit;
mod report;
mod server;
mod streams;

use chart::{Chart, Line};
use clap::Parser;
use peers::Peer;
use report::Figure;
use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

/// Simulate a provider in trouble, under several policies of its callers.
#[derive(Parser)]
struct Args {
    /// The scenario to simulate
    #[arg(value_parser = ["outage", "rate-limit", "streams", "failover"])]
    scenario: String,

    /// The seed of all randomness [default: 1; rate-limit and failover: the worst of 1 to 20]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where to write a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A scenario, ready to be played.
struct Simulation {
    title: &'static str,

    /// The policies. The figures of the first one are the result.
    peers: Vec<Peer>,

    /// Plays a policy with a seed.
    play: fn(&Peer, u64) -> Played,

    /// The chart without the lines of the policies.
    chart: Chart,
}

/// The figures of one policy, and its lines in the chart.
type Played = (Vec<Figure>, Vec<Line>);

fn main() -> Result<(), String> {
    let args = Args::parse();
    let (mut simulation, last) = match args.scenario.as_str() {
        "outage" => (outage::simulation(), 1),
        "rate-limit" => (rate_limit::simulation(), 20),
        "streams" => (streams::simulation(), 1),
        _ => (failover::simulation(), 20),
    };
    let seeds = args.seed.map_or(1..=last, |seed| seed..=seed);
    let peers = &simulation.peers;
    let played = peers.iter().enumerate().map(|(index, peer)| {
        let count = if index == 0 { usize::MAX } else { 1 };
        let played = seeds.clone().take(count);
        let played = played.map(|seed| (simulation.play)(peer, seed));
        played.reduce(report::worst).unwrap_or_default()
    });
    let played: Vec<_> = played.collect();
    let text = report::text(simulation.title, peers, &played);
    // A reader that has gone is no error.
    _ = io::stdout().write_all(text.as_bytes());
    let Some(path) = args.svg else {
        return Ok(());
    };
    let lines = played.into_iter().flat_map(|(_, lines)| lines);
    simulation.chart.lines.extend(lines);
    fs::write(&path, simulation.chart.draw())
        .map_err(|error| format!("{}: {error}", path.display()))
}
