//! The picture of what happened to the calls, in text: a row for each, on one time axis.

use crate::timeline::{CLOSED, Call, FIRST_CONTENT, Kind, OPENED, SECOND, ticks};
use std::time::Duration;

/// The most calls that are drawn.
const MAX_ROWS: usize = 40;
/// The room for the outcomes of a call, in columns.
const MAX_OUTCOMES: usize = 32;
/// The least distance between two ticks, in columns.
const TICK_DISTANCE: f64 = 9.0;

/// A tick of the axis behind everything else.
const GRID: char = '┊';

/// Draws the calls in at most `width` columns, and explains the marks.
pub fn draw(calls: &[Call], width: usize) -> String {
    let hidden = calls.len().saturating_sub(MAX_ROWS);
    let calls = &calls[..calls.len() - hidden];
    let outcomes: Vec<_> = calls.iter().map(outcomes).collect();
    let length = |text: &String| text.chars().count();
    let margin = outcomes.iter().map(length).max().unwrap_or_default();
    let names = calls.iter().map(|call| length(&call.name)).max();
    let names = names.unwrap_or_default();
    let scale = Scale::new(calls, width.saturating_sub(names + margin + 4));

    let mut lines = vec![format!("{:names$}  {}", "", scale.axis())];
    for (call, outcomes) in calls.iter().zip(outcomes) {
        let row = scale.row(call);
        lines.push(format!("{:<names$}  {row}  {outcomes}", call.name));
    }
    if hidden > 0 {
        lines.push(format!("and {hidden} more calls"));
    }
    lines.extend([String::new(), legend(calls)]);
    let text = lines.join("\n");
    let lines = text.lines().map(str::trim_end);
    lines.flat_map(|line| [line, "\n"]).collect()
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
    fn row(&self, call: &Call) -> String {
        let mut cells = vec![' '; self.width];
        for (column, _) in self.ticks() {
            cells[column] = GRID;
        }
        let mut start = self.column(call.start);
        let mut opened = start;
        for step in &call.steps {
            let is_streamed = step.kind.is_streamed();
            let least = if is_streamed { opened } else { start } + 1;
            let end = self.column(step.until).max(least).min(self.width);
            let (body, mark) = marks(&step.kind);
            cells[start.min(end - 1)..end].fill(body);
            cells[end - 1] = mark;
            start = end;
            if !is_streamed {
                opened = end;
            }
        }
        cells.into_iter().collect()
    }
}

/// The marks of a step and of its end.
fn marks(kind: &Kind) -> (char, char) {
    match kind {
        Kind::Failed(_) => ('▒', '▒'),
        Kind::Answered => ('█', '█'),
        Kind::FirstContent => ('█', FIRST_CONTENT),
        Kind::Backoff => ('·', '·'),
        Kind::RetryAfter => ('╌', '╌'),
        Kind::Waiting => ('░', '░'),
        Kind::Chunk => ('▁', '▄'),
        Kind::Broken(_) => ('▁', '▒'),
        Kind::Switch(mark) => (*mark, *mark),
    }
}

/// The meaning of the marks. Those of a limiter or a fallback are explained if they occur.
fn legend(calls: &[Call]) -> String {
    let explain = |kind, meaning: &'static str| {
        let mut steps = calls.iter().flat_map(|call| &call.steps);
        let occurs = steps.any(|step| step.kind == kind);
        if occurs { meaning } else { "" }
    };
    [
        "█ answered  ▒ failed  · backoff  ╌ Retry-After  ",
        explain(Kind::Waiting, "░ its turn  "),
        "► first content  ▄ chunk  ▁ open\n",
        explain(Kind::Switch(SECOND), "» to the second server  "),
        explain(Kind::Switch(OPENED), "○ breaker opened  "),
        explain(Kind::Switch(CLOSED), "● breaker closed"),
    ]
    .concat()
}

/// The outcomes of a call's attempts in words, as many of the last as there is room for.
fn outcomes(call: &Call) -> String {
    let mut outcomes = call.outcomes();
    while outcomes.join(" → ").chars().count() > MAX_OUTCOMES && outcomes.len() > 2 {
        outcomes.remove(0);
        outcomes[0] = "…".into();
    }
    outcomes.join(" → ")
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
            call("2 chat", 100, &[(failed("429"), 200), (RetryAfter, 800), (Waiting, 1200), (Answered, 1200)], 1200, Succeeded),
            call("3 stream", 0, &chunks, 2000, Succeeded),
            call("4 stream", 0, &[(FirstContent, 500), (stalled, 1500)], 1500, State::Failed),
            call("5 chat", 0, &many, 2000, Succeeded),
            call("6 chat", 0, &[(failed("429"), 600), (Switch(OPENED), 600), (Switch(SECOND), 600), (Answered, 1500)], 1500, Succeeded),
        ];
        assert_eq!(
            draw(&calls, 60),
            "          0 s      1 s
1 chat    ▒▒··███  ┊          503 → ok
2 chat    ┊▒╌╌╌╌╌░░░░█        429 → ok
3 stream  ██►▁▄▁▁▁▄▁▁▁▁▁▁▁▁▄  ► 0.3 s → ok
4 stream  ████►▁▁▁▁▁▁▁▁▒      ► 0.5 s → stalled → failed
5 chat    ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  … → 502 → 503 → 504 → 505 → ok
6 chat    ▒▒▒▒▒○»███████      429 → ○ → » → ok

█ answered  ▒ failed  · backoff  ╌ Retry-After  ░ its turn  ► first content  ▄ chunk  ▁ open
» to the second server  ○ breaker opened
",
        );
    }
}
