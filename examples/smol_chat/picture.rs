//! The picture of what happened to the calls, in text: a row for each, on one time axis.

use crate::{
    chart::Chart,
    timeline::{Call, FIRST_CONTENT, Kind},
};
use anstyle::AnsiColor::{self, BrightBlack, BrightBlue, Green, Magenta, Red, Yellow};

/// How many calls are drawn.
const MAX_ROWS: usize = 40;
/// The room for the outcomes of a call, in columns.
const MAX_OUTCOMES: usize = 32;

/// A tick of the axis behind everything else.
const GRID: Mark = ('┊', Some(BrightBlack));
/// The first content of a stream.
const CONTENT: Mark = (FIRST_CONTENT, Some(Green));
/// An open stream between two chunks.
const SILENCE: Mark = ('▁', Some(Green));

type Mark = (char, Option<AnsiColor>);

/// Some text of one colour.
type Piece = (String, Option<AnsiColor>);

/// Draws the calls in at most `width` columns, and explains the marks.
pub fn draw(calls: &[Call], width: usize, colored: bool) -> String {
    let hidden = calls.len().saturating_sub(MAX_ROWS);
    let calls = &calls[..calls.len() - hidden];
    let outcomes: Vec<_> = calls.iter().map(outcomes).collect();
    let names = calls.iter().map(|call| call.name.chars().count()).max();
    let names = names.unwrap_or_default();
    let margin = outcomes.iter().map(|outcomes| columns(outcomes)).max();
    let room = width.saturating_sub(names + margin.unwrap_or_default() + 4);
    let end = calls.iter().map(|call| call.end).max();
    let chart = Chart::new(end.unwrap_or_default(), room);

    let mut lines = vec![vec![(" ".repeat(names + 2) + &chart.axis(), None)]];
    for (call, outcomes) in calls.iter().zip(outcomes) {
        let mut line = vec![(format!("{:<names$}  ", call.name), None)];
        line.extend(row(call, &chart));
        line.push(("  ".into(), None));
        line.extend(outcomes);
        lines.push(line);
    }
    if hidden > 0 {
        lines.push(vec![(format!("and {hidden} more calls"), None)]);
    }
    lines.push(Vec::new());
    lines.push(legend());
    (lines.iter())
        .flat_map(|line| [paint(line, colored), "\n".into()])
        .collect()
}

fn legend() -> Vec<Piece> {
    let marks = [
        (mark(&Kind::Answered), "answered"),
        (mark(&Kind::Failed(String::new())), "failed"),
        (mark(&Kind::Backoff), "backoff"),
        (mark(&Kind::RetryAfter), "Retry-After"),
        (CONTENT, "first content"),
        (mark(&Kind::Chunk), "chunk"),
        (SILENCE, "open"),
    ];
    (marks.into_iter())
        .flat_map(|((mark, color), meaning)| {
            [(mark.into(), color), (format!(" {meaning}  "), None)]
        })
        .collect()
}

/// The outcomes of a call's attempts in words, as many of the last as there is room for.
fn outcomes(call: &Call) -> Vec<Piece> {
    let mut outcomes = call.outcomes();
    while outcomes.join(" → ").chars().count() > MAX_OUTCOMES && outcomes.len() > 2 {
        outcomes.remove(0);
        outcomes[0] = "…".into();
    }
    let mut pieces = Vec::new();
    for outcome in outcomes {
        if !pieces.is_empty() {
            pieces.push((" → ".into(), None));
        }
        let color = color_of(&outcome);
        pieces.push((outcome, Some(color)));
    }
    pieces
}

fn color_of(outcome: &str) -> AnsiColor {
    match outcome.split(' ').next() {
        Some("ok" | "►") => Green,
        Some("timeout" | "stalled") => Magenta,
        Some("429") => Yellow,
        Some("dropped" | "unreachable") => BrightBlue,
        _ => Red,
    }
}

fn columns(pieces: &[Piece]) -> usize {
    pieces.iter().map(|(text, _)| text.chars().count()).sum()
}

