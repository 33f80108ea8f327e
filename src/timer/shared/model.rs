//! Shared waits under a model checker: every interleaving of two or three tasks and
//! the timer, up to a bound on preemptions.
//!
//! At the end of each model, when time has passed, every pending wait has woken the waker
//! that polled it last, and is over.

use super::*;
use crate::test_util::{VirtualSleep, VirtualTimer};
use futures_test::task::{AwokenCount, new_count_waker};
use loom::{
    model::Builder,
    thread::{self, JoinHandle},
};
use std::time::Duration;

pub const TICK: Duration = Duration::from_secs(1);

/// A clock that the model moves. Other threads may run before each use of it.
#[derive(Clone)]
pub struct Clock {
    timer: VirtualTimer,
    switch: Arc<Mutex<()>>,
}

pub struct ClockSleep {
    sleep: VirtualSleep,
    clock: Clock,
}

impl Clock {
    pub fn new() -> Self {
        Self {
            timer: VirtualTimer::manual(),
            switch: Arc::new(Mutex::new(())),
        }
    }

    /// The clock, after a lock that the model checker knows.
    pub fn timer(&self) -> &VirtualTimer {
        drop(self.switch.lock());
        &self.timer
    }
}

impl Timer for Clock {
    type Sleep = ClockSleep;

    fn sleep(&self, duration: Duration) -> ClockSleep {
        ClockSleep {
            sleep: self.timer().sleep(duration),
            clock: self.clone(),
        }
    }

    fn now(&self) -> Instant {
        self.timer().now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

impl Future for ClockSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.clock.timer();
        Pin::new(&mut self.sleep).poll(cx)
    }
}

impl Drop for ClockSleep {
    fn drop(&mut self) {
        self.clock.timer();
    }
}

/// A wait that is polled by a waker of its own.
struct Waiter {
    wait: SharedWait<Clock>,
    waker: Waker,
    woken: AwokenCount,

    /// Its start, or a moment before.
    since: Instant,
    ticks: u32,
}

impl Waiter {
    fn new(shared: &Arc<SharedTimer<Clock>>, ticks: u32) -> Self {
        let (waker, woken) = new_count_waker();
        let since = shared.timer.now();
        Self {
            wait: SharedWait::start(shared.clone(), since + ticks * TICK, &waker).unwrap(),
            waker,
            woken,
            since,
            ticks,
        }
    }

    fn poll(&mut self) -> Poll<()> {
        let poll = Pin::new(&mut self.wait).poll(&mut Context::from_waker(&self.waker));
        let elapsed = self.wait.shared.timer.now() - self.since;
        assert!(poll.is_pending() || elapsed >= self.ticks * TICK, "early");
        poll
    }

    /// Polls with another waker from now on.
    fn poll_by_another(&mut self) -> Poll<()> {
        (self.waker, self.woken) = new_count_waker();
        self.poll()
    }

    /// Asserts that the wait has been woken and is over.
    fn assert_over(mut self) {
        assert!(self.woken.get() > 0, "a wake is lost");
        assert!(self.poll().is_ready());
    }
}

/// Runs a model over all interleavings with at most this many preemptions.
fn check(
    preemptions: usize,
    model: impl Fn(Clock, Arc<SharedTimer<Clock>>) + Sync + Send + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let clock = Clock::new();
        let shared = SharedTimer::new(clock.clone());
        model(clock.clone(), shared.clone());
        assert_eq!(shared.lock().list.earliest(), None, "a deadline is left");
        drop(shared);
        assert_eq!(clock.timer().sleeping(), 0, "a sleep is left");
    });
}

/// Starts a wait on another thread, which returns it.
fn started(shared: &Arc<SharedTimer<Clock>>, ticks: u32) -> JoinHandle<Waiter> {
    let shared = shared.clone();
    thread::spawn(move || Waiter::new(&shared, ticks))
}

