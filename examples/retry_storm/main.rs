//! An outage of half a minute, and what retries make of it, under virtual time.
//!
//! ```sh
//! cargo run --release --example retry_storm
//! ```
//!
//! 10,000 callers in 100 processes make one call a second each to one provider. It is an open
//! loop: a new call begins each second, whatever became of the earlier ones, as users do not wait
//! for each other. The provider serves 1.2 times that load. After 10 seconds it answers every
//! request with status 503, for 30 seconds, and then serves as before. What is above its capacity
//! it answers with status 429, and that is not free: see [`server`].
//!
//! The same calls are made under four policies, see [`contender`]. Each process has one wrapper,
//! and so a budget of its own. Nothing waits in real time, and equal seeds give equal figures.

#![forbid(unsafe_code)]

mod args;
mod chart;
#[path = "../support/console.rs"]
mod console;
mod contender;
mod figures;
mod record;
mod scenario;
mod server;
mod simulation;
mod table;

use args::Args;
use clap::Parser;
use console::{eprint, print};
use contender::Contender;
use std::{fs, process::ExitCode};

fn main() -> ExitCode {
    let args = Args::parse();
    let scenario = args.scenario();
    let contenders = Contender::all();
    let records = simulation::run_all(&contenders, &scenario);
    print(&table::write(&contenders, &records, &scenario));
    let chart = chart::draw(&contenders, &records, &scenario);
    let path = args.svg.display();
    match chart.and_then(|svg| Ok(fs::write(&args.svg, svg)?)) {
        Ok(()) => {
            print(&format!("\nAttempts per second: {path}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint(&format!("error: {path}: {error}"));
            ExitCode::FAILURE
        }
    }
}
