//! The model itself, on cases that were worked out by hand.

use crate::{
    case::{
        Behavior, Budget, Call, Case, CaseError, Delays, Kind, Retried, RetryAfter, Rules, World,
    },
    model::{Account, Model, What},
};
use crabllm_retry::{DelaySource, GiveUpReason, Jitter, Operation};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A policy in which each bound is different, with delays of 1, 2, 4, 8, 8, …
/// seconds, and calls of `chat_completion`.
fn case(script: impl IntoIterator<Item = Behavior>) -> Case {
    Case {
        rules: Rules {
            max_retries: 2,
            timeout: 30 * SECOND,
            deadline: Duration::ZERO,
            backoff: exactly(1),
            throttle_backoff: None,
            max_retry_after: 60 * SECOND,
            stream_idle: 90 * SECOND,
            retry: Retried::Chats,
        },
        budget: None,
        retry_if: None,
        retry_after: None,
        script: script.into_iter().collect(),
        calls: Vec::new(),
        world: World::default(),
        seed: 0,
    }
}

fn exactly(seconds: u32) -> Delays {
    Delays {
        initial: seconds * SECOND,
        max: 8 * SECOND,
        jitter: Jitter::None,
    }
}

fn after(seconds: u32, kind: Kind) -> Behavior {
    Behavior {
        latency: seconds * SECOND,
        kind,
    }
}

fn ok(seconds: u32) -> Behavior {
    after(seconds, Kind::Answer(Vec::new()))
}

fn status(seconds: u32, status: u16) -> Behavior {
    let fault = CaseError::Status {
        status,
        body: String::new(),
        retry_after: None,
    };
    after(seconds, Kind::CaseError(fault))
}

fn hang() -> Behavior {
    after(0, Kind::Hang)
}

fn call(model: &mut Model<'_>, operation: Operation) -> Account {
    let call = Call {
        operation,
        pause: Duration::ZERO,
        dropped: None,
    };
    model.call(&call, &mut |_, range| *range.start())
}

fn chat(case: &Case) -> Account {
    call(&mut Model::new(case), Operation::ChatCompletion)
}

/// The starts and ends of the attempts, in seconds.
fn attempts(account: &Account) -> Vec<(u64, u64)> {
    let seconds = |time: Duration| time.as_secs();
    let attempts = account.attempts.iter();
    attempts
        .map(|attempt| (seconds(attempt.started), seconds(attempt.ended.unwrap())))
        .collect()
}

fn gave_up(account: &Account) -> Option<GiveUpReason> {
    match account.events.last()?.1.what {
        What::GaveUp { reason, .. } => Some(reason),
        _ => None,
    }
}

#[test]
fn attempts_follow_each_other_after_delays_that_double() {
    let account = chat(&case([hang(), status(5, 503), ok(7)]));
    assert_eq!(attempts(&account), [(0, 30), (31, 36), (38, 45)]);
    assert_eq!(account.sleeps, [30, 1, 30, 2, 30].map(|n| n * SECOND));
    assert_eq!(account.result, Some(Ok(())));
    let cancelled: Vec<_> = account.attempts.iter().map(|a| a.cancelled).collect();
    assert_eq!(cancelled, [true, false, false]);
}

#[test]
fn nothing_follows_the_last_attempt() {
    let account = chat(&case([
        status(0, 500),
        status(0, 502),
        status(4, 504),
        ok(0),
    ]));
    assert_eq!(attempts(&account), [(0, 0), (1, 1), (3, 7)]);
    assert_eq!(account.ended, Some(7 * SECOND));
    assert_eq!(gave_up(&account), Some(GiveUpReason::Exhausted));
}

#[test]
fn what_comes_at_the_very_timeout_has_come() {
    assert_eq!(attempts(&chat(&case([ok(30)]))), [(0, 30)]);
    assert_eq!(attempts(&chat(&case([ok(31)]))), [(0, 30), (31, 31)]);
}

#[test]
fn a_deadline_cuts_an_attempt_and_lets_no_delay_past_it() {
    for (deadline, expected) in [
        (20, vec![(0, 20)]),
        (30, vec![(0, 30)]),
        (31, vec![(0, 30)]),
        (32, vec![(0, 30), (31, 32)]),
        (38, vec![(0, 30), (31, 36)]),
        (39, vec![(0, 30), (31, 36), (38, 39)]),
    ] {
        let mut case = case([hang(), status(5, 503), hang()]);
        case.rules.deadline = deadline * SECOND;
        case.rules.max_retries = u32::MAX;
        let account = chat(&case);
        let ended = (attempts(&account), gave_up(&account));
        assert_eq!(
            ended,
            (expected, Some(GiveUpReason::Deadline)),
            "{deadline}"
        );
    }
}

#[test]
fn a_delay_that_ends_late_may_leave_no_time_for_its_retry() {
    for (lag, expected) in [(1, vec![(0, 0), (2, 2)]), (4, vec![(0, 0)])] {
        let mut case = case([status(0, 503)]);
        case.budget = Some(Budget::default());
        case.rules.deadline = 5 * SECOND;
        case.world.lag = lag * SECOND;
        let account = chat(&case);
        assert_eq!(attempts(&account), expected);
        assert_eq!(account.tokens, Some(500));
    }
}

#[test]
fn a_retry_that_never_starts_costs_nothing() {
    for (dropped, tokens) in [(1, 500), (2, 486), (3, 486)] {
        let mut case = case([status(1, 503), hang()]);
        case.budget = Some(Budget::default());
        let call = Call {
            operation: Operation::ChatCompletion,
            pause: Duration::ZERO,
            dropped: Some(dropped * SECOND + SECOND / 2),
        };
        let account = Model::new(&case).call(&call, &mut |_, range| *range.start());
        assert_eq!((account.result, account.tokens), (None, Some(tokens)));
    }
}

