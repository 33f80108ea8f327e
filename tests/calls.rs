//! Calls, beyond what the model in `tests/model` proves.

#![cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Wrapper, block_on, poll_once, request};
use crabllm_retry::{
    AsyncIoTimer, Backoff, FuturesTimer, Instant, Jitter, Retrying, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualSleep, VirtualTimer},
};
use futures::{FutureExt, future::join_all};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const BUSY: &str = "Please retry after 26 seconds.";

#[test]
fn nothing_happens_before_the_first_poll() {
    let scene = Scene::new([]);
    drop(scene.retrying.chat_completion(&request()));
    assert_eq!(scene.attempts(), 0);
}

#[test]
fn a_poll_makes_at_most_one_attempt_however_short_the_delay() {
    fn polls(timer: impl Timer) {
        const RETRIES: usize = 1000;
        const TICK: Duration = Duration::from_nanos(1);
        let script = vec![Step::status(503); RETRIES];
        let provider = Scripted::new(VirtualTimer::manual(), script);
        let retrying = Retrying::with_timer(provider, timer)
            .backoff(Backoff::exponential(TICK, TICK))
            .max_retries(u32::MAX);
        let request = request();
        let mut call = pin!(retrying.chat_completion(&request));
        let mut made = 0;
        loop {
            let poll = poll_once(&mut call);
            let now = retrying.get_ref().attempts().len();
            assert!(now - made <= 1, "{} attempts in one poll", now - made);
            made = now;
            if poll.is_ready() {
                break;
            }
        }
        assert_eq!(made, 1 + RETRIES);
    }
    polls(|_| std::future::ready(()));
    polls(FuturesTimer);
    polls(AsyncIoTimer);
}

#[test]
fn a_deadline_strikes_by_the_timer_even_if_the_clock_is_another() {
    let scene = Scene::new([Step::hang(), Step::hang()]);
    let sleeper = scene.clock.clone();
    // A closure's clock is the system's, which hardly moves in this test.
    let timer = move |duration| sleeper.sleep(duration);
    let retrying = scene.retrying.clone().timer(timer).deadline(10 * SECOND);
    let result = block_on(retrying.chat_completion(&request()));
    assert!(matches!(result, Err(Error::Timeout)));
    assert_eq!(scene.attempts(), 1);
}

#[test]
fn the_longest_timeouts_do_not_panic_on_real_timers() {
    fn armed_and_dropped(timer: impl Timer + Clone) {
        for timeout in [
            Duration::MAX,
            Duration::from_secs(u64::MAX / 2),
            3_000_000_000 * SECOND,
        ] {
            let scene = Scene::new([Step::hang()]);
            let retrying = scene.retrying.timer(timer.clone()).timeout(timeout);
            let call = retrying.chat_completion(&request()).now_or_never();
            assert!(call.is_none());
            assert!(timer.sleep(timeout).now_or_never().is_none());
        }
    }
    armed_and_dropped(FuturesTimer);
    armed_and_dropped(AsyncIoTimer);
    armed_and_dropped(smol::Timer::after);
}

#[test]
fn the_clock_of_a_timer_that_is_not_shared_is_read_only_for_observers_and_deadlines() {
    #[derive(Clone)]
    struct CountedClock(VirtualTimer, Arc<AtomicUsize>);

    impl Timer for CountedClock {
        type Sleep = VirtualSleep;

        fn sleep(&self, duration: Duration) -> VirtualSleep {
            self.0.sleep(duration)
        }

        fn now(&self) -> Instant {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.now()
        }
    }

    type Counted = Retrying<Scripted<VirtualTimer>, CountedClock>;
    let reads = |change: fn(Counted) -> Counted| {
        let script = [Step::status(503), Step::hang(), Step::ok().after(SECOND)];
        let scene = Scene::new(script);
        let counted = CountedClock(scene.clock, Arc::default());
        let retrying = change(scene.retrying.timer(counted.clone()));
        block_on(retrying.chat_completion(&request())).unwrap();
        counted.1.load(Ordering::Relaxed)
    };
    assert_eq!(reads(|r| r), 0);
    assert!(reads(|r| r.observe(|_| {})) > 0);
    assert!(reads(|r| r.deadline(1000 * SECOND)) > 0);
}

#[test]
fn observers_are_told_in_the_order_in_which_they_were_added() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let [first, second] = [log.clone(), log.clone()];
    let scene = Scene::new([]).set(|r| {
        r.observe(move |_| first.lock().unwrap().push("first"))
            .observe(move |_| second.lock().unwrap().push("second"))
    });
    block_on(scene.retrying.chat_completion(&request())).unwrap();
    assert_eq!(*log.lock().unwrap(), ["first", "second"].repeat(2));
}

#[test]
fn a_body_is_read_unless_the_callback_answers() {
    let delays = |change: fn(Wrapper) -> Wrapper| {
        let scene = Scene::new([Step::status_with_body(429, BUSY)]).set(change);
        block_on(scene.retrying.chat_completion(&request())).unwrap();
        scene.sleeps.asked()
    };
    assert_eq!(delays(|r| r), [26 * SECOND]);
    assert_eq!(delays(|r| r.retry_after(|_| None)), [26 * SECOND]);
    let zero = |r: Wrapper| r.retry_after(|_| Some(Duration::ZERO));
    assert_eq!(delays(zero), [SECOND]);
}

#[test]
fn callers_that_are_told_the_same_do_not_return_together() {
    const CALLERS: usize = 1000;
    for jitter in [Jitter::Equal, Jitter::Full] {
        let scene = Scene::new(vec![Step::status_with_body(429, BUSY); CALLERS])
            .set(|r| r.backoff(Backoff::default().jitter(jitter)).seed(1));
        let request = request();
        let calls = (0..CALLERS).map(|_| scene.retrying.chat_completion(&request));
        block_on(scene.clock.task(join_all(calls)));
        let attempts = scene.scripted.attempts();
        let mut bins = [0; 50];
        for retry in &attempts[CALLERS..] {
            let after = retry.started - attempts[0].started - 26 * SECOND;
            bins[after.as_millis() as usize / 100] += 1;
        }
        assert_eq!(bins.iter().sum::<usize>(), CALLERS);
        let most = CALLERS / 20;
        assert!(bins.iter().all(|&callers| callers <= most), "{bins:?}");
    }
}
