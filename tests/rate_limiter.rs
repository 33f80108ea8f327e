//! Calls that wait for their turn beside others while a server throttles. The model of
//! one call after the other is in `tests/model`.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "serde",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Sleeps, block_on, exactly, poll_once, request};
use crabllm_retry::{
    Config, Event, FuturesTimer, Instant, Operation, RateLimiter, Retrying, Timer,
    crabllm_core_0_0_19::{Error, Provider},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::FutureExt;
use futures_test::task::new_count_waker;
use std::{
    future::{Pending, pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

const MODEL: Option<&str> = Some("m");

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// A call that is answered at once when it has its turn.
fn answered<T: Timer>(retrying: &Retrying<Scripted<VirtualTimer>, T>) -> Call<'_> {
    let call = retrying.call(Operation::Other("x"), MODEL, |_| async { Ok(()) });
    Box::pin(call)
}

/// A call whose attempts are all refused at once.
fn refused<'a, T: Timer>(
    retrying: &'a Retrying<Scripted<VirtualTimer>, T>,
    model: Option<&'a str>,
    body: &'a str,
) -> Call<'a> {
    let call = retrying.call(Operation::Other("x"), model, move |_| {
        let body = body.to_owned();
        async { Err(Error::Provider { status: 429, body }) }
    });
    Box::pin(call)
}

/// A wrapper whose limiter has just been woken. Its clock moves by hand.
fn awake(shareable: bool, script: impl IntoIterator<Item = Step>) -> (Scene, RateLimiter) {
    let limiter = RateLimiter::adaptive();
    let scene = Scene::by_hand(script).set(|r| r.rate_limiter(limiter.clone()));
    let scene = if shareable { scene.shareable() } else { scene };
    let once = scene.retrying.clone().max_retries(0);
    assert!(poll_once(&mut refused(&once, MODEL, "")).is_ready());
    assert_eq!(limiter.rate(MODEL), Some(4.0));
    (scene, limiter)
}

/// Moves the clock by hand, in steps of a millisecond.
fn advance(clock: &VirtualTimer, millis: u32) {
    (0..millis).for_each(|_| clock.advance(SECOND / 1000));
}

fn is_pending(call: &mut Call<'_>, waker: &Waker) -> bool {
    let mut cx = Context::from_waker(waker);
    call.as_mut().poll(&mut cx).is_pending()
}

/// Polls a call whenever it is woken, until it ends. Returns the time it took, in
/// milliseconds.
fn run(clock: &VirtualTimer, call: &mut Call<'_>) -> u32 {
    let (waker, woken) = new_count_waker();
    let mut millis = 0;
    loop {
        let before = woken.get();
        if !is_pending(call, &waker) {
            return millis;
        }
        while woken.get() == before {
            assert!(millis < 1000, "it is not woken");
            advance(clock, 1);
            millis += 1;
        }
    }
}

#[test]
fn a_retry_goes_before_calls_that_have_not_started() {
    let (scene, _) = awake(true, [Step::status(503)]);
    let retrying = scene.retrying.clone().backoff(exactly(SECOND / 10));
    let request = request();
    let mut calls = [(); 3].map(|()| Box::pin(retrying.chat_completion(&request)));
    let mut are_ready = || calls.each_mut().map(|call| poll_once(call).is_ready());
    assert_eq!(are_ready(), [false; 3]);
    // The first one is sent at 250 ms, its retry joins at 350 ms, the next turn is at 375 ms.
    for (millis, ready) in [(251, false), (100, false), (25, true)] {
        advance(&scene.clock, millis);
        assert_eq!(are_ready(), [ready, false, false]);
    }
}

#[test]
fn a_call_that_has_its_turn_and_is_never_polled_again_delays_nobody() {
    // The turns of the first two come, and nobody polls them. If the third sleeps for itself,
    // it looks at 750 ms, when it is due at the first rate, and the turns have to catch up.
    for (shareable, millis) in [(false, 900), (true, 459)] {
        let (scene, _) = awake(shareable, []);
        let mut calls = [(); 3].map(|()| answered(&scene.retrying));
        assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
        assert_eq!(run(&scene.clock, &mut calls[2]), millis);
    }
}

#[test]
fn a_call_that_sleeps_for_itself_and_is_never_polled_delays_nobody_with_a_shared_timer() {
    let (scene, limiter) = awake(true, []);
    let own_sleeps = Retrying::with_timer(scene.scripted.clone(), Sleeps::by(&scene.clock))
        .rate_limiter(limiter);
    let (waker, woken) = new_count_waker();
    let mut first = answered(&own_sleeps);
    let mut second = answered(&scene.retrying);
    assert!(poll_once(&mut first).is_pending() && is_pending(&mut second, &waker));
    advance(&scene.clock, 374);
    assert_eq!(woken.get(), 0);
    advance(&scene.clock, 2);
    assert_eq!(woken.get(), 1);
    assert!(poll_once(&mut second).is_ready());
}

