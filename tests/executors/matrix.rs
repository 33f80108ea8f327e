//! The executors of a machine, each with all timers.

use crate::{
    executors::{self, Run},
    script::{Clock, Play, Real, Shareable, assert_in_real_time, assert_in_virtual_time},
};
use crabllm_retry::{AsyncIoTimer, FuturesTimer, Timer, test_util::VirtualTimer};
use futures::future::FutureExt;

fn in_virtual_time<T: Timer + Clone>(run: Run, timer: impl FnOnce(VirtualTimer) -> T) {
    let clock = VirtualTimer::new();
    let timer = timer(clock.clone());
    assert_in_virtual_time(&played(run, clock.clone(), timer));
    assert_eq!(clock.sleeping(), 0, "a sleep is left behind");
}

fn in_real_time(run: Run, timer: impl Timer + Clone) {
    assert_in_real_time(&played(run, Real::start(), timer));
}

fn played<C: Clock, T: Timer + Clone>(run: Run, clock: C, timer: T) -> Vec<(f64, String)> {
    let play = Play::new(clock, timer);
    run(play.script, play.tasks);
    play.trace.take()
}

macro_rules! matrix {
    ($($executor:ident,)*) => {
        $(mod $executor {
            use super::*;

            const RUN: Run = executors::$executor;

            #[test]
            fn in_virtual_time() {
                super::in_virtual_time(RUN, |clock| clock);
                super::in_virtual_time(RUN, Shareable);
                super::in_virtual_time(RUN, |clock| move |duration| clock.sleep(duration));
            }

            #[test]
            fn with_futures_timer() {
                in_real_time(RUN, FuturesTimer);
            }

            #[test]
            fn with_async_io_timer() {
                in_real_time(RUN, AsyncIoTimer);
            }

            #[test]
            fn with_a_closure() {
                in_real_time(RUN, |duration| smol::Timer::after(duration).map(drop));
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
