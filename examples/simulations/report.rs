//! The figures as text.

use crate::{Peer, Played};
use std::fmt::Write;

/// A name, its kind and the value.
pub type Figure = (&'static str, Kind, f64);

/// Ratios of which the least or the most is the worst, numbers, and figures that are only in the
/// table.
#[derive(Clone, Copy)]
pub enum Kind {
    Least,
    Most,
    Count,
    Detail,
}

/// The worst of each figure, and the first lines.
pub fn worst(one: Played, other: Played) -> Played {
    let pairs = one.0.into_iter().zip(other.0);
    let figures = pairs.map(|((name, kind, one), (_, _, other))| match kind {
        Kind::Least => (name, kind, one.min(other)),
        _ => (name, kind, one.max(other)),
    });
    (figures.collect(), one.1)
}

/// The title, a table of all figures, and a line for each figure of the first policy.
pub fn text(title: &str, peers: &[Peer], played: &[Played]) -> String {
    let mut text = format!("{title}\n\n{:36}", "");
    for peer in peers {
        _ = write!(text, "{:>17}", peer.name);
    }
    let mut lines = String::new();
    for (row, &(name, kind, value)) in played[0].0.iter().enumerate() {
        _ = write!(text, "\n{name:36}");
        for (figures, _) in played {
            let value = figures[row].2;
            let decimals = if value.fract() == 0.0 { 0 } else { 4 };
            _ = write!(text, "{value:>17.decimals$}");
        }
        _ = match kind {
            Kind::Detail => Ok(()),
            Kind::Count => writeln!(lines, "count {name} {value}"),
            Kind::Least | Kind::Most => writeln!(lines, "ratio {name} {value:.4}"),
        };
    }
    format!("{text}\n\n{lines}")
}
