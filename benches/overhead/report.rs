//! The tables, and the figures at the end.

use crate::paired::{Measured, Side};
use std::collections::BTreeMap;

/// The figures that end the output, in order.
const FIGURES: [&str; 19] = [
    "ratio ready_vs_tokio_timeout",
    "ratio armed_vs_tokio_timeout",
    "ratio armed_vs_floor",
    "ratio armed_vs_original",
    "ratio armed_vs_naive_futures_timer",
    "ratio armed_vs_naive_async_io",
    "ratio inflight_100k_vs_tokio",
    "ratio inflight_1m_vs_1k",
    "ratio inflight_mixed_vs_alone",
    "ratio two_threads_vs_tokio",
    "count allocations_per_call",
    "count inflight_heap_bytes",
    "count future_bytes_over_4k_inner",
    "count idle_stream_ns_per_item",
    "count idle_stream_allocations_per_item",
    "count late_p99_us",
    "count early",
    "count threads",
    "count crates",
];

/// Prints tables at once and keeps the figures for the end.
pub struct Report {
    figures: BTreeMap<String, String>,
}

impl Report {
    pub fn new(rounds: usize) -> Self {
        println!("Medians of {rounds} rounds, in which the sides of a comparison take turns.");
        println!("On a shared or busy machine believe the ratios, not the nanoseconds.");
        Self {
            figures: BTreeMap::new(),
        }
    }

    /// Prints the results of a group, compared with one of its sides.
    pub fn section(&self, measured: &Measured, ours: Side) {
        println!("\n{}", measured.title);
        let divisor = format!("÷ {}", measured.name(ours));
        println!(
            "  {:<34}{:>12}{:>12}{divisor:>24}",
            "", "ns/call", "overhead"
        );
        for (side, name) in measured.sides() {
            let overhead = cell(measured.overhead(side), 1);
            let ratio = cell(measured.overhead_ratio(side, ours), 2);
            let nanos = measured.nanos(side);
            println!("  {name:<34}{nanos:>12.1}{overhead:>12}{ratio:>24}");
        }
    }

    /// Prints one value for each contender.
    pub fn values<'a>(&self, title: &str, rows: impl IntoIterator<Item = (&'a str, f64)>) {
        println!("\n{title}");
        for (name, value) in rows {
            println!("  {name:<34}{value:>12.4}");
        }
    }

    /// Keeps a quotient of overheads for the end.
    pub fn overhead_ratio(&mut self, name: &str, measured: &Measured, side: Side, to: Side) {
        let ratio = measured.overhead_ratio(side, to);
        self.ratio(name, ratio.expect("sides that are not bare"));
    }

    /// Keeps a ratio for the end.
    pub fn ratio(&mut self, name: &str, value: f64) {
        self.keep(format!("ratio {name}"), format!("{value:.3}"));
    }

    /// Keeps a number, rounded to an integer, for the end.
    pub fn count(&mut self, name: &str, value: f64) {
        self.keep(format!("count {name}"), format!("{}", value.round() as i64));
    }

    fn keep(&mut self, figure: String, value: String) {
        assert!(FIGURES.contains(&&*figure), "{figure} is not asked for");
        self.figures.insert(figure, value);
    }

    /// Prints the figures.
    pub fn finish(self) {
        println!();
        for figure in FIGURES {
            println!("{figure} {}", self.figures[figure]);
        }
    }
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}
