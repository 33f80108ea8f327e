//! The picture of what happens to the calls, in HTML: a row for each, on one time axis.

use crate::timeline::{Call, Kind, State, Step, ticks};
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
    let unfinished = match call.state {
        State::Stopped if is_attempting(last, end) => Some("attempt stopped"),
        State::Running if is_attempting(last, end) => Some("attempt running"),
        State::Running if last.is_some_and(|step| !step.kind.is_delay()) => Some("stream"),
        _ => None,
    };
    let steps = (call.steps.iter()).map(|step| (class(&step.kind), step.until.min(end)));
    let mut begin = call.start;
    (steps.chain(unfinished.map(|class| (class, end))))
        .map(|(class, until)| (class, mem::replace(&mut begin, until), until))
        .collect()
}

/// Whether a call that has not finished is in an attempt.
fn is_attempting(last: Option<&Step>, now: Duration) -> bool {
    last.is_none_or(|step| step.kind.is_delay() && step.until < now)
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
        Kind::Backoff => "wait",
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
    #[rustfmt::skip]
    fn a_call_is_drawn_as_far_as_it_has_come() {
        use Kind::*;
        use State::{Running, Stopped, Succeeded};
        let answered = [(failed("503"), 100), (Backoff, 150), (Answered, 250)];
        let broken = [(FirstContent, 100), (Chunk, 150), (Broken("stalled".into()), 300)];
        let (refused, wait) = (("attempt refused", 100), ("wait", 150));
        for (state, end, steps, attempts, expected) in [
            (Running, 90, &[][..], 1, &[("attempt running", 90)][..]),
            (Running, 110, &[(failed("429"), 100), (RetryAfter, 200)], 1, &[("attempt throttled", 100), ("wait asked", 200)]),
            (Running, 300, &[(failed("timeout"), 100), (Backoff, 200)], 2,
                &[("attempt silent", 100), ("wait", 200), ("attempt running", 300)]),
            (Stopped, 100, &[], 1, &[("attempt stopped", 100)]),
            (Stopped, 110, &[(failed("dropped"), 100), (Backoff, 200)], 1, &[("attempt dropped", 100), ("wait", 110)]),
            (Succeeded, 250, &answered, 2, &[refused, wait, ("attempt answered", 250)]),
            (Running, 350, &answered, 2, &[refused, wait, ("attempt answered", 250), ("stream", 350)]),
            (State::Failed, 100, &[(failed("400"), 100)], 1, &[refused]),
            (State::Failed, 300, &broken, 1, &[("attempt answered content", 100), ("chunk", 150), ("broken", 300)]),
        ] {
            let call = call("1", 0, steps, end, state);
            let bars: Vec<_> = bars(&call).iter().map(|bar| (bar.0, bar.2.as_millis())).collect();
            assert_eq!(bars, expected);
            let summary = format!("1 messages, {attempts} attempts, {} retries", attempts - 1);
            assert_eq!(sum_up(&[call]), summary, "{expected:?}");
        }
    }

    #[test]
    fn bars_are_to_scale() {
        let steps = [(failed("503"), 100), (Kind::Backoff, 400)];
        let html = draw(&[call("1", 0, &steps, 300, State::Running)]);
        assert_eq!(
            html,
            "<i class='tick' style='left:0.00%'>0.0 s</i>\
             <i class='tick' style='left:25.00%'>0.1 s</i>\
             <i class='tick' style='left:50.00%'>0.2 s</i>\
             <i class='tick' style='left:75.00%'>0.3 s</i>\
             <p>1: 503 → …</p><div>\
             <i class='attempt refused' style='left:0.00%;width:25.00%'></i>\
             <i class='wait' style='left:25.00%;width:75.00%'></i></div>"
        );
    }
}
