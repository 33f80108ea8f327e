//! The picture of what happens to the calls, in HTML: a row for each, on one time axis.

use crate::timeline::{Call, Kind, State, ticks};
use std::{mem, time::Duration};

/// The least distance between two ticks, as a fraction of the width.
const TICK_DISTANCE: f64 = 0.2;

/// Draws the calls.
pub fn draw(calls: &[Call]) -> String {
    let end = calls.iter().map(drawn_until).max().unwrap_or_default();
    let end = end.max(Duration::from_millis(1));
    let percent = |time: Duration| 100.0 * time.div_duration_f64(end);
    let mut html = String::new();
    for (time, label) in ticks(end, TICK_DISTANCE) {
        let left = percent(time);
        // The last label may be too close to the edge.
        let has_room = left + 100.0 * TICK_DISTANCE <= 100.0;
        let label = if has_room { &label } else { "" };
        html += &format!("<i class='tick' style='left:{left:.2}%'>{label}</i>");
    }
    for call in calls {
        let outcomes = call.outcomes().join(" → ");
        html += &format!("<p>{}: {outcomes}</p><div>", call.name);
        for (class, from, until) in bars(call) {
            let left = percent(from);
            let width = percent(until) - left;
            html += &format!("<i class='{class}' style='left:{left:.2}%;width:{width:.2}%'></i>");
        }
        html += "</div>";
    }
    html
}

/// The calls in a sentence.
pub fn sum_up(calls: &[Call]) -> String {
    let attempts = calls
        .iter()
        .flat_map(bars)
        .filter(|(class, ..)| class.starts_with("attempt"))
        .count();
    let messages = calls.len();
    let retries = attempts.saturating_sub(messages);
    format!("{messages} messages, {attempts} attempts, {retries} retries")
}

/// Until when a call is drawn: a delay in full as soon as it begins, unless it is stopped.
fn drawn_until(call: &Call) -> Duration {
    match call.steps.last() {
        Some(last) if call.state == State::Running => call.end.max(last.until),
        _ => call.end,
    }
}

/// The bars of a call: class, begin and end.
fn bars(call: &Call) -> Vec<(&'static str, Duration, Duration)> {
    let end = drawn_until(call);
    let last = call.steps.last();
    let is_attempting = last.is_none_or(|step| step.kind.is_delay() && step.until < end);
    let unfinished = match call.state {
        State::Stopped if is_attempting => Some("attempt stopped"),
        State::Running if is_attempting => Some("attempt running"),
        State::Running if last.is_some_and(|step| !step.kind.is_delay()) => Some("stream"),
        _ => None,
    };
    let steps = (call.steps.iter()).map(|step| (class(&step.kind), step.until.min(end)));
    let mut begin = call.start;
    (steps.chain(unfinished.map(|class| (class, end))))
        .map(|(class, until)| (class, mem::replace(&mut begin, until), until))
        .collect()
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
        Kind::FirstContent => "attempt answered content",
        Kind::Backoff | Kind::Waiting | Kind::Switch(_) => "wait",
        Kind::RetryAfter => "wait asked",
        Kind::Chunk => "chunk",
        Kind::Broken(_) => "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::tests::{call, failed};

    #[test]
    fn bars_are_to_scale_as_far_as_a_call_has_come() {
        let steps = [(failed("503"), 100), (Kind::Backoff, 400)];
        let calls = [
            call("1", 0, &steps, 200, State::Stopped),
            call("2", 0, &steps, 300, State::Running),
            call("3", 0, &[(Kind::FirstContent, 100)], 200, State::Running),
        ];
        let html = draw(&calls);
        assert_eq!(
            html,
            "<i class='tick' style='left:0.00%'>0.0 s</i>\
             <i class='tick' style='left:25.00%'>0.1 s</i>\
             <i class='tick' style='left:50.00%'>0.2 s</i>\
             <i class='tick' style='left:75.00%'>0.3 s</i>\
             <p>1: 503 → stopped</p><div>\
             <i class='attempt refused' style='left:0.00%;width:25.00%'></i>\
             <i class='wait' style='left:25.00%;width:25.00%'></i></div>\
             <p>2: 503 → …</p><div>\
             <i class='attempt refused' style='left:0.00%;width:25.00%'></i>\
             <i class='wait' style='left:25.00%;width:75.00%'></i></div>\
             <p>3: ► 0.1 s → …</p><div>\
             <i class='attempt answered content' style='left:0.00%;width:25.00%'></i>\
             <i class='stream' style='left:25.00%;width:25.00%'></i></div>"
        );
        assert_eq!(sum_up(&calls), "3 messages, 3 attempts, 0 retries");
    }
}
