//! The executors of a machine, each with all timers.

use crate::{
    common::Sleeps,
    executors::{Run, futures_block_on},
    script::{self, Clock, Real, assert_in_real_time, assert_in_virtual_time},
};
use crabllm_retry::{AsyncIoTimer, FuturesTimer, Timer, test_util::VirtualTimer};
use futures::future::FutureExt;
use std::time::Duration;

/// Plays the script on an executor and returns what happened.
fn play<C: Clock, T: Timer + Clone>(run: Run, clock: C, timer: T) -> Vec<script::Line> {
    let play = script::Play::new(clock, timer);
    run(play.script, play.tasks);
    play.trace.take()
}

/// Plays the script in virtual time, with a timer that is made from its clock.
fn in_virtual_time_with<T: Timer + Clone>(run: Run, timer: impl FnOnce(VirtualTimer) -> T) {
    let clock = VirtualTimer::new();
    let timer = timer(clock.clone());
    assert_in_virtual_time(&play(run, clock.clone(), timer));
    assert_eq!(clock.sleeping(), 0, "a sleep is left behind");
}

fn in_virtual_time(run: Run) {
    in_virtual_time_with(run, |clock| clock);
}

/// As the real timers do it, but to the nanosecond.
fn in_virtual_time_that_is_shared(run: Run) {
    in_virtual_time_with(run, |clock| Sleeps::by(&clock).shareable());
}

fn in_virtual_time_by_closure(run: Run) {
    in_virtual_time_with(run, |clock| move |duration| clock.sleep(duration));
}

fn with_futures_timer(run: Run) {
    assert_in_real_time(&play(run, Real::start(), FuturesTimer));
}

fn with_async_io_timer(run: Run) {
    assert_in_real_time(&play(run, Real::start(), AsyncIoTimer));
}

fn with_a_closure(run: Run) {
    let timer = |duration| smol::Timer::after(duration).map(drop);
    assert_in_real_time(&play(run, Real::start(), timer));
}

/// All timers on each executor.
macro_rules! matrix {
    ($($executor:ident,)*) => {
        $(mod $executor {
            use crate::executors::$executor as run;

            #[test]
            fn in_virtual_time() {
                super::in_virtual_time(run);
            }

            #[test]
            fn in_virtual_time_that_is_shared() {
                super::in_virtual_time_that_is_shared(run);
            }

            #[test]
            fn in_virtual_time_by_closure() {
                super::in_virtual_time_by_closure(run);
            }

            #[test]
            fn with_futures_timer() {
                super::with_futures_timer(run);
            }

            #[test]
            fn with_async_io_timer() {
                super::with_async_io_timer(run);
            }

            #[test]
            fn with_a_closure() {
                super::with_a_closure(run);
            }
        })*
    };
}

matrix! {
    smol_global,
    smol_local,
    async_std,
    tokio_current_thread_without_drivers,
    tokio_multi_thread,
    futures_block_on,
    futures_local_pool,
    futures_thread_pool,
    pollster,
    async_executor_on_own_threads,
    another_executor_at_every_wake,
}

/// Without watched tasks, on one thread, the clock moves itself as well.
#[test]
fn virtual_time_needs_no_watching_on_one_thread() {
    #[derive(Clone)]
    struct Unwatched(VirtualTimer);

    impl Clock for Unwatched {
        const UNIT: Duration = VirtualTimer::UNIT;

        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }

    let clock = VirtualTimer::new();
    let trace = play(futures_block_on, Unwatched(clock.clone()), clock.clone());
    assert_in_virtual_time(&trace);
}
