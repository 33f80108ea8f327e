//! Shared waits on a clock moved by hand: random ones against a reference, and panics.
//! `model.rs` checks them on several threads.

use super::*;
use crate::test_util::VirtualTimer;
use futures::{
    FutureExt,
    future::{BoxFuture, pending},
};
use futures_test::task::{AwokenCount, new_count_waker};
use proptest::{collection::vec, prelude::*};
use std::{panic::panic_any, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// A virtual clock whose sleeps are shared and counted.
#[derive(Clone)]
struct Counted {
    clock: VirtualTimer,
    made: Arc<AtomicUsize>,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// The next sleep panics when it is made or polled, or its thread is held up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Making,
    Polling,
    HeldUp,
}

impl Timer for Counted {
    type Sleep = BoxFuture<'static, ()>;

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        assert!(!duration.is_zero());
        let fault = self.fault.lock().unwrap().take();
        assert_ne!(fault, Some(Fault::Making), "on purpose");
        self.made.fetch_add(1, Ordering::Relaxed);
        let sleep = self.clock.sleep(duration);
        async move {
            assert_ne!(fault, Some(Fault::Polling), "on purpose");
            match fault {
                Some(Fault::HeldUp) => pending().await,
                _ => sleep.await,
            }
        }
        .boxed()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

fn shared() -> (Counted, Arc<SharedTimer<Counted>>) {
    let timer = Counted {
        clock: VirtualTimer::manual(),
        made: Arc::default(),
        fault: Arc::default(),
    };
    (timer.clone(), SharedTimer::new(timer))
}

fn start(
    shared: &Arc<SharedTimer<Counted>>,
    duration: Duration,
    waker: &Waker,
) -> SharedWait<Counted> {
    SharedWait::start(shared.clone(), shared.timer.now() + duration, waker).unwrap()
}

/// A wait, and the count of its wakes.
fn counted(
    shared: &Arc<SharedTimer<Counted>>,
    duration: Duration,
) -> (SharedWait<Counted>, AwokenCount) {
    let (waker, woken) = new_count_waker();
    (start(shared, duration, &waker), woken)
}

/// A waker that runs a closure.
fn waker(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Running<F>(F);

    impl<F: Fn() + Send + Sync> Wake for Running<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }

    Waker::from(Arc::new(Running(f)))
}

/// A step of a random test. Waits are chosen by their index.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start(u32),
    PollByAnother(usize),
    Drop(usize),
    Advance(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // More waits expire at once than one batch wakes.
    let step = prop_oneof![
        30 => (1..8_u32).prop_map(Step::Start),
        5 => any::<usize>().prop_map(Step::PollByAnother),
        5 => any::<usize>().prop_map(Step::Drop),
        1 => (0..8_u32).prop_map(Step::Advance),
    ];
    vec(step, 0..400)
}

struct Waiter {
    wait: SharedWait<Counted>,
    deadline: Duration,
    waker: Waker,
    woken: AwokenCount,
}

proptest! {
    /// A wait wakes the waker that polled it last, once, at its deadline. A sleep is made
    /// only for an earlier deadline than the armed one, or after the armed one has passed.
    #[test]
    fn waits_are_over_at_their_deadlines_with_as_few_sleeps_as_possible(steps in steps()) {
        let (timer, shared) = shared();
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut replaced = Vec::new();
        let (mut armed, mut made) = (None::<Duration>, 0);
        for step in steps {
            let now = timer.clock.elapsed();
            match step {
                Step::Start(seconds) => {
                    let (waker, woken) = new_count_waker();
                    let wait = start(&shared, seconds * SECOND, &waker);
                    let deadline = now + seconds * SECOND;
                    waiters.push(Waiter { wait, deadline, waker, woken });
                    if armed.is_none_or(|armed| deadline < armed) {
                        armed = Some(deadline);
                        made += 1;
                    }
                }
                Step::PollByAnother(index) if !waiters.is_empty() => {
                    let index = index % waiters.len();
                    let waiter = &mut waiters[index];
                    if waiter.deadline > now {
                        let (waker, woken) = new_count_waker();
                        waiter.waker = waker;
                        replaced.push(mem::replace(&mut waiter.woken, woken));
                        let mut cx = Context::from_waker(&waiter.waker);
                        prop_assert!(waiter.wait.poll_unpin(&mut cx).is_pending());
                    }
                }
                Step::Drop(index) if !waiters.is_empty() => {
                    waiters.swap_remove(index % waiters.len());
                }
                Step::PollByAnother(_) | Step::Drop(_) => {}
                Step::Advance(seconds) => {
                    timer.clock.advance(seconds * SECOND);
                    let now = timer.clock.elapsed();
                    if armed.is_some_and(|armed| armed <= now) {
                        let deadlines = waiters.iter().map(|waiter| waiter.deadline);
                        armed = deadlines.filter(|deadline| *deadline > now).min();
                        made += usize::from(armed.is_some());
                    }
                    for waiter in &mut waiters {
                        let over = waiter.deadline <= now;
                        prop_assert_eq!(waiter.woken.get(), usize::from(over));
                        let mut cx = Context::from_waker(&waiter.waker);
                        prop_assert_eq!(waiter.wait.poll_unpin(&mut cx).is_ready(), over);
                    }
                }
            }
            prop_assert_eq!(timer.clock.sleeping(), usize::from(armed.is_some()));
            prop_assert_eq!(timer.made.load(Ordering::Relaxed), made);
        }
        prop_assert!(replaced.iter().all(|woken| woken.get() == 0));
        drop(shared);
        drop(waiters);
        prop_assert_eq!(timer.clock.sleeping(), 0, "the sleep ends with the last owner");
    }
}

#[test]
fn a_waker_may_drop_and_make_waits() {
    let (timer, shared) = shared();
    let (victim, victim_woken) = counted(&shared, SECOND);
    let victim = Mutex::new(Some(victim));
    let made = Arc::new(Mutex::new(None));
    let (keep, maker) = (made.clone(), shared.clone());
    let meddling = waker(move || {
        drop(victim.lock().unwrap().take());
        *keep.lock().unwrap() = Some(counted(&maker, SECOND / 4));
    });
    let _meddler = start(&shared, SECOND / 2, &meddling);
    timer.clock.advance(SECOND / 2);
    timer.clock.advance(SECOND / 4);
    let made = made.lock().unwrap().take().unwrap();
    assert_eq!((victim_woken.get(), made.1.get()), (0, 1));
}

#[test]
fn panics_of_wakers_and_of_the_next_sleep_do_not_unwind_into_the_timer() {
    /// A payload that panics when it is dropped.
    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }

    let (timer, shared) = shared();
    let payload = Payload;
    let unlucky = waker(move || _ = &payload);
    let unlucky = start(&shared, SECOND, &{ unlucky });
    assert!(catch_unwind(AssertUnwindSafe(|| drop(unlucky))).is_err());
    let _panicking = start(&shared, SECOND, &waker(|| panic_any(Payload)));
    let (_same, same_woken) = counted(&shared, SECOND);
    let (_later, later_woken) = counted(&shared, 2 * SECOND);
    *timer.fault.lock().unwrap() = Some(Fault::Making);
    timer.clock.advance(SECOND);
    assert_eq!(*timer.fault.lock().unwrap(), None);
    assert_eq!(same_woken.get(), 1);
    let (_next, next_woken) = counted(&shared, 2 * SECOND);
    timer.clock.advance(SECOND);
    assert_eq!((later_woken.get(), next_woken.get()), (1, 0));
    timer.clock.advance(SECOND);
    assert_eq!(next_woken.get(), 1);
}

#[test]
fn a_timer_that_panicked_is_used_again() {
    for fault in [Fault::Making, Fault::Polling] {
        let (timer, shared) = shared();
        *timer.fault.lock().unwrap() = Some(fault);
        let unlucky = catch_unwind(AssertUnwindSafe(|| counted(&shared, SECOND)));
        assert!(unlucky.is_err());
        assert!(shared.lock().list.earliest().is_none());
        let (_lucky, woken) = counted(&shared, SECOND);
        timer.clock.advance(SECOND);
        assert_eq!(woken.get(), 1, "{fault:?}");
    }
}

#[test]
fn each_poll_reads_the_clock_in_case_the_timer_is_held_up() {
    let (timer, shared) = shared();
    *timer.fault.lock().unwrap() = Some(Fault::HeldUp);
    let (mut wait, woken) = counted(&shared, SECOND);
    assert!((&mut wait).now_or_never().is_none());
    timer.clock.advance(SECOND);
    assert!((&mut wait).now_or_never().is_some());
    assert_eq!(woken.get(), 0);
}