#[test]
fn calls_that_are_dropped_between_cost_the_others_nothing() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let mut first = answered(&scene.retrying);
        let mut dropped: Vec<_> = (0..40).map(|_| answered(&scene.retrying)).collect();
        let mut last = answered(&scene.retrying);
        assert!(poll_once(&mut first).is_pending());
        assert!(dropped.iter_mut().all(|call| poll_once(call).is_pending()));
        let (waker, woken) = new_count_waker();
        assert!(is_pending(&mut last, &waker));
        drop(dropped);
        assert_eq!(woken.get(), usize::from(!shareable), "it has moved up");
        // The first one is never polled again.
        assert!(run(&scene.clock, &mut last) <= 600, "{shareable}");
    }
}

#[test]
fn a_call_that_sleeps_for_its_turn_looks_again_when_the_rate_has_risen() {
    let (scene, _) = awake(false, []);
    let mut first = answered(&scene.retrying);
    let mut second = answered(&scene.retrying);
    let (waker, woken) = new_count_waker();
    assert!(poll_once(&mut first).is_pending() && is_pending(&mut second, &waker));
    advance(&scene.clock, 250);
    assert!(poll_once(&mut first).is_ready());
    assert_eq!(woken.get(), 1);
    assert_eq!(run(&scene.clock, &mut second), 125);
}

#[test]
fn a_turn_that_is_due_belongs_to_the_call_that_waits() {
    let (scene, _) = awake(false, []);
    let mut first = answered(&scene.retrying);
    assert!(poll_once(&mut first).is_pending());
    scene.clock.advance(SECOND / 4);
    let mut second = answered(&scene.retrying);
    assert!(poll_once(&mut second).is_pending());
    assert!(poll_once(&mut first).is_ready());
}

#[test]
fn a_sleep_that_ends_early_ends_the_wait() {
    let limiter = RateLimiter::adaptive();
    let scripted = Scripted::new(VirtualTimer::manual(), []);
    let retrying = Retrying::with_timer(scripted, |_| ready(())).rate_limiter(limiter.clone());
    let once = retrying.clone().max_retries(0);
    assert!(poll_once(&mut refused(&once, MODEL, "")).is_ready());
    assert!(poll_once(&mut answered(&retrying)).is_ready());
    assert!(limiter.rate(MODEL) > Some(4.0));
}

#[test]
fn a_call_whose_deadline_passes_before_its_turn_has_ended() {
    let limiter = RateLimiter::adaptive();
    let scripted = Scripted::new(FuturesTimer, [Step::status(429)]);
    let retrying = Retrying::with_timer(scripted, FuturesTimer).rate_limiter(limiter);
    assert!(block_on(retrying.chat_completion(&request())).is_ok());
    let hasty = retrying.deadline(Duration::from_nanos(1));
    let request = request();
    let mut call = Box::pin(hasty.chat_completion(&request));
    assert!(matches!(
        poll_once(&mut call),
        Poll::Ready(Err(Error::Timeout))
    ));
    assert!(poll_once(&mut call).is_pending());
}

#[test]
fn a_call_that_is_dropped_at_its_turn_passes_it_on_unless_a_later_one_was_granted() {
    let (scene, _) = awake(true, []);
    let mut calls = Vec::from([(); 5].map(|()| answered(&scene.retrying)));
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    advance(&scene.clock, 251);
    drop(calls.remove(0));
    assert!(poll_once(&mut calls[0]).is_ready());
    // Both of the next two have their turns.
    advance(&scene.clock, 210);
    drop(calls.remove(1));
    assert!(poll_once(&mut calls[1]).is_ready());
    assert!(poll_once(&mut calls[2]).is_pending());
}

/// A timer that may be shared, and that wakes nobody.
#[derive(Clone)]
struct Stopped(VirtualTimer);

impl Timer for Stopped {
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

/// A waker that panics, either when it is woken or when it is dropped.
struct Panicking {
    in_drop: bool,
}

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        assert!(self.in_drop, "as it should");
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(!self.in_drop, "as it should");
    }
}