#[test]
fn two_tasks_arm_while_the_timer_fires() {
    for ticks in [[1, 1], [1, 2], [2, 1]] {
        check(3, move |clock, shared| {
            let tasks = ticks.map(|ticks| started(&shared, ticks));
            clock.timer().advance(TICK);
            let waiters = tasks.map(|task| task.join().unwrap());
            clock.timer().advance(10 * TICK);
            waiters.into_iter().for_each(Waiter::assert_over);
        });
    }
}

#[test]
fn three_tasks_arm_one_of_them_long_before() {
    check(2, |clock, shared| {
        let first = Waiter::new(&shared, 2);
        let tasks = [1, 3].map(|ticks| started(&shared, ticks));
        clock.timer().advance(2 * TICK);
        let waiters = tasks.map(|task| task.join().unwrap());
        clock.timer().advance(10 * TICK);
        first.assert_over();
        waiters.into_iter().for_each(Waiter::assert_over);
    });
}

#[test]
fn a_shorter_wait_is_not_delayed_by_a_longer_one() {
    check(4, |clock, shared| {
        let tasks = [1, 3].map(|ticks| started(&shared, ticks));
        let [short, long] = tasks.map(|task| task.join().unwrap());
        clock.timer().advance(TICK);
        short.assert_over();
        clock.timer().advance(2 * TICK);
        long.assert_over();
    });
}

#[test]
fn the_first_is_cancelled_while_the_timer_fires() {
    for ticks in [[1, 1], [1, 2]] {
        check(3, move |clock, shared| {
            let [cancelled, other] = ticks.map(|ticks| Waiter::new(&shared, ticks));
            let task = thread::spawn(move || drop(cancelled));
            clock.timer().advance(TICK);
            task.join().unwrap();
            clock.timer().advance(10 * TICK);
            other.assert_over();
        });
    }
}

#[test]
fn the_first_is_cancelled_while_another_arms() {
    check(3, |clock, shared| {
        let cancelled = Waiter::new(&shared, 1);
        let task = started(&shared, 2);
        drop(cancelled);
        clock.timer().advance(TICK);
        let waiter = task.join().unwrap();
        clock.timer().advance(10 * TICK);
        waiter.assert_over();
    });
}

#[test]
fn another_waker_polls_while_the_timer_fires() {
    check(4, |clock, shared| {
        let mut waiter = Waiter::new(&shared, 1);
        let task = thread::spawn(move || waiter.poll_by_another().is_pending().then_some(waiter));
        clock.timer().advance(TICK);
        // A wait that was pending for the other waker must wake that one.
        task.join()
            .unwrap()
            .into_iter()
            .for_each(Waiter::assert_over);
    });
}

#[test]
fn a_task_arms_cancels_and_arms_again_while_the_timer_fires() {
    check(3, |clock, shared| {
        let again = shared.clone();
        let task = thread::spawn(move || {
            drop(Waiter::new(&again, 1));
            Waiter::new(&again, 1)
        });
        clock.timer().advance(TICK);
        clock.timer().advance(TICK);
        let waiter = task.join().unwrap();
        clock.timer().advance(10 * TICK);
        waiter.assert_over();
    });
}

#[test]
fn two_timers_fire_at_once() {
    check(3, |clock, shared| {
        let [first, second] = [1, 2].map(|ticks| Waiter::new(&shared, ticks));
        let hand = clock.clone();
        let task = thread::spawn(move || hand.timer().advance(TICK));
        clock.timer().advance(TICK);
        task.join().unwrap();
        // The second sleep may have been made while the clock moved on.
        clock.timer().advance(TICK);
        first.assert_over();
        second.assert_over();
    });
}

#[test]
fn the_wrapper_is_dropped_while_the_timer_fires() {
    check(3, |clock, shared| {
        let waiter = Waiter::new(&shared, 1);
        let task = thread::spawn(move || drop((waiter, shared)));
        clock.timer().advance(TICK);
        task.join().unwrap();
    });
}
