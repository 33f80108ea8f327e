//! Turns under a model checker: every interleaving of two tasks and the timer, up
//! to a bound on preemptions.
//!
//! At the end of each model, when time has passed, every call that was left waiting has been
//! woken and has its turn, no turn was given twice, and nothing is left.

use super::{turns::Shared, *};
use crate::{
    failure::tests::Fake,
    timer::{
        SharedTimer, Timer,
        model::{Clock, TICK},
    },
};
use futures_test::task::{AwokenCount, new_count_waker};
use loom::{
    model::Builder,
    thread::{self, JoinHandle},
};

/// The interval of turns; the model wakes with a rate of 4/s, at which it is held.
const TURN: Duration = Duration::from_millis(250);

/// A call that has joined the queue, and the waker that its task has.
struct Caller {
    place: Box<dyn Place>,
    waits: bool,
    waker: Waker,
    woken: AwokenCount,
}

impl Caller {
    fn join(limiter: &RateLimiter, timer: &Arc<SharedTimer<Clock>>) -> Self {
        let (waker, woken) = new_count_waker();
        let waiter = Waiter {
            waker: Some(waker.clone()),
            timer: timer.clone(),
            is_shareable: true,
            sleeps_until: None,
            deadline: None,
        };
        let place = limiter.turns().ask("m", false, waiter).unwrap();
        Self {
            waits: matches!(place.look(&waker, None), Look::Waiting { .. }),
            place,
            waker,
            woken,
        }
    }

    /// Takes its turn, which has come, and of which its task knows.
    fn take(self) -> Ticket {
        assert!(!self.waits || self.woken.get() > 0, "a wake is lost");
        assert!(matches!(self.place.look(&self.waker, None), Look::Granted));
        self.place.take()
    }
}

/// Runs a model over all interleavings with at most so many preemptions.
fn check(
    preemptions: usize,
    model: impl Fn(Clock, RateLimiter, Arc<SharedTimer<Clock>>) + Sync + Send + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let clock = Clock::new();
        let timer = SharedTimer::new(clock.clone());
        let shared = Shared::new();
        let limiter = RateLimiter {
            awake: shared.awake.clone(),
            turns: shared.clone(),
        };
        assert!(limiter.turns().refused(
            "m",
            &Fake::default(),
            Ticket::default(),
            None,
            clock.now()
        ));
        model(clock.clone(), limiter.clone(), timer.clone());
        let models = shared.lock();
        let state = &models.by_name["m"];
        assert!(
            state.queue.is_empty() && state.alarm.is_none(),
            "something is left"
        );
        drop(models);
        drop((timer, limiter, shared));
        assert_eq!(clock.timer().sleeping(), 0, "a sleep is left");
    });
}

/// Joins on another thread, from which the call comes back.
fn joined(limiter: &RateLimiter, timer: &Arc<SharedTimer<Clock>>) -> JoinHandle<Caller> {
    let (limiter, timer) = (limiter.clone(), timer.clone());
    thread::spawn(move || Caller::join(&limiter, &timer))
}

/// Lets enough time pass for so many turns.
fn pass(clock: &Clock, turns: u32) {
    (0..turns).for_each(|_| clock.timer().advance(TURN));
}

#[test]
fn two_calls_join_at_once_while_the_timer_fires() {
    check(2, |clock, limiter, timer| {
        let other = joined(&limiter, &timer);
        let first = Caller::join(&limiter, &timer);
        clock.timer().advance(TURN);
        let other = other.join().unwrap();
        pass(&clock, 3);
        assert_ne!(first.take(), other.take(), "a turn was given twice");
    });
}

#[test]
fn three_calls_join_at_once() {
    check(2, |clock, limiter, timer| {
        let others = [(); 2].map(|()| joined(&limiter, &timer));
        let first = Caller::join(&limiter, &timer);
        let [second, third] = others.map(|other| other.join().unwrap());
        pass(&clock, 4);
        let [first, second, third] = [first, second, third].map(Caller::take);
        assert!(first != second && second != third && third != first);
    });
}

#[test]
fn a_waiting_or_granted_call_is_dropped_while_the_timer_fires() {
    check(3, |clock, limiter, timer| {
        let [dropped, other] = [(); 2].map(|()| Caller::join(&limiter, &timer));
        let task = thread::spawn(move || drop(dropped));
        clock.timer().advance(TURN);
        task.join().unwrap();
        // The turn of the one that was dropped went to the other.
        other.take();
    });
}

#[test]
fn a_granted_call_is_dropped_while_another_joins() {
    check(3, |clock, limiter, timer| {
        let dropped = Caller::join(&limiter, &timer);
        clock.timer().advance(TURN);
        let other = joined(&limiter, &timer);
        drop(dropped);
        let other = other.join().unwrap();
        pass(&clock, 2);
        other.take();
    });
}

#[test]
fn the_rate_falls_and_a_hold_begins_while_the_timer_fires() {
    for hold in [None, Some(TICK)] {
        check(3, move |clock, limiter, timer| {
            let [first, second] = [(); 2].map(|()| Caller::join(&limiter, &timer));
            clock.timer().advance(TURN);
            let ticket = first.take();
            let refusal = limiter.clone();
            let now = clock.now();
            let task = thread::spawn(move || {
                refusal
                    .turns()
                    .refused("m", &Fake::default(), ticket, hold, now)
            });
            clock.timer().advance(TURN);
            assert!(task.join().unwrap());
            pass(&clock, 20);
            second.take();
        });
    }
}

#[test]
fn the_alarm_moves_from_the_timer_of_a_call_that_goes() {
    check(3, |clock, limiter, timer| {
        let other = SharedTimer::new(clock.clone());
        let dropped = Caller::join(&limiter, &timer);
        let waiting = Caller::join(&limiter, &other);
        let task = thread::spawn(move || drop((dropped, timer)));
        clock.timer().advance(TURN);
        task.join().unwrap();
        clock.timer().advance(TURN);
        waiting.take();
    });
}
