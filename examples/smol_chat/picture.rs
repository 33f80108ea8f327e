//! The picture of what happened to the calls, in text: a row for each, on one time axis.

use crate::timeline::{Call, FIRST_CONTENT, Kind, ticks};
use anstyle::AnsiColor::{self, BrightBlack, BrightBlue, Green, Magenta, Red, Yellow};
use std::time::Duration;

/// The most calls that are drawn.
const MAX_ROWS: usize = 40;
/// The room for the outcomes of a call, in columns.
const MAX_OUTCOMES: usize = 32;
/// The least distance between two ticks, in columns.
const TICK_DISTANCE: f64 = 9.0;

/// A tick of the axis behind everything else.
const GRID: Mark = ('┊', Some(BrightBlack));
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
    let scale = Scale::new(calls, room);

    let mut lines = vec![vec![(" ".repeat(names + 2) + &scale.axis(), None)]];
    for (call, outcomes) in calls.iter().zip(outcomes) {
        let mut line = vec![(format!("{:<names$}  ", call.name), None)];
        line.extend(scale.row(call));
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

/// Points in time as columns, from zero to the end of the last call.
struct Scale {
    width: usize,
    end: Duration,
}

impl Scale {
    fn new(calls: &[Call], width: usize) -> Self {
        let end = calls.iter().map(|call| call.end).max();
        Self {
            width: width.max(1),
            end: end.unwrap_or_default().max(Duration::from_millis(1)),
        }
    }

    fn column(&self, time: Duration) -> usize {
        (time.div_duration_f64(self.end) * self.width as f64).round() as usize
    }

    /// The ticks of the axis, with their labels.
    fn ticks(&self) -> impl Iterator<Item = (usize, String)> {
        ticks(self.end, TICK_DISTANCE / self.width as f64)
            .map(|(time, label)| (self.column(time), label))
            .filter(|(column, _)| *column < self.width)
    }

    /// The labels of the ticks, as far as there is room for them.
    fn axis(&self) -> String {
        let mut axis = String::new();
        for (column, label) in self.ticks() {
            if column + label.len() <= self.width {
                axis = format!("{axis:<column$}{label}");
            }
        }
        axis
    }

    /// The steps of a call to scale, except that even the shortest attempt or delay gets a
    /// column, if there is room. Chunks may share one.
    fn row(&self, call: &Call) -> Vec<Piece> {
        let mut cells = vec![(' ', None); self.width];
        for (column, _) in self.ticks() {
            cells[column] = GRID;
        }
        let mut start = self.column(call.start);
        let mut opened = start;
        for step in &call.steps {
            let is_streamed = step.kind.is_streamed();
            let least = if is_streamed { opened } else { start } + 1;
            let end = self.column(step.until).max(least).min(self.width);
            let (body, last) = marks(&step.kind);
            cells[start.min(end - 1)..end].fill(body);
            cells[end - 1] = last;
            start = end;
            if !is_streamed {
                opened = end;
            }
        }
        (cells.chunk_by(|one, other| one.1 == other.1))
            .map(|cells| (cells.iter().map(|cell| cell.0).collect(), cells[0].1))
            .collect()
    }
}

/// The marks of a step, and of its last column.
fn marks(kind: &Kind) -> (Mark, Mark) {
    let (body, last) = match kind {
        Kind::Failed(label) => (None, ('▒', color_of(label))),
        Kind::Answered => (None, ('█', Green)),
        Kind::Backoff => (None, ('·', BrightBlack)),
        Kind::RetryAfter => (None, ('╌', Yellow)),
        Kind::FirstContent => (Some(marks(&Kind::Answered).1), (FIRST_CONTENT, Green)),
        Kind::Chunk => (Some(SILENCE), ('▄', Green)),
        Kind::Broken(label) => (Some(SILENCE), ('▒', color_of(label))),
    };
    let last = (last.0, Some(last.1));
    (body.unwrap_or(last), last)
}

fn legend() -> Vec<Piece> {
    let marks = [
        (Kind::Answered, "answered"),
        (Kind::Failed(String::new()), "failed"),
        (Kind::Backoff, "backoff"),
        (Kind::RetryAfter, "Retry-After"),
        (Kind::FirstContent, "first content"),
        (Kind::Chunk, "chunk"),
    ]
    .map(|(kind, meaning)| (marks(&kind).1, meaning));
    (marks.into_iter().chain([(SILENCE, "open")]))
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
        let many = [500, 500, 501, 502, 503, 504, 505].map(|it| (failed(&it.to_string()), 2000));
        let calls = [
            call("1 chat", 0, &[(failed("503"), 200), (Backoff, 400), (Answered, 800)], 800, Succeeded),
            call("2 chat", 100, &[(failed("429"), 200), (RetryAfter, 1200), (Answered, 1200)], 1200, Succeeded),
            call("3 stream", 0, &chunks, 2000, Succeeded),
            call("4 stream", 0, &[(FirstContent, 500), (stalled, 1500)], 1500, State::Failed),
            call("5 chat", 0, &many, 2000, Succeeded),
        ];
        assert_eq!(
            draw(&calls, 60, false),
            "          0 s      1 s
1 chat    ▒▒··███  ┊          503 → ok
2 chat    ┊▒╌╌╌╌╌╌╌╌╌█        429 → ok
3 stream  ██►▁▄▁▁▁▄▁▁▁▁▁▁▁▁▄  ► 0.3 s → ok
4 stream  ████►▁▁▁▁▁▁▁▁▒      ► 0.5 s → stalled → failed
5 chat    ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  … → 502 → 503 → 504 → 505 → ok

█ answered  ▒ failed  · backoff  ╌ Retry-After  ► first content  ▄ chunk  ▁ open
",
        );
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let calls = [call("1 chat", 0, &[(failed("503"), 1)], 1, Succeeded)];
        let colored = draw(&calls, 80, true);
        assert!(colored.contains("\u{1b}[31m503\u{1b}[0m"), "{colored}");
    }
}