#[test]
fn a_timeout_counts_from_the_poll_that_found_its_attempt_pending() {
    for (latency, ended) in [(30, 50), (31, 50)] {
        let mut case = case([ok(latency)]);
        case.rules.max_retries = 0;
        case.world.blocking = 20 * SECOND;
        let account = chat(&case);
        assert_eq!(attempts(&account), [(0, ended)]);
        assert_eq!(account.result == Some(Ok(())), latency == 30);
    }
}

#[test]
fn the_server_is_not_asked_earlier_than_it_says() {
    for (asked, expected) in [
        (0, (vec![(0, 0), (1, 1)], Some(DelaySource::Backoff))),
        (1, (vec![(0, 0), (1, 1)], Some(DelaySource::Backoff))),
        (2, (vec![(0, 0), (2, 2)], Some(DelaySource::RetryAfter))),
        (60, (vec![(0, 0), (60, 60)], Some(DelaySource::RetryAfter))),
        (61, (vec![(0, 0)], None)),
    ] {
        let mut case = case([status(0, 429)]);
        case.retry_after = Some(RetryAfter {
            word: Some(asked * SECOND),
            throttled: false,
        });
        let account = chat(&case);
        let source = match account.events[1].1.what {
            What::Retry { source, .. } => Some(source),
            _ => None,
        };
        assert_eq!((attempts(&account), source), expected, "{asked}");
    }
}

#[test]
fn throttled_attempts_have_delays_and_costs_of_their_own() {
    let mut case = case([status(0, 429), status(0, 503), status(0, 429)]);
    case.rules.throttle_backoff = Some(exactly(3));
    case.rules.max_retries = 3;
    case.budget = Some(Budget {
        capacity: Some(30),
        ..Budget::default()
    });
    let account = chat(&case);
    // 3 * 1, 1 * 2, and 3 * 4, which is more than 8.
    assert_eq!(attempts(&account), [(0, 0), (3, 3), (5, 5), (13, 13)]);
    // Less 5, 14 and 5, and the last 5 come back.
    assert_eq!(account.tokens, Some(11));
}

#[test]
fn a_budget_is_shared_by_the_calls_and_refuses_what_it_cannot_pay() {
    let mut case = case([status(0, 503), status(0, 503), ok(0), ok(0), status(0, 503)]);
    case.budget = Some(Budget {
        capacity: Some(20),
        cost: Some(9),
        ..Budget::default()
    });
    let mut model = Model::new(&case);
    for (tokens, refused) in [(11, None), (12, None), (12, None)] {
        let account = call(&mut model, Operation::ChatCompletion);
        assert_eq!((account.tokens, gave_up(&account)), (Some(tokens), refused));
    }
    case.budget.as_mut().unwrap().cost = Some(21);
    let account = chat(&case);
    let refused = Some(GiveUpReason::Budget);
    assert_eq!((account.tokens, gave_up(&account)), (Some(20), refused));
}

#[test]
fn operations_are_timed_and_retried_by_their_class() {
    use Operation::*;
    for (operation, by_default, asked_for, timed) in [
        (ChatCompletion, 3, 3, true),
        (Complete, 3, 3, true),
        (ChatCompletionStream, 1, 3, true),
        (AnthropicMessagesStreamRaw, 1, 3, true),
        (ChatCompletionStreamPassthrough, 1, 1, true),
        (Embedding, 1, 3, false),
        (Models, 1, 3, false),
    ] {
        let failing = case([status(0, 503), status(0, 503), status(0, 503)]);
        let mut asked = failing.clone();
        asked.rules.retry = Retried::Everything;
        let made = |case| call(&mut Model::new(case), operation).attempts.len();
        assert_eq!(
            (made(&failing), made(&asked)),
            (by_default, asked_for),
            "{operation}"
        );

        let mut hanging = case([hang()]);
        hanging.rules.max_retries = 0;
        let ended = call(&mut Model::new(&hanging), operation).ended;
        assert_eq!(ended, timed.then_some(30 * SECOND), "{operation}");
    }
}

#[test]
fn a_stream_ends_by_itself_or_by_its_silence() {
    let broken = status(1, 503);
    let items = vec![ok(0), broken, ok(90), ok(91), ok(0)];
    let case = case([after(2, Kind::Answer(items))]);
    let call = Call {
        operation: Operation::ChatCompletionStream,
        pause: 10 * SECOND,
        dropped: None,
    };
    let account = Model::new(&case).call(&call, &mut |_, range| *range.start());
    let came: Vec<_> = account
        .items
        .iter()
        .map(|(at, item)| (at.as_secs(), item.is_ok()))
        .collect();
    assert_eq!(came, [(12, true), (23, false), (123, true), (223, false)]);
    assert_eq!(account.items[3].1, Err(CaseError::Timeout));
    assert_eq!(account.ended, Some(233 * SECOND));
    assert_eq!(account.sleeps, [30, 90, 90, 90].map(|n| n * SECOND));
    let stalled = What::StreamStalled {
        attempt: 1,
        elapsed: 223 * SECOND,
        idle: 90 * SECOND,
    };
    assert_eq!(account.events[2].1.what, stalled);
}

#[test]
fn a_stream_has_one_more_turn_before_it_counts_as_stalled() {
    for (lag, came) in [(1, false), (5, true)] {
        let mut case = case([after(0, Kind::Answer(vec![ok(95)]))]);
        case.world.lag = lag * SECOND;
        case.world.second_poll = true;
        let account = call(&mut Model::new(&case), Operation::ChatCompletionStream);
        assert_eq!(account.items[0].1.is_ok(), came);
    }
}
