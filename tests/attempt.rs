//! One attempt and its timeout.

#![cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Sleeps, block_on, plain, poll_once, request};
use crabllm_retry::{
    Event, Instant, Operations, Retrying, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{FutureExt, StreamExt};
use std::{
    future::{Pending, pending},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

#[test]
fn a_call_that_is_ready_at_once_makes_no_timer() {
    let scene = Scene::new([Step::ok()]);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert!(scene.sleeps.asked().is_empty());
}

#[test]
fn a_failure_that_is_ready_at_once_makes_no_timer() {
    let scene = Scene::new([Step::invalid()]);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_err());
    assert!(scene.sleeps.asked().is_empty());
}

#[test]
fn nothing_happens_before_the_first_poll() {
    let scene = Scene::new([]);
    drop(scene.retrying.chat_completion(&request()));
    assert_eq!(scene.attempts(), 0);
}

#[test]
fn a_call_that_waits_makes_one_timer_of_the_timeout() {
    let scene = Scene::new([Step::ok().after(SECOND)]);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.sleeps.asked(), [30 * SECOND]);
    assert_eq!(scene.clock.elapsed(), SECOND);
}

#[test]
fn the_timeout_fires_at_its_time_and_not_before() {
    let scene = Scene::by_hand([Step::hang()]).set(|r| r.max_retries(0));
    let request = request();
    let mut call = pin!(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut call).is_pending());
    scene.clock.advance(30 * SECOND - Duration::from_nanos(1));
    assert!(poll_once(&mut call).is_pending());
    scene.clock.advance(Duration::from_nanos(1));
    assert!(matches!(call.now_or_never(), Some(Err(Error::Timeout))));
}

#[test]
fn the_inner_result_wins_when_both_are_ready() {
    let scene = Scene::by_hand([Step::ok().after(30 * SECOND)]);
    let request = request();
    let mut call = pin!(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut call).is_pending());
    scene.clock.advance(60 * SECOND);
    assert!(matches!(call.now_or_never(), Some(Ok(_))));
}

#[test]
fn a_timeout_drops_the_attempt_before_the_delay() {
    let scene = Scene::by_hand([Step::hang()]);
    let request = request();
    let mut call = pin!(scene.retrying.chat_completion(&request));
    assert!(poll_once(&mut call).is_pending());
    scene.clock.advance(30 * SECOND);
    assert!(poll_once(&mut call).is_pending());
    assert!(scene.scripted.attempts()[0].cancelled);
    assert_eq!(scene.sleeps.asked(), [30 * SECOND, SECOND]);
    assert_eq!(scene.clock.sleeping(), 1, "the delay alone");
}

#[test]
fn a_timed_out_attempt_and_its_timer_are_gone_before_anyone_is_asked_or_told() {
    let hanging = || Scene::by_hand([Step::hang().after(1000 * SECOND)]);
    for scene in [hanging(), hanging().shareable()] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let [by_retry_if, by_retry_after, by_observer] = [(); 3].map(|()| {
            let (log, clock, scripted) = (log.clone(), scene.clock.clone(), scene.scripted.clone());
            move || {
                let cancelled = scripted.attempts()[0].cancelled;
                log.lock().unwrap().push((cancelled, clock.sleeping()));
            }
        });
        let scene = scene.set(|r| {
            r.max_retries(0)
                .retry_if(move |_| {
                    by_retry_if();
                    true
                })
                .retry_after(move |_| {
                    by_retry_after();
                    None
                })
                .observe(move |event| {
                    if matches!(event, Event::GaveUp { .. }) {
                        by_observer();
                    }
                })
        });
        let request = request();
        let mut call = pin!(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut call).is_pending());
        assert_eq!(
            scene.clock.sleeping(),
            2,
            "the attempt's own and the timeout"
        );
        scene.clock.advance(30 * SECOND);
        assert!(poll_once(&mut call).is_ready());
        assert_eq!(*log.lock().unwrap(), [(true, 0); 3]);
    }
}

#[test]
fn every_attempt_has_the_whole_timeout() {
    let scene = Scene::new([Step::hang(), Step::hang(), Step::ok().after(29 * SECOND)]);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.clock.elapsed(), (30 + 1 + 30 + 2 + 29) * SECOND);
}