#[test]
fn the_next_call_takes_over_when_the_first_call_and_its_wrapper_go_even_if_a_waker_panics() {
    for shareable in [false, true] {
        let (scene, limiter) = awake(shareable, []);
        let timer = Arc::new(Stopped(scene.clock.clone()));
        let stopped = Retrying::with_timer(scene.scripted.clone(), timer.clone());
        let stopped = stopped.rate_limiter(limiter);
        let mut first = answered(&stopped);
        let mut second = answered(&scene.retrying);
        let (waker, woken) = new_count_waker();
        let panicking = Arc::new(Panicking { in_drop: true });
        assert!(is_pending(&mut first, &panicking.into()) && is_pending(&mut second, &waker));
        advance(&scene.clock, 100);
        drop(first);
        drop(stopped);
        assert_eq!(Arc::strong_count(&timer), 1);
        // It sleeps for too long if it sleeps for itself.
        assert_eq!(woken.get(), usize::from(!shareable));
        assert_eq!(run(&scene.clock, &mut second), 150);
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_call_waiting() {
    let (scene, _) = awake(true, []);
    let mut first = answered(&scene.retrying);
    let mut second = answered(&scene.retrying);
    let (waker, woken) = new_count_waker();
    let panicking = Arc::new(Panicking { in_drop: false }).into();
    assert!(is_pending(&mut first, &panicking) && is_pending(&mut second, &waker));
    advance(&scene.clock, 376);
    assert_eq!(woken.get(), 1);
}

#[test]
fn a_requested_delay_holds_back_calls_that_wait_and_ends_those_with_an_earlier_deadline() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let hasty = scene.retrying.clone().deadline(10 * SECOND);
        let mut first = refused(&scene.retrying, MODEL, "try again in 20s");
        let mut patient = answered(&scene.retrying);
        let mut hasty = answered(&hasty);
        let (waker, woken) = new_count_waker();
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut patient).is_pending());
        assert!(is_pending(&mut hasty, &waker));
        advance(&scene.clock, 251);
        let earlier = woken.get();
        assert!(poll_once(&mut first).is_pending());
        assert_eq!(woken.get(), earlier + 1);
        assert!(matches!(hasty.now_or_never(), Some(Err(Error::Timeout))));
        advance(&scene.clock, 19_998);
        assert!(poll_once(&mut patient).is_pending());
        advance(&scene.clock, 3);
        assert!(poll_once(&mut patient).is_ready(), "shareable: {shareable}");
    }
}

#[test]
fn a_requested_delay_holds_back_calls_that_have_not_used_their_turn() {
    for is_dropped in [false, true] {
        let (scene, _) = awake(true, []);
        let mut first = refused(&scene.retrying, MODEL, "try again in 20s");
        let mut granted = answered(&scene.retrying);
        let mut waiting = answered(&scene.retrying);
        let calls = [&mut first, &mut granted, &mut waiting];
        assert!(calls.into_iter().all(|call| poll_once(call).is_pending()));
        advance(&scene.clock, 376);
        assert!(poll_once(&mut first).is_pending());
        drop(first);
        match is_dropped {
            true => (granted, waiting) = (waiting, answered(&scene.retrying)),
            false => assert!(poll_once(&mut granted).is_pending()),
        }
        scene.clock.advance(20 * SECOND - SECOND / 1000);
        assert!(poll_once(&mut granted).is_pending());
        assert_eq!(run(&scene.clock, &mut granted), 1);
        assert!(run(&scene.clock, &mut waiting) > 100);
    }
}

#[test]
fn a_call_whose_deadline_has_passed_uses_up_no_turn_even_if_it_is_not_polled() {
    let (scene, _) = awake(true, []);
    let hasty = scene.retrying.clone().deadline(SECOND / 10);
    let mut late = [(); 3].map(|()| answered(&hasty));
    assert!(late.iter_mut().all(|call| poll_once(call).is_pending()));
    assert_eq!(run(&scene.clock, &mut answered(&scene.retrying)), 250);
    let result = late.into_iter().next().and_then(FutureExt::now_or_never);
    assert!(matches!(result, Some(Err(Error::Timeout))));
}

#[test]
fn a_turn_whose_attempt_does_not_start_goes_to_the_next_call() {
    let (scene, _) = awake(true, []);
    let observed = scene.retrying.clone().observe(|event| {
        assert!(!matches!(event, Event::Attempt { .. }), "as it should");
    });
    scene.clock.advance(SECOND);
    let mut call = AssertUnwindSafe(answered(&observed));
    assert!(catch_unwind(move || poll_once(&mut call)).is_err());
    assert!(poll_once(&mut answered(&scene.retrying)).is_ready());
    assert!(poll_once(&mut answered(&scene.retrying)).is_pending());
}

/// A timer that may be shared, and that panics from some moment on.
struct Failing {
    clock: VirtualTimer,
    fails: Arc<AtomicBool>,
}

impl Timer for Failing {
    type Sleep = Pending<()>;

