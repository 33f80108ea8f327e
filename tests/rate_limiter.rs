//! Calls that wait for their turn beside others while a server throttles. The model of
//! one call after the other is in `tests/model`.

#![cfg(all(
    feature = "crabllm-core-0_0_19",
    feature = "serde",
    feature = "test-util"
))]

mod common;

use common::{SECOND, Scene, Sleeps, exactly, poll_once, request};
use crabllm_retry::{
    Config, Event, Instant, Operation, RateLimiter, Retrying, Timer,
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

/// Calls that wait for their turn.
fn waiting<const N: usize>(scene: &Scene) -> [Call<'_>; N] {
    let mut calls = [(); N].map(|()| answered(&scene.retrying));
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    calls
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
        let [_first, _second, mut third] = waiting(&scene);
        assert_eq!(run(&scene.clock, &mut third), millis);
    }
}

#[test]
fn a_call_that_sleeps_for_itself_and_is_never_polled_delays_nobody_with_a_shared_timer() {
    let (scene, limiter) = awake(true, []);
    let own_sleeps = Retrying::with_timer(scene.scripted.clone(), Sleeps::by(&scene.clock))
        .rate_limiter(limiter);
    let mut first = answered(&own_sleeps);
    assert!(poll_once(&mut first).is_pending());
    assert_eq!(run(&scene.clock, &mut answered(&scene.retrying)), 375);
}

#[test]
fn calls_that_are_dropped_between_cost_the_others_nothing() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let [_first] = waiting(&scene);
        let dropped = waiting::<40>(&scene);
        let mut last = answered(&scene.retrying);
        let (waker, woken) = new_count_waker();
        assert!(is_pending(&mut last, &waker));
        drop(dropped);
        assert_eq!(woken.get(), usize::from(!shareable), "it has moved up");
        assert!(run(&scene.clock, &mut last) <= 600, "{shareable}");
    }
}

#[test]
fn a_call_that_sleeps_for_its_turn_looks_again_when_the_rate_has_risen() {
    let (scene, _) = awake(false, []);
    let [mut first, mut second] = waiting(&scene);
    let (waker, woken) = new_count_waker();
    assert!(is_pending(&mut second, &waker));
    advance(&scene.clock, 250);
    assert!(poll_once(&mut first).is_ready());
    assert_eq!(woken.get(), 1);
    assert_eq!(run(&scene.clock, &mut second), 125);
}

#[test]
fn a_turn_that_is_due_belongs_to_the_call_that_waits() {
    let (scene, _) = awake(false, []);
    let [mut first] = waiting(&scene);
    scene.clock.advance(SECOND / 4);
    let [_second] = waiting(&scene);
    assert!(poll_once(&mut first).is_ready());
}

#[test]
fn a_sleep_that_ends_early_ends_the_wait() {
    let (scene, _) = awake(false, []);
    let early = scene.retrying.timer(|_| ready(())).max_retries(0);
    assert!(poll_once(&mut refused(&early, MODEL, "try again in 20s")).is_ready());
    let begun = Instant::now();
    assert!(poll_once(&mut answered(&early)).is_ready());
    assert!(begun.elapsed() < 10 * SECOND, "it looked again until then");
}

#[test]
fn a_call_whose_deadline_passes_before_its_turn_has_ended() {
    let (scene, _) = awake(false, []);
    let system_clock = scene.retrying.timer(|_| ready(()));
    let hasty = system_clock.deadline(Duration::from_nanos(1));
    let request = request();
    let mut call = Box::pin(hasty.chat_completion(&request));
    let result = poll_once(&mut call);
    assert!(matches!(result, Poll::Ready(Err(Error::Timeout))));
    assert!(poll_once(&mut call).is_pending());
}

#[test]
fn a_call_that_is_dropped_at_its_turn_passes_it_on_unless_a_later_one_was_granted() {
    let (scene, _) = awake(true, []);
    let [first, mut second, third, mut fourth, mut fifth] = waiting(&scene);
    advance(&scene.clock, 251);
    drop(first);
    assert!(poll_once(&mut second).is_ready());
    // Both of the next two have their turns.
    advance(&scene.clock, 210);
    drop(third);
    assert!(poll_once(&mut fourth).is_ready());
    assert!(poll_once(&mut fifth).is_pending());
}

/// A timer that may be shared, wakes nobody, and panics from some moment on.
struct Broken {
    clock: VirtualTimer,
    panics: AtomicBool,
}

impl Broken {
    fn by(clock: &VirtualTimer) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            panics: AtomicBool::new(false),
        })
    }
}

impl Timer for Broken {
    type Sleep = Pending<()>;

    fn sleep(&self, _: Duration) -> Pending<()> {
        assert!(!self.panics.load(Relaxed), "as it should");
        pending()
    }

    fn now(&self) -> Instant {
        assert!(!self.panics.load(Relaxed), "as it should");
        self.clock.now()
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
        let timer = Broken::by(&scene.clock);
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
    let [mut first, mut second] = waiting(&scene);
    let panicking = Arc::new(Panicking { in_drop: false });
    assert!(is_pending(&mut first, &panicking.into()));
    assert_eq!(run(&scene.clock, &mut second), 375);
}

#[test]
fn a_requested_delay_holds_back_calls_that_wait_and_ends_those_with_an_earlier_deadline() {
    for shareable in [false, true] {
        let (scene, _) = awake(shareable, []);
        let hasty = scene.retrying.clone().deadline(10 * SECOND);
        let mut first = refused(&scene.retrying, MODEL, "try again in 20s");
        assert!(poll_once(&mut first).is_pending());
        let [mut patient] = waiting(&scene);
        let mut hasty = answered(&hasty);
        let (waker, woken) = new_count_waker();
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
        assert!(poll_once(&mut first).is_pending());
        let [mut granted, mut last] = waiting(&scene);
        advance(&scene.clock, 376);
        assert!(poll_once(&mut first).is_pending());
        drop(first);
        match is_dropped {
            true => (granted, last) = (last, answered(&scene.retrying)),
            false => assert!(poll_once(&mut granted).is_pending()),
        }
        scene.clock.advance(20 * SECOND - SECOND / 1000);
        assert!(poll_once(&mut granted).is_pending());
        assert_eq!(run(&scene.clock, &mut granted), 1);
        assert!(run(&scene.clock, &mut last) > 100);
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
    let [_next] = waiting(&scene);
}

#[test]
fn a_timer_that_panics_affects_no_call_of_another_wrapper() {
    let (scene, limiter) = awake(true, []);
    let timer = Broken::by(&scene.clock);
    let failing = Retrying::with_timer(scene.scripted.clone(), timer.clone());
    let failing = failing.rate_limiter(limiter);
    let [first] = waiting(&scene);
    let mut second = AssertUnwindSafe(answered(&failing));
    assert!(poll_once(&mut second).is_pending());
    let [mut third] = waiting(&scene);
    timer.panics.store(true, Relaxed);
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
        let [waiting] = waiting(&scene);
        let mut waiting = Some(waiting);
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
    let [_waiting] = waiting(&scene);
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
    let (scene, _) = awake(true, []);
    for (retrying, awake) in [(Scene::new([]).retrying, 0), (scene.retrying, 1)] {
        let shown = format!("{:?}", retrying.config(config.clone()));
        let limiter = format!("rate_limiter: Some(RateLimiter {{ awake: {awake}, .. }})");
        assert!(shown.contains(&limiter), "{shown}");
    }
}
