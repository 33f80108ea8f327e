//! The picture of what happens to the calls, as SVG: a row for each, on one time axis.

use crate::{
    history::{Kind, Step, failures},
    scale::Scale,
};
use std::{fmt::Write, time::Duration};

/// A call, as far as it has come.
pub struct Row {
    pub name: String,
    pub steps: Vec<Step>,
    /// How long it has taken so far.
    pub taken: Duration,
    pub state: State,
}

#[derive(Clone, Copy, PartialEq)]
pub enum State {
    Running,
    Succeeded,
    Failed,
    Stopped,
}

/// The width of a column, and so of the shortest bar.
const COLUMN: usize = 3;
/// The least distance between two ticks.
const TICK_DISTANCE: usize = 66;
/// The height of the axis.
const AXIS: usize = 22;
/// The height of a row.
const ROW: usize = 44;
/// How far below the top of its row a bar begins.
const BAR: usize = 22;
const BAR_HEIGHT: usize = 14;

/// Draws the calls, `width` pixels wide.
pub fn draw(rows: &[Row], width: usize) -> String {
    let Some(end) = rows.iter().map(Row::end).max() else {
        return String::new();
    };
    let scale = Scale::new(end, width / COLUMN, TICK_DISTANCE / COLUMN);
    let height = AXIS + rows.len() * ROW;
    let label: Vec<_> = rows.iter().map(Row::describe).collect();
    let mut svg = format!(
        "<svg width='{width}' height='{height}' role='img' aria-label='{}'>",
        label.join("; ")
    );
    for (column, label) in &scale.ticks {
        let x = column * COLUMN;
        svg += &format!("<path class='grid' d='M{x}.5 {AXIS}V{height}'/>");
        if x + TICK_DISTANCE <= width {
            svg += &format!("<text class='tick' x='{x}' y='13'>{label}</text>");
        }
    }
    for (index, (row, label)) in rows.iter().zip(label).enumerate() {
        let top = AXIS + index * ROW;
        svg += &format!("<g transform='translate(0 {top})'><text y='15'>{label}</text>");
        row.draw(&scale, &mut svg);
        svg += "</g>";
    }
    svg + "</svg>"
}

/// The calls in a sentence.
pub fn sum_up(rows: &[Row]) -> String {
    let attempts: usize = rows.iter().map(Row::attempts).sum();
    let messages = rows.len();
    let retries = attempts.saturating_sub(messages);
    format!("{messages} messages, {attempts} attempts, {retries} retries")
}

impl Row {
    /// How many attempts it has made.
    pub fn attempts(&self) -> usize {
        let ended = self.steps.iter().filter(|step| is_attempt(&step.kind));
        ended.count() + usize::from(self.attempt_under_way())
    }

    /// The outcome of the call, in words.
    fn describe(&self) -> String {
        let mut words = format!("{}: ", self.name);
        for (label, times) in failures(&self.steps) {
            words += label;
            if times > 1 {
                _ = write!(words, " ×{times}");
            }
            words += " → ";
        }
        words
            + match self.state {
                State::Running => "…",
                State::Succeeded => "ok",
                State::Failed => "failed",
                State::Stopped => "stopped",
            }
    }

    /// How far it is drawn: a wait in full as soon as it begins, unless it is stopped.
    fn end(&self) -> Duration {
        match self.steps.last() {
            Some(last) if self.state == State::Running => self.taken.max(last.until),
            _ => self.taken,
        }
    }

    /// Whether it makes an attempt now, or was stopped in one.
    fn attempt_under_way(&self) -> bool {
        let waited = match self.steps.last() {
            None => true,
            Some(step) => is_wait(&step.kind) && step.until <= self.taken,
        };
        waited && matches!(self.state, State::Running | State::Stopped)
    }

    fn draw(&self, scale: &Scale, svg: &mut String) {
        let (stream, steps): (Vec<&Step>, Vec<_>) = (self.steps.iter())
            .partition(|step| matches!(step.kind, Kind::Chunk | Kind::Broken(_)));
        let mut bars: Vec<_> = steps
            .iter()
            .map(|step| {
                (
                    step.until.min(self.end()),
                    class(&step.kind),
                    title(&step.kind),
                )
            })
            .collect();
        if self.attempt_under_way() {
            bars.push(match self.state {
                State::Stopped => (self.taken, "attempt stopped", "stopped"),
                _ => (self.taken, "attempt running", "under way"),
            });
        }
        let places = scale.bars(Duration::ZERO, bars.iter().map(|bar| bar.0));
        let opened = places.last().map_or(0, |place| place.end);
        for ((_, class, title), place) in bars.iter().zip(places) {
            let (x, width) = (place.start * COLUMN, place.len() * COLUMN);
            *svg += &format!(
                "<rect class='{class}' x='{x}' y='{BAR}' width='{width}' height='{BAR_HEIGHT}'>\
                 <title>{title}</title></rect>"
            );
        }
        let is_open = steps.last().is_some_and(|step| step.kind == Kind::Answered);
        let silent = is_open && self.state == State::Running;
        let last = stream.last().map(|step| step.until);
        if let Some(until) = last.max(silent.then_some(self.taken)) {
            let (x, y) = (opened * COLUMN, BAR + BAR_HEIGHT - 3);
            let end = scale.column(until).max(opened) * COLUMN;
            *svg += &format!(
                "<rect class='stream' x='{x}' y='{y}' width='{}' height='3'/>",
                end - x
            );
        }
        for step in stream {
            let x = scale.column(step.until).max(opened) * COLUMN;
            let (class, title) = (class(&step.kind), title(&step.kind));
            *svg += &format!(
                "<rect class='{class}' x='{x}' y='{BAR}' width='2' height='{BAR_HEIGHT}'>\
                 <title>{title}</title></rect>"
            );
        }
    }
}