    fn sleep(&self, _: Duration) -> Pending<()> {
        assert!(!self.fails.load(Relaxed), "as it should");
        pending()
    }

    fn now(&self) -> Instant {
        assert!(!self.fails.load(Relaxed), "as it should");
        self.clock.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

#[test]
fn a_timer_that_panics_affects_no_call_of_another_wrapper() {
    let (scene, limiter) = awake(true, []);
    let (clock, fails) = (scene.clock.clone(), Arc::default());
    let timer = Failing {
        clock,
        fails: Arc::clone(&fails),
    };
    let failing = Retrying::with_timer(scene.scripted.clone(), timer).rate_limiter(limiter);
    let mut first = answered(&scene.retrying);
    let mut second = AssertUnwindSafe(answered(&failing));
    let mut third = answered(&scene.retrying);
    let calls = [&mut first, &mut second, &mut third];
    assert!(calls.into_iter().all(|call| poll_once(call).is_pending()));
    fails.store(true, Relaxed);
    // The alarm moves to the timer that panics.
    drop(first);
    // The panic drops the call, which asks for the time again.
    assert!(catch_unwind(move || poll_once(&mut second)).is_err());
    assert_eq!(run(&scene.clock, &mut third), 250);
}

#[test]
fn a_model_is_dormant_after_a_minute_without_waiting_calls_and_the_next_call_notices() {
    for is_dropped in [false, true] {
        let (scene, limiter) = awake(true, []);
        let other_models_call = || _ = poll_once(&mut refused(&scene.retrying, None, ""));
        let patient = scene.retrying.clone().max_retry_after(100 * SECOND);
        scene.clock.advance(SECOND);
        let mut held = refused(&patient, MODEL, "try again in 90s");
        assert!(poll_once(&mut held).is_pending());
        drop(held);
        let mut waiting = Some(answered(&scene.retrying));
        assert!(
            waiting
                .as_mut()
                .is_some_and(|call| poll_once(call).is_pending())
        );
        scene.clock.advance(70 * SECOND);
        // The call still waits.
        other_models_call();
        assert!(limiter.rate(MODEL).is_some());
        scene.clock.advance(19 * SECOND);
        match is_dropped {
            true => waiting = None,
            false => scene.clock.advance(SECOND),
        }
        scene.clock.advance(60 * SECOND - SECOND / 1000);
        other_models_call();
        assert!(limiter.rate(MODEL).is_some(), "dropped: {is_dropped}");
        scene.clock.advance(SECOND / 1000);
        assert!(limiter.rate(MODEL).is_some());
        other_models_call();
        assert_eq!(limiter.rate(MODEL), None);
        assert_eq!(limiter.rate(None), Some(4.0));
        assert_eq!(format!("{limiter:?}"), "RateLimiter { awake: 1, .. }");
        assert!(waiting.is_none_or(|mut call| poll_once(&mut call).is_ready()));
    }
}

#[test]
fn at_most_1024_models_are_awake_and_none_with_waiting_calls_is_forgotten() {
    let (scene, limiter) = awake(true, []);
    let mut waiting = answered(&scene.retrying);
    assert!(poll_once(&mut waiting).is_pending());
    let names: Vec<_> = (0..1100).map(|n| n.to_string()).collect();
    let once = scene.retrying.clone().max_retries(0);
    for name in &names {
        assert!(poll_once(&mut refused(&once, Some(name), "")).is_ready());
    }
    let is_awake = |name: &String| limiter.rate(Some(name)).is_some();
    assert!(!names[..77].iter().any(is_awake), "the oldest go first");
    assert!(names[77..].iter().all(is_awake));
    assert!(limiter.rate(MODEL).is_some());
}

#[test]
fn a_file_sets_a_limiter_unless_there_is_one() {
    let config: Config = toml::from_str("[rate_limiter]").unwrap();
    assert_eq!(
        toml::from_str(&toml::to_string(&config).unwrap()),
        Ok(config.clone())
    );
    assert!(toml::from_str::<Config>("[rate_limiter]\nrate = 4").is_err());

    let refusals = || (0..4).map(|_| Step::status(429));
    let scene = Scene::new(refusals()).set(|r| r.config(config.clone()));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());

    let limiter = RateLimiter::adaptive();
    let scene = Scene::new(refusals()).set(|r| r.rate_limiter(limiter.clone()).config(config));
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert!(limiter.rate(MODEL).is_some());
}

#[test]
fn the_recommended_settings_have_a_limiter() {
    let scene = Scene::new((0..8).map(|_| Step::status(429))).set(Retrying::recommended);
    assert!(block_on(scene.retrying.chat_completion(&request())).is_ok());
    assert_eq!(scene.attempts(), 9);
}
