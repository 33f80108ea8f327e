//! The executors of a machine, each with all timers.

use crate::{
    executors::{self, Run},
    script::Play,
};
use crabllm_retry::{AsyncIoTimer, FuturesTimer};

fn assert_plays(run: Run, play: Play) {
    run(play.script, play.tasks);
    play.trace.assert_expected();
}

macro_rules! matrix {
    ($($executor:ident,)*) => {
        $(mod $executor {
            use super::*;

            const RUN: Run = executors::$executor;

            #[test]
            fn in_virtual_time() {
                assert_plays(RUN, Play::in_virtual_time());
            }

            #[test]
            fn with_futures_timer() {
                assert_plays(RUN, Play::in_real_time(FuturesTimer));
            }

            #[test]
            fn with_async_io_timer() {
                assert_plays(RUN, Play::in_real_time(AsyncIoTimer));
            }

            #[test]
            fn with_a_closure() {
                assert_plays(RUN, Play::in_real_time(smol::Timer::after));
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