fn paint(line: &[Piece], colored: bool) -> String {
    let text = line.iter().map(|(text, color)| match color {
        Some(color) if colored => {
            let style = color.on_default();
            format!("{style}{text}{style:#}")
        }
        _ => text.clone(),
    });
    text.collect::<String>().trim_end().to_owned()
}

/// The steps of a call in the columns of the chart.
fn row(call: &Call, chart: &Chart) -> Vec<Piece> {
    let mut cells = vec![(' ', None); chart.width];
    for (column, _) in chart.ticks() {
        cells[column] = GRID;
    }
    let (stream, attempts): (Vec<_>, Vec<_>) =
        (call.steps.iter()).partition(|step| step.kind.is_streamed());

    let bars = chart.bars(call.start, attempts.iter().map(|step| step.until));
    let opened = bars.last().map_or(0, |bar| bar.end);
    for (step, bar) in attempts.iter().zip(bars) {
        let cells = &mut cells[bar];
        cells.fill(mark(&step.kind));
        if let (Kind::FirstContent, Some(last)) = (&step.kind, cells.last_mut()) {
            *last = CONTENT;
        }
    }

    let mut open = opened;
    for step in stream {
        let column = chart.column(step.until).max(opened);
        if column < chart.width {
            cells[open..column.max(open)].fill(SILENCE);
            cells[column] = mark(&step.kind);
            open = column + 1;
        }
    }
    cells
        .chunk_by(|one, other| one.1 == other.1)
        .map(|cells| (cells.iter().map(|cell| cell.0).collect(), cells[0].1))
        .collect()
}

fn mark(kind: &Kind) -> Mark {
    match kind {
        Kind::Failed(label) | Kind::Broken(label) => ('▒', Some(color_of(label))),
        Kind::Answered | Kind::FirstContent => ('█', Some(Green)),
        Kind::Backoff => ('·', Some(BrightBlack)),
        Kind::RetryAfter => ('╌', Some(Yellow)),
        Kind::Chunk => ('▄', Some(Green)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{
        State::{self, Succeeded},
        tests::{call, failed},
    };

    #[test]
    #[rustfmt::skip]
    fn calls_are_drawn_to_scale() {
        use Kind::*;
        let stalled = Broken("stalled".into());
        let chunks = [(FirstContent, 350), (Chunk, 550), (Chunk, 1050), (Chunk, 2000)];
        let calls = [
            call("1 chat", 0, &[(failed("503"), 200), (Backoff, 400), (Answered, 800)], 800, Succeeded),
            call("2 chat", 100, &[(failed("429"), 200), (RetryAfter, 1200), (Answered, 1300)], 1300, Succeeded),
            call("3 stream", 0, &chunks, 2000, Succeeded),
            call("4 stream", 0, &[(FirstContent, 500), (stalled, 1500)], 1500, State::Failed),
        ];
        assert_eq!(
            draw(&calls, 60, false),
            "          0 s        1 s
1 chat    ▒▒··█████  ┊            503 → ok
2 chat    ┊▒╌╌╌╌╌╌╌╌╌╌╌█          429 → ok
3 stream  ███►▁▁▄▁▁▁▁▄▁▁▁▁▁▁▁▁▁▄  ► 0.3 s → ok
4 stream  █████►▁▁▁▁▁▁▁▁▁▁▒       ► 0.5 s → stalled → failed

█ answered  ▒ failed  · backoff  ╌ Retry-After  ► first content  ▄ chunk  ▁ open
",
        );
    }

    #[test]
    fn only_the_last_of_many_outcomes_are_told() {
        let steps = [500, 500, 501, 502, 503, 504, 505].map(|it| (failed(&it.to_string()), 1));
        let picture = draw(&[call("1 chat", 0, &steps, 1, Succeeded)], 80, false);
        let row = picture.lines().nth(1).unwrap();
        assert!(row.ends_with("  … → 502 → 503 → 504 → 505 → ok"), "{row}");
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let calls = [call("1 chat", 0, &[(failed("503"), 1)], 1, Succeeded)];
        let colored = draw(&calls, 80, true);
        assert!(colored.contains("\u{1b}[31m503\u{1b}[0m"), "{colored}");
    }
}
