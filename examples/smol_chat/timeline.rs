//! The picture of what happened to the calls: a row for each, on one time axis.

use crate::{
    history::{Call, Kind, failures},
    scale::Scale,
};
use anstyle::AnsiColor;

/// How many calls are drawn.
const MAX_ROWS: usize = 40;
/// The least distance between two ticks, in columns.
const TICK_DISTANCE: usize = 9;
/// The room for the outcomes of a call, in columns.
const MAX_OUTCOME: usize = 32;

/// A tick of the axis where nothing else is drawn.
const GRID: (char, Option<AnsiColor>) = ('┊', Some(AnsiColor::BrightBlack));
/// An open stream between two chunks.
const SILENCE: (char, Option<AnsiColor>) = ('▁', Some(AnsiColor::Green));

/// Some text of one colour.
type Piece = (String, Option<AnsiColor>);

/// Draws the calls in at most `width` columns, and explains the marks.
pub fn draw(calls: &[Call], width: usize, colored: bool) -> String {
    let hidden = calls.len().saturating_sub(MAX_ROWS);
    let calls = &calls[..calls.len() - hidden];
    let outcomes: Vec<_> = calls.iter().map(outcome).collect();
    let names = calls.iter().map(|call| call.name.chars().count()).max();
    let names = names.unwrap_or_default();
    let margin = outcomes.iter().map(|outcome| columns(outcome)).max();
    let chart = width.saturating_sub(names + margin.unwrap_or_default() + 4);
    let ends = calls.iter().filter_map(|call| call.steps.last());
    let end = ends.map(|step| step.until).max().unwrap_or_default();
    let scale = Scale::new(end, chart, TICK_DISTANCE);

    let mut lines = vec![vec![(" ".repeat(names + 2) + &scale.axis(), None)]];
    for (call, outcome) in calls.iter().zip(outcomes) {
        let mut line = vec![(format!("{:<names$}  ", call.name), None)];
        line.extend(row(call, &scale));
        line.push(("  ".into(), None));
        line.extend(outcome);
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
        (Kind::Answered, "answered"),
        (Kind::Failed(String::new()), "failed"),
        (Kind::Backoff, "backoff"),
        (Kind::RetryAfter, "Retry-After"),
        (Kind::Chunk, "chunk"),
    ];
    let marks = marks.map(|(kind, meaning)| (mark(&kind), meaning));
    (marks.into_iter())
        .chain([(SILENCE, "open stream")])
        .flat_map(|((mark, color), meaning)| {
            [(mark.into(), color), (format!(" {meaning}   "), None)]
        })
        .collect()
}

/// The outcomes of a call's attempts in words.
fn outcome(call: &Call) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (label, times) in failures(&call.steps) {
        let times = if times > 1 {
            format!(" ×{times}")
        } else {
            String::new()
        };
        pieces.push((format!("{label}{times}"), Some(color_of(label))));
        pieces.push((" → ".into(), None));
    }
    while columns(&pieces) > MAX_OUTCOME && pieces.len() > 2 {
        pieces.drain(..2);
        pieces[0].0.insert_str(0, "… → ");
    }
    pieces.push(if call.succeeded {
        ("ok".into(), Some(AnsiColor::Green))
    } else {
        ("failed".into(), Some(AnsiColor::Red))
    });
    pieces
}

fn color_of(label: &str) -> AnsiColor {
    match label {
        "timeout" | "stalled" => AnsiColor::Magenta,
        "429" => AnsiColor::Yellow,
        "dropped" | "unreachable" => AnsiColor::BrightBlue,
        _ => AnsiColor::Red,
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
fn row(call: &Call, scale: &Scale) -> Vec<Piece> {
    let mut cells = vec![(' ', None); scale.width];
    for (column, _) in &scale.ticks {
        cells[*column] = GRID;
    }
    let (stream, attempts): (Vec<_>, Vec<_>) = call
        .steps
        .iter()
        .partition(|step| matches!(step.kind, Kind::Chunk | Kind::Broken(_)));

    let bars = scale.bars(call.start, attempts.iter().map(|step| step.until));
    let opened = bars.last().map_or(0, |bar| bar.end);
    for (step, bar) in attempts.iter().zip(bars) {
        cells[bar].fill(mark(&step.kind));
    }

    let mut open = opened;
    for step in stream {
        let column = scale.column(step.until).max(opened);
        if column < scale.width {
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

fn mark(kind: &Kind) -> (char, Option<AnsiColor>) {
    match kind {
        Kind::Failed(label) | Kind::Broken(label) => ('▒', Some(color_of(label))),
        Kind::Answered => ('█', Some(AnsiColor::Green)),
        Kind::Backoff => ('·', Some(AnsiColor::BrightBlack)),
        Kind::RetryAfter => ('╌', Some(AnsiColor::Yellow)),
        Kind::Chunk => ('▄', Some(AnsiColor::Green)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Step;
    use std::time::Duration;

    fn call(name: &str, start: u64, steps: &[(Kind, u64)], succeeded: bool) -> Call {
        let steps = steps.iter().map(|(kind, until)| Step {
            kind: kind.clone(),
            until: Duration::from_millis(*until),
        });
        Call {
            name: name.into(),
            start: Duration::from_millis(start),
            steps: steps.collect(),
            succeeded,
        }
    }

    fn failed(label: &str) -> Kind {
        Kind::Failed(label.into())
    }

    #[test]
    fn calls_are_drawn_to_scale() {
        use Kind::*;
        let calls = [
            call(
                "1 chat",
                0,
                &[(failed("503"), 200), (Backoff, 400), (Answered, 800)],
                true,
            ),
            call(
                "2 chat",
                100,
                &[(failed("429"), 200), (RetryAfter, 1200), (Answered, 1300)],
                true,
            ),
            call(
                "3 stream",
                0,
                &[(Answered, 100), (Chunk, 550), (Chunk, 1050), (Chunk, 2000)],
                true,
            ),
            call(
                "4 stream",
                0,
                &[(Answered, 500), (Broken("stalled".into()), 1500)],
                false,
            ),
        ];
        assert_eq!(
            draw(&calls, 50, false),
            "          0 s        1 s
1 chat    ▒▒··█████  ┊            503 → ok
2 chat    ┊▒╌╌╌╌╌╌╌╌╌╌╌█          429 → ok
3 stream  █▁▁▁▁▁▄▁▁▁▁▄▁▁▁▁▁▁▁▁▁▄  ok
4 stream  ██████▁▁▁▁▁▁▁▁▁▁▒       stalled → failed

█ answered   ▒ failed   · backoff   ╌ Retry-After   ▄ chunk   ▁ open stream
",
        );
    }

    #[test]
    fn only_the_last_of_many_outcomes_are_told() {
        let steps: Vec<_> = (500..520)
            .map(|status| (failed(&status.to_string()), 1))
            .collect();
        let picture = draw(&[call("1 chat", 0, &steps, true)], 80, false);
        let row = picture.lines().nth(1).unwrap();
        assert!(row.ends_with("  … → 516 → 517 → 518 → 519 → ok"), "{row}");
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let calls = [call(
            "1 chat",
            0,
            &[(failed("503"), 1), (Kind::Answered, 2)],
            true,
        )];
        let colored = draw(&calls, 80, true);
        assert!(colored.contains("\u{1b}[31m503\u{1b}[0m"), "{colored}");
    }
}
