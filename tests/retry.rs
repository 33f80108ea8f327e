//! Which failures are retried, how often, and after which delays.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{Bare, SECOND, Scene, block_on, exactly, plain, poll_once, request, status};
use crabllm_retry::{
    Backoff, Event, Failure, FuturesTimer, GiveUpReason, Operations, Policy, RetryBudget, Retrying,
    Timer,
    crabllm_core_0_0_19::{EmbeddingInput, EmbeddingRequest, Error, Provider},
    hints,
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt};
use futures_test::task::new_count_waker;
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
    time::Duration,
};

fn failures(n: usize) -> impl Iterator<Item = Step> {
    (0..n).map(|_| Step::status(503))
}

#[test]
fn at_most_one_attempt_more_than_max_retries_is_made() {
    for retries in 0..4 {
        let scene = Scene::new(failures(10)).set(|r| r.max_retries(retries));
        assert_eq!(
            status(block_on(scene.retrying.chat_completion(&request()))),
            Some(503)
        );
        assert_eq!(scene.attempts(), 1 + retries as usize);
    }
}

#[test]
fn there_is_no_sleep_after_the_last_attempt() {
    let scene = Scene::new(failures(10));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
    assert_eq!(scene.sleeps.asked(), [SECOND, 2 * SECOND]);
    assert_eq!(scene.clock.elapsed(), 3 * SECOND);
}

#[test]
fn the_recommended_settings_survive_what_the_defaults_do_not() {
    let recommended = |steps: Vec<Step>| {
        let clock = VirtualTimer::new();
        let provider = Scripted::new(clock.clone(), steps);
        let retrying = Retrying::with_timer(provider.clone(), clock.clone()).recommended();
        let result = block_on(retrying.chat_completion(&request()));
        (result.is_ok(), provider.attempts().len(), clock.elapsed())
    };
    let statuses = |status| (0..4).map(|_| Step::status(status)).collect();
    for (status, least, most) in [(503, 3.75, 7.5), (529, 3.75, 7.5), (429, 7.5, 15.0)] {
        let (ok, attempts, elapsed) = recommended(statuses(status));
        assert!(ok && attempts == 5, "{status}");
        assert!(
            (least..=most).contains(&elapsed.as_secs_f64()),
            "{status}: {elapsed:?}"
        );
    }
    let late = Step::ok().after(599 * SECOND);
    assert_eq!(recommended(vec![late]), (true, 1, 599 * SECOND));
    let (ok, attempts, elapsed) = recommended(vec![Step::hang(), Step::hang()]);
    assert_eq!((ok, attempts, elapsed), (false, 2, 900 * SECOND));
    let (ok, attempts, _) = recommended(vec![Step::status_with_body(
        429,
        r#"{"code": "insufficient_quota"}"#,
    )]);
    assert_eq!((ok, attempts), (false, 1));
}