#[test]
fn a_timeout_runs_from_the_poll_that_found_the_attempt_pending_whoever_looks() {
    const MS: Duration = Duration::from_millis(1);
    for shareable in [false, true] {
        for (observed, deadline) in [(false, 0), (true, 0), (false, 1000)] {
            let clock = VirtualTimer::new();
            // The provider blocks for half a second, then answers after 20 ms.
            let blocking = clock.clone();
            let slow = move |duration| {
                blocking.advance(500 * MS);
                blocking.sleep(duration)
            };
            let sleeps = Sleeps::by(&clock);
            let sleeps = if shareable {
                sleeps.shareable()
            } else {
                sleeps
            };
            let provider = Scripted::new(slow, [Step::ok().after(20 * MS)]);
            let mut retrying = Retrying::with_timer(provider, sleeps)
                .timeout(400 * MS)
                .deadline(deadline * SECOND);
            if observed {
                retrying = retrying.observe(|_| {});
            }
            let request = request();
            let answer = clock.task(retrying.chat_completion(&request));
            assert!(block_on(answer).is_ok());
            assert_eq!(clock.elapsed(), 520 * MS);
        }
    }
}

/// A timer whose thread is held up: its sleeps wake nobody.
#[derive(Clone)]
struct HeldUp(VirtualTimer);

impl Timer for HeldUp {
    type Sleep = Pending<()>;

    fn sleep(&self, _: Duration) -> Pending<()> {
        pending()
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

#[test]
fn each_poll_looks_at_the_clock_of_a_shared_timer() {
    let clock = VirtualTimer::manual();
    let script = [Step::hang(), Step::stream([Step::hang()])];
    let retrying =
        Retrying::with_timer(Scripted::new(clock.clone(), script), HeldUp(clock.clone()))
            .policy(plain().retry(Operations::STREAMS));
    let request = request();
    let mut call = pin!(retrying.chat_completion_stream(&request));
    // An attempt of 30 seconds, a delay of one, and a silence of 90.
    assert!(poll_once(&mut call).is_pending());
    clock.advance(30 * SECOND);
    assert!(poll_once(&mut call).is_pending());
    assert!(retrying.get_ref().attempts()[0].cancelled);
    clock.advance(SECOND);
    let Poll::Ready(Ok(mut items)) = poll_once(&mut call) else {
        panic!("the delay has passed");
    };
    assert!(items.next().now_or_never().is_none());
    clock.advance(90 * SECOND);
    assert!(items.next().now_or_never().is_none(), "one more turn");
    let stalled = items.next().now_or_never();
    assert!(matches!(stalled, Some(Some(Err(Error::Timeout)))));
}

#[test]
fn a_zero_or_endless_timeout_makes_no_timer() {
    let century = 100 * 365 * 24 * 3600 * SECOND;
    for timeout in [Duration::ZERO, Duration::MAX, century] {
        let scene = Scene::by_hand([Step::hang()]).set(|r| r.timeout(timeout));
        let request = request();
        let mut call = pin!(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut call).is_pending());
        scene.clock.advance(Duration::MAX);
        assert!(poll_once(&mut call).is_pending());
        assert!(scene.sleeps.asked().is_empty(), "{timeout:?}");
    }
}

#[test]
fn the_longest_timeouts_do_not_panic_on_real_timers() {
    use crabllm_retry::{AsyncIoTimer, FuturesTimer};

    fn armed_and_dropped(timer: impl Timer) {
        let scene = Scene::new([Step::hang(), Step::hang(), Step::hang()]);
        let retrying = Retrying::with_timer(scene.scripted, timer);
        for timeout in [
            Duration::MAX,
            Duration::from_secs(u64::MAX / 2),
            3_000_000_000 * SECOND,
        ] {
            let retrying = retrying.clone().timeout(timeout);
            assert!(
                retrying
                    .chat_completion(&request())
                    .now_or_never()
                    .is_none()
            );
        }
    }
    armed_and_dropped(FuturesTimer);
    armed_and_dropped(AsyncIoTimer);
    armed_and_dropped(|duration| FutureExt::map(smol::Timer::after(duration), drop));
}