fn is_wait(kind: &Kind) -> bool {
    matches!(kind, Kind::Backoff | Kind::RetryAfter)
}

fn is_attempt(kind: &Kind) -> bool {
    matches!(kind, Kind::Failed(_) | Kind::Answered)
}

fn class(kind: &Kind) -> &'static str {
    match kind {
        Kind::Failed(label) => match label.as_str() {
            "429" => "attempt throttled",
            "timeout" => "attempt silent",
            "dropped" => "attempt dropped",
            _ => "attempt refused",
        },
        Kind::Answered => "attempt answered",
        Kind::Backoff => "wait",
        Kind::RetryAfter => "wait asked",
        Kind::Chunk => "chunk",
        Kind::Broken(_) => "broken",
    }
}

fn title(kind: &Kind) -> &str {
    match kind {
        Kind::Failed(label) | Kind::Broken(label) => label,
        Kind::Answered => "answered",
        Kind::Backoff => "backoff",
        Kind::RetryAfter => "asked to wait by the server",
        Kind::Chunk => "a piece of the answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: State, taken: u64, steps: &[(Kind, u64)]) -> Row {
        let steps = steps.iter().map(|(kind, until)| Step {
            kind: kind.clone(),
            until: Duration::from_millis(*until),
        });
        Row {
            name: "1".into(),
            steps: steps.collect(),
            taken: Duration::from_millis(taken),
            state,
        }
    }

    fn failed(label: &str) -> Kind {
        Kind::Failed(label.into())
    }

    /// The marks of a row that is drawn ten pixels to the millisecond: class,
    /// begin and width.
    fn marks(row: &Row) -> Vec<(String, usize, usize)> {
        let millis = row.end().as_millis() as usize;
        let svg = draw(std::slice::from_ref(row), millis * 3);
        let rects = svg.split("<rect ").skip(1).map(|rect| {
            let value = |name: &str| {
                let value = rect.split(&format!("{name}='")).nth(1).unwrap();
                value.split('\'').next().unwrap().to_owned()
            };
            let number = |name| value(name).parse::<usize>().unwrap() / 3;
            (value("class"), number("x"), number("width"))
        });
        rects.collect()
    }

    #[test]
    #[rustfmt::skip]
    fn a_call_is_drawn_as_far_as_it_has_come() {
        use Kind::*;
        use State::{Running, Stopped, Succeeded};
        let answered = [(failed("503"), 100), (Backoff, 150), (Answered, 250)];
        for (case, row, attempts, words, expected) in [
            ("first attempt", row(Running, 90, &[]), 1, "…", vec![("attempt running", 0, 90)]),
            ("a wait is drawn to its end", row(Running, 110, &[(failed("429"), 100), (RetryAfter, 200)]), 1, "429 → …",
                vec![("attempt throttled", 0, 100), ("wait asked", 100, 100)]),
            ("second attempt", row(Running, 300, &[(failed("timeout"), 100), (Backoff, 200)]), 2, "timeout → …",
                vec![("attempt silent", 0, 100), ("wait", 100, 100), ("attempt running", 200, 100)]),
            ("stopped in an attempt", row(Stopped, 100, &[]), 1, "stopped", vec![("attempt stopped", 0, 100)]),
            ("stopped in a wait", row(Stopped, 110, &[(failed("dropped"), 100), (Backoff, 200)]), 1, "dropped → stopped",
                vec![("attempt dropped", 0, 100), ("wait", 100, 10)]),
            ("answered", row(Succeeded, 250, &answered), 2, "503 → ok",
                vec![("attempt refused", 0, 100), ("wait", 100, 50), ("attempt answered", 150, 100)]),
            ("open", row(Running, 350, &answered), 2, "503 → …",
                vec![("attempt refused", 0, 100), ("wait", 100, 50), ("attempt answered", 150, 100), ("stream", 250, 99)]),
            ("failed", row(State::Failed, 100, &[(failed("400"), 100)]), 1, "400 → failed", vec![("attempt refused", 0, 100)]),
        ] {
            let retries = attempts - 1;
            let words_of_all = format!("1 messages, {attempts} attempts, {retries} retries");
            assert_eq!(sum_up(std::slice::from_ref(&row)), words_of_all, "{case}");
            assert_eq!(row.describe(), format!("1: {words}"), "{case}");
            let expected: Vec<_> = (expected.into_iter())
                .map(|(class, begin, width)| (class.to_owned(), begin, width))
                .collect();
            assert_eq!(marks(&row), expected, "{case}");
        }
    }

    #[test]
    fn the_pieces_of_a_stream_are_marked() {
        use Kind::*;
        let steps = [
            (Answered, 100),
            (Chunk, 150),
            (Broken("stalled".into()), 300),
        ];
        let row = row(State::Failed, 300, &steps);
        let classes: Vec<_> = marks(&row)
            .into_iter()
            .map(|mark| (mark.0, mark.1))
            .collect();
        let expected = [
            ("attempt answered", 0),
            ("stream", 100),
            ("chunk", 150),
            ("broken", 299),
        ];
        assert_eq!(
            classes,
            expected.map(|(class, begin)| (class.to_owned(), begin))
        );
        assert_eq!(
            (row.attempts(), row.describe()),
            (1, "1: stalled → failed".into())
        );
    }

    #[test]
    fn nothing_is_drawn_of_no_call() {
        assert_eq!(draw(&[], 1000), "");
    }

    #[test]
    fn no_width_does_harm() {
        for width in [0, 1, 1000] {
            let svg = draw(&[row(State::Running, 90, &[])], width);
            assert!(svg.contains("attempt running"), "{svg}");
        }
    }
}