#[test]
fn recommended_settings_keep_what_they_do_not_set() {
    let slow = Policy::default().max_retries(1);
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let provider = Scripted::new(VirtualTimer::new(), failures(9));
    let retrying = Retrying::with_timer(provider, VirtualTimer::new())
        .policy_for("m", slow)
        .observe(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .recommended();
    assert!(block_on(retrying.chat_completion(&request())).is_err());
    assert_eq!(retrying.get_ref().attempts().len(), 2);
    assert!(told.load(Ordering::Relaxed) > 0);
}

/// The documentation of `Retrying` warns of both.
#[test]
fn a_client_that_retries_by_itself_should_not_be_wrapped() {
    let clock = VirtualTimer::new();
    let provider = Scripted::new(clock.clone(), failures(20));
    let inner = Retrying::with_timer(provider.clone(), clock.clone());
    let outer = Retrying::with_timer(inner, clock.clone());
    assert!(block_on(outer.chat_completion(&request())).is_err());
    assert_eq!(provider.attempts().len(), 9);

    let clock = VirtualTimer::new();
    let asks_for_40_s = Step::status_with_body(429, r#"{"error": {"retry_after": 40}}"#);
    let provider = Scripted::new(clock.clone(), [asks_for_40_s]);
    let inner =
        Retrying::with_timer(provider.clone(), clock.clone()).retry_after(hints::retry_after);
    let outer = Retrying::with_timer(inner, clock.clone());
    assert!(block_on(outer.chat_completion(&request())).is_ok());
    let second = provider.attempts()[1].started - provider.attempts()[0].started;
    assert!(second <= Duration::from_millis(30_100), "{second:?}");
}

#[test]
fn an_error_that_is_not_transient_is_returned_at_once_and_unchanged() {
    for step in [
        Step::invalid(),
        Step::status_with_body(400, "why"),
        Step::status_with_body(529, "why not"),
    ] {
        let scene = Scene::new([step.clone(), step]);
        let error = block_on(scene.retrying.chat_completion(&request())).unwrap_err();
        assert_eq!(scene.attempts(), 1);
        assert!(scene.sleeps.asked().is_empty());

        let own = block_on(scene.scripted.chat_completion(&request())).unwrap_err();
        assert_eq!(format!("{error:?}"), format!("{own:?}"));
    }
}

#[test]
fn the_error_is_the_last_attempts_own() {
    let scene = Scene::new([
        Step::status_with_body(500, "first"),
        Step::status_with_body(502, "second"),
        Step::status_with_body(503, "third"),
    ]);
    match block_on(scene.retrying.chat_completion(&request())) {
        Err(Error::Provider { status, body }) => assert_eq!((status, &*body), (503, "third")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_later_error_that_is_not_transient_ends_the_call() {
    let scene = Scene::new([Step::status(503), Step::status(401)]);
    assert_eq!(
        status(block_on(scene.retrying.chat_completion(&request()))),
        Some(401)
    );
    assert_eq!(scene.attempts(), 2);
}

#[test]
fn a_zero_delay_yields_once_and_makes_no_timer() {
    let scene = Scene::new(failures(1)).set(|r| r.policy(plain().backoff(exactly(Duration::ZERO))));
    let request = request();
    let mut call = pin!(scene.retrying.chat_completion(&request));
    let (waker, wakes) = new_count_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!((scene.attempts(), wakes.get()), (1, 1));
    assert!(call.as_mut().poll(&mut cx).is_ready());
    assert_eq!((scene.attempts(), wakes.get()), (2, 1));
    assert!(scene.sleeps.asked().is_empty());
}

#[test]
fn a_poll_makes_at_most_one_attempt_however_short_the_delay() {
    fn polls(timer: impl Timer) {
        const RETRIES: usize = 1000;
        let provider = Scripted::new(VirtualTimer::manual(), failures(RETRIES));
        const TICK: Duration = Duration::from_nanos(1);
        let retrying = Retrying::with_timer(provider, timer)
            .backoff(Backoff::exponential(TICK, TICK))
            .max_retries(u32::MAX);
        let request = request();
        let mut call = pin!(retrying.chat_completion(&request));
        let mut made = 0;
        while poll_once(&mut call).is_pending() {
            let now = retrying.get_ref().attempts().len();
            assert!(now - made <= 1, "{} attempts in one poll", now - made);
            made = now;
        }
        assert_eq!(retrying.get_ref().attempts().len(), 1 + RETRIES);
    }
    polls(|_| std::future::ready(()));
    polls(FuturesTimer);
    #[cfg(feature = "async-io")]
    polls(crabllm_retry::AsyncIoTimer);
}

#[test]
fn a_delay_without_end_is_asked_of_the_timer_as_a_century() {
    let scene = Scene::new(failures(1)).set(|r| {
        let endless = Backoff::exponential(Duration::MAX, Duration::MAX);
        r.policy(Policy::default().backoff(endless))
    });
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.sleeps.asked(), [100 * 365 * 24 * 3600 * SECOND]);
}

#[test]
fn retry_if_decides_in_place_of_the_errors_own_word() {
    let retry_529 = |failure: &dyn Failure| failure.status() == Some(529);
    let scene = Scene::new([Step::status(529), Step::status(503)]).set(|r| r.retry_if(retry_529));
    assert_eq!(
        status(block_on(scene.retrying.chat_completion(&request()))),
        Some(503)
    );
    assert_eq!(scene.attempts(), 2);
}

#[test]
fn what_is_not_implemented_is_never_retried() {
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = retries.clone();
    let retrying = Retrying::with_timer(Bare::default(), VirtualTimer::new())
        .policy(Policy::default().retry(Operations::ALL))
        .retry_if(|_| true)
        .observe(move |event| {
            if matches!(event, Event::Retry { .. }) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
    let embedding = EmbeddingRequest {
        model: "m".into(),
        input: EmbeddingInput::Single("text".into()),
    };
    assert!(block_on(retrying.chat_completion(&request())).is_err());
    assert!(block_on(retrying.chat_completion_stream(&request())).is_err());
    assert!(block_on(retrying.embedding(&embedding)).is_err());
    assert!(block_on(retrying.anthropic_messages_raw(Default::default())).is_err());
    assert_eq!(retries.load(Ordering::Relaxed), 0);
}

mod retry_after {
    use super::*;

    /// Asks for so many seconds in the body of a 429.
    fn asking(seconds: u64) -> Step {
        Step::status_with_body(429, seconds.to_string())
    }

    fn scene(script: impl IntoIterator<Item = Step>) -> Scene {
        Scene::new(script)
            .set(|r| r.retry_after(|failure| failure.body()?.parse().ok().map(Duration::from_secs)))
    }

    #[test]
    fn a_retry_is_never_earlier_than_asked() {
        let scene = scene([asking(7), asking(0)]);
        assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
        assert_eq!(scene.sleeps.asked(), [7 * SECOND, 2 * SECOND]);
    }

    #[test]
    fn who_asks_for_more_than_the_most_gets_no_retry() {
        let patient = scene([asking(60)]);
        assert!(block_on(patient.retrying.chat_completion(&request())).is_ok());

        let asked_too_much = scene([asking(61)]);
        let result = block_on(asked_too_much.retrying.chat_completion(&request()));
        assert_eq!(status(result), Some(429));
        assert!(asked_too_much.sleeps.asked().is_empty());
    }

    #[test]
    fn the_most_can_be_set() {
        let scene = scene([asking(2)]).set(|r| r.max_retry_after(SECOND));
        assert_eq!(
            status(block_on(scene.retrying.chat_completion(&request()))),
            Some(429)
        );
    }
}

mod deadline {
    use super::*;

    fn scene(deadline: Duration, script: impl IntoIterator<Item = Step>) -> Scene {
        Scene::new(script).set(|r| {
            r.policy(
                plain()
                    .deadline(deadline)
                    .timeout(10 * SECOND)
                    .max_retries(u32::MAX),
            )
        })
    }

    #[test]
    fn an_attempt_is_cut_to_what_is_left() {
        let scene = scene(13 * SECOND, [Step::hang(), Step::hang()]);
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(scene.sleeps.asked(), [10 * SECOND, SECOND, 2 * SECOND]);
        assert_eq!(scene.clock.elapsed(), 13 * SECOND);
    }

    #[test]
    fn no_delay_reaches_past_it() {
        let scene = scene(3 * SECOND, failures(9));
        assert_eq!(
            status(block_on(scene.retrying.chat_completion(&request()))),
            Some(503)
        );
        // At 0 and 1 seconds; the next would be at 3.
        assert_eq!(scene.attempts(), 2);
        assert_eq!(scene.clock.elapsed(), SECOND);
    }

    #[test]
    fn no_attempt_starts_after_it_however_late_a_delay_ends() {
        for late in [4, 100] {
            for shareable in [false, true] {
                let mut scene = Scene::by_hand(failures(9));
                if shareable {
                    scene = scene.shareable();
                }
                let budget = RetryBudget::new(14);
                let end = Arc::new(Mutex::new(None));
                let (paid, left, told) = (budget.clone(), budget.clone(), end.clone());
                let scene = scene.set(|r| {
                    r.deadline(5 * SECOND).budget(paid).observe(move |event| {
                        if let Event::GaveUp {
                            reason, attempt, ..
                        } = event
                        {
                            *told.lock().unwrap() = Some((*reason, *attempt, left.available()));
                        }
                    })
                });
                let request = request();
                let mut call = pin!(scene.retrying.chat_completion(&request));
                assert!(poll_once(&mut call).is_pending());
                assert_eq!(budget.available(), 0);
                // The delay of one second ends, but the executor is busy.
                scene.clock.advance(SECOND);
                scene.clock.advance(late * SECOND);
                assert_eq!(status(call.now_or_never().unwrap()), Some(503));
                assert_eq!(scene.attempts(), 1);
                let end = end.lock().unwrap().unwrap();
                assert_eq!(end, (GiveUpReason::Deadline, 1, 14));
            }
        }
    }

    #[test]
    fn no_attempt_starts_at_it() {
        let scene = Scene::new([Step::hang(), Step::status(503).after(SECOND)]).set(|r| {
            let policy = plain().backoff(exactly(Duration::ZERO));
            r.policy(policy.max_retries(u32::MAX).deadline(31 * SECOND))
        });
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!(status(result), Some(503));
        assert_eq!(scene.attempts(), 2);
    }

    #[test]
    fn it_ends_a_call_whose_retries_have_no_delay() {
        let scene = Scene::new([Step::hang(), Step::hang()]).set(|r| {
            let policy = plain().deadline(SECOND).max_retries(u32::MAX);
            r.policy(policy.backoff(exactly(Duration::ZERO)))
        });
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(scene.attempts(), 1);
    }

    #[test]
    fn it_strikes_by_the_timer_even_where_the_clock_is_another() {
        let scene = Scene::new([Step::hang(), Step::hang()]);
        let sleeper = scene.clock.clone();
        // A closure's clock is the system's, which hardly moves in this test.
        let timer = move |duration| sleeper.sleep(duration);
        let retrying = Retrying::with_timer(scene.scripted.clone(), timer)
            .policy(plain().deadline(10 * SECOND));
        let result = block_on(retrying.chat_completion(&request()));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(scene.attempts(), 1);
    }

    #[test]
    fn it_counts_from_the_first_poll_whatever_that_takes() {
        let clock = VirtualTimer::new();
        let thinking = clock.clone();
        // Asked for a sleep in its first poll, it spends five seconds there.
        let slow = move |_| {
            thinking.advance(5 * SECOND);
            std::future::pending::<()>()
        };
        let provider = Scripted::new(slow, [Step::ok().after(SECOND)]);
        let retrying =
            Retrying::with_timer(provider, clock.clone()).policy(plain().deadline(10 * SECOND));
        let result = block_on(retrying.chat_completion(&request()));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(clock.elapsed(), 10 * SECOND);
    }

    #[test]
    fn it_bounds_the_opening_of_a_stream_and_no_item() {
        let script =
            |opening: u32| [Step::stream([Step::ok().after(60 * SECOND)]).after(opening * SECOND)];
        let in_time = scene(5 * SECOND, script(4));
        let items = block_on(in_time.retrying.chat_completion_stream(&request())).unwrap();
        let items: Vec<_> = block_on(items.collect());
        assert!(matches!(&items[..], [Ok(_)]));

        let late = scene(5 * SECOND, script(6));
        let result = block_on(late.retrying.chat_completion_stream(&request()));
        assert!(matches!(result.map(drop), Err(Error::Timeout)));
        assert_eq!(late.clock.elapsed(), 5 * SECOND);
    }

    #[test]
    fn it_bounds_what_is_not_timed_otherwise() {
        let scene = scene(5 * SECOND, [Step::hang()]);
        let result = block_on(scene.retrying.audio_transcription("m", &[]));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(scene.clock.elapsed(), 5 * SECOND);
    }

    #[test]
    fn it_holds_without_a_timeout() {
        let scene = Scene::new([Step::hang()])
            .set(|r| r.policy(plain().deadline(SECOND).timeout(Duration::ZERO)));
        let result = block_on(scene.retrying.chat_completion(&request()));
        assert!(matches!(result, Err(Error::Timeout)));
        assert_eq!(scene.clock.elapsed(), SECOND);
    }
}

#[test]
fn clones_of_a_wrapper_share_its_budget() {
    let budget = RetryBudget::new(14);
    let paid = budget.clone();
    let scene = Scene::new(failures(2)).set(|r| r.budget(paid));
    let clone = scene.retrying.clone();
    assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
    assert_eq!(budget.available(), 0);
    assert!(block_on(clone.chat_completion(&request())).is_ok());
    assert_eq!(budget.available(), 1);
}

#[test]
fn each_setter_of_a_policy_is_one_of_the_wrapper_too() {
    let backoff = exactly(3 * SECOND);
    let policy = Policy::default()
        .max_retries(7)
        .timeout(SECOND)
        .deadline(2 * SECOND)
        .backoff(backoff)
        .throttle_backoff(exactly(4 * SECOND))
        .max_retry_after(5 * SECOND)
        .stream_idle(6 * SECOND)
        .retry(Operations::EMBEDDING)
        .also_retry(Operations::MODELS);
    let retrying = Retrying::with_timer((), VirtualTimer::new())
        .max_retries(7)
        .timeout(SECOND)
        .deadline(2 * SECOND)
        .backoff(backoff)
        .throttle_backoff(exactly(4 * SECOND))
        .max_retry_after(5 * SECOND)
        .stream_idle(6 * SECOND)
        .retry(Operations::EMBEDDING)
        .also_retry(Operations::MODELS);
    assert_eq!(policy.retry, Operations::EMBEDDING | Operations::MODELS);
    let shown = format!("{retrying:?}");
    assert!(shown.contains(&format!("{policy:?}")), "{shown}");
}

#[test]
fn throttling_may_have_a_backoff_of_its_own() {
    let scene = Scene::new([Step::status(429), Step::status(503)])
        .set(|r| r.policy(plain().throttle_backoff(exactly(5 * SECOND))));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.sleeps.asked(), [5 * SECOND, 2 * SECOND]);
}
