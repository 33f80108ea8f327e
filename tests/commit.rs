//! Streams that are retried until their first content.

#![cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))]

mod common;

use common::{SECOND, Scene, block_on, plain, request};
use crabllm_retry::{
    Event, Operation, Operations, Retrying,
    crabllm_core_0_0_19::{ChatCompletionChunk, Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{StreamExt, stream};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// A wrapper that retries streams, with delays of exactly 1, 2, 4, … seconds.
fn streams(script: impl IntoIterator<Item = Step>) -> Scene {
    Scene::new(script).set(|r| r.also_retry(Operations::STREAMS))
}

/// The items of the stream, or the error of the call.
fn read(scene: &Scene) -> Vec<String> {
    block_on(async {
        match scene.retrying.chat_completion_stream(&request()).await {
            Ok(items) => items.map(describe).collect().await,
            Err(error) => vec![format!("call: {error}")],
        }
    })
}

fn describe(item: Result<ChatCompletionChunk, Error>) -> String {
    match item {
        Ok(chunk) => chunk.content().unwrap_or("-").to_owned(),
        Err(error) => error.to_string(),
    }
}

const LOST: &str = "internal error: connection lost";
const EMPTY: &str = "internal error: the stream ended before any content";

#[test]
fn a_failure_before_the_first_content_is_retried() {
    let text = || Step::text("hi");
    for (fault, seconds) in [
        (Step::stream([Step::status(503)]), 1),
        (Step::stream([Step::announcement(), Step::status(503)]), 1),
        (Step::stream([Step::disconnect()]), 1),
        (Step::stream([]), 1),
        (Step::stream([Step::announcement()]), 1),
        (Step::stream([Step::hang()]), 91),
        (Step::stream([Step::announcement(), Step::hang()]), 91),
        (Step::status(503), 1),
        (Step::hang(), 31),
    ] {
        let scene = streams([fault, text()]);
        assert_eq!(read(&scene), ["hi"]);
        assert_eq!(scene.attempts(), 2);
        assert_eq!(scene.clock.elapsed(), seconds * SECOND);
    }
}

#[test]
fn the_error_of_the_last_attempt_is_that_of_the_call() {
    for (fault, error) in [
        (
            Step::stream([Step::status(503)]),
            "call: provider error (HTTP 503): ",
        ),
        (Step::stream([Step::disconnect()]), &format!("call: {LOST}")),
        (Step::stream([]), &format!("call: {EMPTY}")),
        (Step::stream([Step::hang()]), "call: request timed out"),
    ] {
        let scene = streams(vec![fault; 3]);
        assert_eq!(read(&scene), [error]);
        assert_eq!(scene.attempts(), 3);
    }
    let scene = streams([Step::stream([Step::announcement(), Step::invalid()])]);
    assert_eq!(read(&scene), ["call: config error: no such thing"]);
}

#[test]
fn nothing_is_retried_after_the_first_content() {
    for (end, last) in [
        (Step::status(503), "provider error (HTTP 503): "),
        (Step::disconnect(), LOST),
        (Step::hang(), "request timed out"),
    ] {
        let items = [Step::announcement(), Step::text("half"), end];
        let scene = streams([Step::stream(items)]);
        assert_eq!(read(&scene), ["-", "half", last]);
        assert_eq!(scene.attempts(), 1);
    }
}

#[test]
fn held_items_come_first_once_and_in_order() {
    let items = |held| {
        let held = (0..held).map(|_| Step::announcement());
        held.chain([Step::text("a"), Step::announcement(), Step::text("b")])
    };
    for held in [0, 1, 16, 17, 40] {
        let scene = streams([Step::stream(items(held))]);
        let mut expected = vec!["-"; held];
        expected.extend(["a", "-", "b"]);
        assert_eq!(read(&scene), expected);
    }
}

#[test]
fn the_seventeenth_item_commits() {
    for (announcements, attempts) in [(16, 2), (17, 1)] {
        let items = vec![Step::announcement(); announcements].into_iter();
        let scene = streams([Step::stream(items.chain([Step::status(503)]))]);
        read(&scene);
        assert_eq!(scene.attempts(), attempts);
    }
}

#[test]
fn a_stream_that_is_not_retried_is_returned_unread() {
    let scene = Scene::new([Step::stream([Step::announcement(), Step::status(503)])]);
    assert_eq!(read(&scene), ["-", "provider error (HTTP 503): "]);
    assert_eq!(read(&Scene::new([Step::stream([])])), [""; 0]);
}

#[test]
fn the_commit_does_not_delay_the_content() {
    let items = || {
        let header = Step::announcement().after(Duration::from_nanos(1_000_003));
        [
            header,
            Step::text("hi").after(Duration::from_nanos(7)),
            Step::hang(),
        ]
    };
    for scene in [
        Scene::new([Step::stream(items())]),
        streams([Step::stream(items())]),
    ] {
        block_on(async {
            let opening = scene.retrying.chat_completion_stream(&request()).await;
            let mut items = opening.unwrap();
            assert_eq!(describe(items.next().await.unwrap()), "-");
            assert_eq!(describe(items.next().await.unwrap()), "hi");
        });
        assert_eq!(scene.clock.elapsed(), Duration::from_nanos(1_000_010));
    }
}

#[test]
fn a_model_that_thinks_is_waited_for() {
    let clock = VirtualTimer::new();
    let thinking = Step::stream([Step::text("42").after(200 * SECOND)]);
    let scripted = Scripted::new(clock.clone(), [thinking]);
    let retrying = Retrying::with_timer(scripted.clone(), clock.clone()).recommended();
    let items = block_on(retrying.chat_completion_stream(&request())).unwrap();
    assert_eq!(block_on(items.count()), 1);
    assert_eq!(scripted.attempts().len(), 1);
    assert_eq!(clock.elapsed(), 200 * SECOND);
}

#[test]
fn first_content_limits_the_opening_and_the_wait_together() {
    let opens_late = |opening, content| {
        let items = [
            Step::announcement(),
            Step::text("hi").after(content * SECOND),
        ];
        Step::stream(items).after(opening * SECOND)
    };
    for (first, attempts, seconds) in [
        // Later than `timeout` and `stream_idle`, which it replaces.
        (opens_late(100, 99), 1, 199),
        (opens_late(100, 101), 2, 201),
        (opens_late(0, 201), 2, 201),
        (opens_late(201, 0), 2, 201),
    ] {
        let scene = streams([first, Step::text("again")]);
        let scene = scene.set(|r| r.first_content(200 * SECOND));
        read(&scene);
        assert_eq!(scene.attempts(), attempts);
        assert_eq!(scene.clock.elapsed(), seconds * SECOND);
    }
}

#[test]
fn the_stream_of_a_failed_attempt_is_dropped_before_its_delay() {
    let alive = Arc::new(());
    let clock = VirtualTimer::new();
    let (held, seen) = (alive.clone(), Arc::new(Mutex::new(Vec::new())));
    let log = seen.clone();
    let retrying = Retrying::with_timer((), clock)
        .max_retries(1)
        .observe(move |event| {
            if let Event::Retry { .. } | Event::GaveUp { .. } = event {
                log.lock().unwrap().push(Arc::strong_count(&held));
            }
        });
    let opening = retrying.open(
        Operation::Other("feed"),
        None,
        |()| true,
        |()| {
            let held = alive.clone();
            let lost = move |_| {
                let _ = &held;
                Err(Error::Internal("lost".into()))
            };
            async move {
                Ok(stream::iter([()])
                    .map(lost)
                    .chain(stream::pending())
                    .boxed())
            }
        },
    );
    assert!(block_on(opening).is_err());
    // This test's and the observer's.
    assert_eq!(*seen.lock().unwrap(), [2, 2]);
}

/// The names of the events, with the times of successes and the errors of breaks.
fn events(scene: Scene) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let scene = scene.set(|r| {
        r.observe(move |event| {
            log.lock().unwrap().push(match event {
                Event::Attempt { attempt, .. } => format!("attempt {attempt}"),
                Event::Retry { .. } => "retry".into(),
                Event::Success { elapsed, .. } => format!("success after {elapsed:?}"),
                Event::GaveUp { .. } => "gave up".into(),
                Event::StreamStalled { idle, .. } => format!("stalled for {idle:?}"),
                Event::StreamBroken { error, .. } => match error {
                    Some(error) => format!("broken: {error}"),
                    None => "broken".into(),
                },
                other => format!("{other:?}"),
            });
        })
    });
    read(&scene);
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn events_tell_of_the_commit_and_of_what_follows() {
    let late = |step: Step| step.after(3 * SECOND);
    for (items, expected) in [
        (
            vec![Step::announcement(), late(Step::text("hi"))],
            vec!["success after 3s", "broken"],
        ),
        (
            vec![Step::text("hi"), Step::disconnect(), Step::status(500)],
            vec![
                "success after 0ns",
                "broken: internal error: connection lost",
            ],
        ),
        (
            vec![Step::text("hi"), Step::hang()],
            vec!["success after 0ns", "stalled for 90s"],
        ),
    ] {
        let mut all = vec!["attempt 1"];
        all.extend(expected);
        assert_eq!(events(streams([Step::stream(items)])), all);
    }
    // A stream that is not retried is not judged, but its first error is reported.
    let items = || vec![Step::text("hi"), Step::disconnect()];
    assert_eq!(
        events(Scene::new([Step::stream(items())])),
        [
            "attempt 1",
            "success after 0ns",
            "broken: internal error: connection lost"
        ]
    );
    assert_eq!(
        events(Scene::new([Step::stream([Step::text("hi")])])),
        ["attempt 1", "success after 0ns"]
    );
}

#[test]
fn a_stream_of_any_client_commits_by_its_own_rule() {
    let clock = VirtualTimer::new();
    let retrying = Retrying::with_timer((), clock.clone()).policy(plain());
    let mut attempts = 0;
    let is_even = |n: &u32| n.is_multiple_of(2);
    let opening = retrying.open(Operation::Other("count"), None, is_even, |()| {
        attempts += 1;
        let second = if attempts == 1 {
            Err(Error::Timeout)
        } else {
            Ok(2)
        };
        async { Ok(stream::iter([Ok(1), second, Ok(3)]).boxed()) }
    });
    let items: Vec<_> = block_on(block_on(opening).unwrap().collect());
    let items: Result<Vec<_>, _> = items.into_iter().collect();
    assert_eq!(items.unwrap(), [1, 2, 3]);
    assert_eq!(clock.elapsed(), SECOND);
}
