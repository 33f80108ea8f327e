//! An outage of half a minute under four retry policies, simulated in virtual time.
//!
//! ```sh
//! cargo run --release --example retry_storm
//! ```
//!
//! The callers share processes, a hundred each, and every process has one wrapper. Each
//! caller begins a call every second, whether or not its earlier calls have ended. The
//! provider serves 1.2 times that load. It answers 503 from second 10 to second 40, and 429
//! when overloaded; see [`server`].

#![forbid(unsafe_code)]

mod chart;
mod policy;
mod server;
mod simulation;

use clap::{Parser, value_parser};
use policy::SimulatedPolicy;
use simulation::Second;
use std::{error::Error, fs, path::PathBuf, thread, time::Duration};

/// Simulate an outage under four retry policies.
#[derive(Clone, Parser)]
struct Args {
    /// Where to write a chart of the attempts
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// How many callers there are, a hundred in each process
    #[arg(long, value_name = "N", default_value = "10000", value_parser = value_parser!(u32).range(1..=100_000))]
    callers: u32,

    /// The cost of a rejected request for the server, as a share of a served one
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    rejection_cost: f64,
}

fn share(argument: &str) -> Result<f64, String> {
    match argument.parse() {
        Ok(share @ 0.0..=1.0) => Ok(share),
        _ => Err("not a number between 0 and 1".into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let policies = SimulatedPolicy::all();
    let records: Vec<_> = thread::scope(|scope| {
        let run = |policy| {
            let args = &args;
            scope.spawn(move || simulation::run(policy, args))
        };
        let threads = policies.each_ref().map(run);
        threads.map(|thread| thread.join().unwrap()).into()
    });
    println!(
        "policy              attempts/call  worst second  succeeded  wasted retries  time to fail"
    );
    for (policy, seconds) in policies.iter().zip(&records) {
        println!("{:18}  {}", policy.name, figures(seconds));
    }
    println!(
        "\n\
        attempts/call   in the outage\n\
        worst second    the same in the worst second of all\n\
        succeeded       of the calls since the outage began\n\
        wasted retries  of calls that failed nevertheless\n\
        time to fail    of a failed call, on average"
    );
    if let Some(path) = &args.svg {
        fs::write(path, chart::draw(&policies, &records, &args)?)?;
    }
    Ok(())
}

/// The columns of a policy.
fn figures(seconds: &[Second]) -> String {
    let worst_second = seconds
        .iter()
        .map(Second::attempts_per_call)
        .fold(0.0, f64::max);
    let all = Second::sum(seconds);
    let since_outage = Second::sum(&seconds[server::OUTAGE.start..]);
    let succeeded = f64::from(since_outage.succeeded) / f64::from(since_outage.calls);
    let failed = all.calls - all.succeeded;
    let time_to_fail = all
        .time_to_fail
        .checked_div(failed)
        .unwrap_or(Duration::ZERO);
    format!(
        "{:>13.3}  {worst_second:>12.3}  {:>7.2} %  {:>14}  {:>9.0} ms",
        Second::sum(&seconds[server::OUTAGE]).attempts_per_call(),
        succeeded * 100.0,
        all.wasted_retries,
        time_to_fail.as_secs_f64() * 1000.0,
    )
}
