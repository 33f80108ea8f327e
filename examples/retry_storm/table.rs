//! The figures in text.

use crate::{contender::Contender, figures::Figures, record::Record, scenario::Scenario};
use std::fmt::Write;

const HEADER: [&str; 7] = [
    "policy",
    "attempts/call",
    "worst second",
    "recovery",
    "succeeded",
    "wasted retries",
    "time to fail",
];

/// The figures of each policy, and what they mean.
pub fn write(contenders: &[Contender], records: &[Record], scenario: &Scenario) -> String {
    let rows = contenders
        .iter()
        .zip(records)
        .map(|(contender, record)| row(contender.name, &Figures::new(record)));
    let rows: Vec<_> = [HEADER.map(String::from)].into_iter().chain(rows).collect();
    let widths: [usize; HEADER.len()] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    });
    let mut text = preface(scenario);
    for [name, figures @ ..] in &rows {
        let [name_width, figure_widths @ ..] = &widths;
        _ = write!(text, "{name:<name_width$}");
        for (figure, width) in figures.iter().zip(figure_widths) {
            _ = write!(text, "  {figure:>width$}");
        }
        text.push('\n');
    }
    text.push_str(
        "\n\
        policy          those of crabllm-core and OpenAI's library are played by this crate's engine\n\
        attempts/call   in the outage\n\
        worst second    the same in the worst second of all\n\
        recovery        from the end of the outage until 99 % of new calls succeed for good\n\
        succeeded       of the calls since the outage began\n\
        wasted retries  of calls that failed all the same\n\
        time to fail    of a failed call, on average\n",
    );
    text
}

fn preface(scenario: &Scenario) -> String {
    let outage = Scenario::OUTAGE;
    format!(
        "{} callers in {} processes, one call a second each, for {} s.\n\
        The server can serve {} requests a second; a rejected one costs it {} of a served one.\n\
        From second {} to second {} it answers 503. Seed {}.\n\n",
        scenario.callers,
        scenario.processes(),
        Scenario::END.as_secs(),
        scenario.capacity(),
        scenario.rejection_cost,
        outage.start.as_secs(),
        outage.end.as_secs(),
        scenario.seed,
    )
}

fn row(name: &str, figures: &Figures) -> [String; HEADER.len()] {
    let recovery = figures.recovery;
    [
        name.into(),
        format!("{:.3}", figures.attempts_per_call),
        format!("{:.3}", figures.worst_second),
        recovery.map_or("not seen".into(), |time| {
            format!("{:.1} s", time.as_secs_f64())
        }),
        format!("{:.2} %", figures.succeeded * 100.0),
        figures.wasted.to_string(),
        format!("{:.0} ms", figures.time_to_fail.as_secs_f64() * 1000.0),
    ]
}
