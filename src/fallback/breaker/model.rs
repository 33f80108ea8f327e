//! The breaker under a model checker: two calls at once, in every interleaving, have the
//! results of their steps in some order.

use super::*;
use loom::{model, sync::Arc, thread};

const COOLDOWN: Duration = Duration::from_secs(30);

/// When a call arrives and ends, and its outcome.
type Call = (Instant, Option<Outcome>);

/// Whether a call changed the breaker; `None`: it was sent to `second`.
type Seen = Option<bool>;

fn run(breaker: &Breaker, (now, outcome): Call) -> Seen {
    let permit = breaker.enter(|| now)?;
    Some(outcome.is_some_and(|outcome| permit.report(outcome, || now)))
}

/// Runs the steps of two calls, each of which arrives at its first turn and ends at its
/// second.
fn run_in_order(
    mut state: State,
    limit: u32,
    calls: [Call; 2],
    order: [usize; 4],
) -> (State, [Seen; 2]) {
    let mut seen = [None; 2];
    let mut epochs = [None; 2];
    for (turn, call) in order.into_iter().enumerate() {
        let (now, outcome) = calls[call];
        if !order[..turn].contains(&call) {
            let entered = state.enter(now, COOLDOWN);
            epochs[call] = entered.map(|state| state.epoch);
            state = entered.unwrap_or(state);
        } else if let Some(epoch) = epochs[call] {
            let left = state.leave(epoch, outcome, limit, Some(now)).unwrap();
            seen[call] = Some(state.is_open() != left.is_open());
            state = left;
        }
    }
    (state, seen)
}

#[test]
#[rustfmt::skip]
fn two_calls_at_once_act_as_in_some_order() {
    let orders = [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]];
    let start = Instant::now();
    let times = [start, start + COOLDOWN, start + 2 * COOLDOWN];
    let outcomes = [Some(Outcome::Success), Some(Outcome::Failure), None];
    let calls = || times.into_iter().flat_map(|time| outcomes.map(|outcome| (time, outcome)));
    // After one failure the breaker is open, or opens at the next, or at the one after.
    for limit in 1..=3 {
        for calls in calls().flat_map(|one| calls().map(move |other| [one, other])) {
            model(move || {
                let breaker = Arc::new(Breaker::new(limit, COOLDOWN));
                run(&breaker, (start, Some(Outcome::Failure)));
                let before = *breaker.state.lock().unwrap();
                let shared = breaker.clone();
                let other = thread::spawn(move || run(&shared, calls[1]));
                let seen = [run(&breaker, calls[0]), other.join().unwrap()];
                let after = *breaker.state.lock().unwrap();
                let mut possible = orders.map(|order| run_in_order(before, limit, calls, order)).into_iter();
                assert!(possible.any(|it| it == (after, seen)), "{calls:?}: {after:?}, {seen:?}");
                assert_eq!(breaker.summary(), after.summary());
            });
        }
    }
}
