//! One attempt and its timeout.

#![cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, block_on, plain, poll_once, request};
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
    for step in [Step::ok(), Step::invalid()] {
        let scene = Scene::new([step]);
        let _ = block_on(scene.retrying.chat_completion(&request()));
        assert_eq!((scene.attempts(), scene.sleeps.asked()), (1, vec![]));
    }
}

#[test]
fn nothing_happens_before_the_first_poll() {
    let scene = Scene::new([]);
    drop(scene.retrying.chat_completion(&request()));
    assert_eq!(scene.attempts(), 0);
}

#[test]
fn a_timed_out_attempt_and_its_timer_are_gone_before_any_callback_runs() {
    let hanging = || Scene::by_hand([Step::hang().after(1000 * SECOND)]);
    for scene in [hanging(), hanging().shareable()] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, clock, scripted) = (log.clone(), scene.clock.clone(), scene.scripted.clone());
        let look = move || {
            let cancelled = scripted.attempts()[0].cancelled;
            seen.lock().unwrap().push((cancelled, clock.sleeping()));
        };
        let [retry_if, retry_after, observer] = [look.clone(), look.clone(), look];
        let scene = scene.set(|r| {
            r.max_retries(0)
                .retry_if(move |_| {
                    retry_if();
                    true
                })
                .retry_after(move |_| {
                    retry_after();
                    None
                })
                .observe(move |event| {
                    if matches!(event, Event::GaveUp { .. }) {
                        observer();
                    }
                })
        });
        let request = request();
        let mut call = pin!(scene.retrying.chat_completion(&request));
        assert!(poll_once(&mut call).is_pending());
        assert_eq!(scene.clock.sleeping(), 2, "the attempt and its timeout");
        scene.clock.advance(30 * SECOND);
        assert!(poll_once(&mut call).is_ready());
        assert_eq!(*log.lock().unwrap(), [(true, 0); 3]);
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
    let script = [Step::hang(), Step::stream([Step::ok(), Step::hang()])];
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
    assert!(matches!(items.next().now_or_never(), Some(Some(Ok(_)))));
    assert!(items.next().now_or_never().is_none());
    clock.advance(90 * SECOND);
    assert!(items.next().now_or_never().is_none(), "one more turn");
    let stalled = items.next().now_or_never();
    assert!(matches!(stalled, Some(Some(Err(Error::Timeout)))));
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
