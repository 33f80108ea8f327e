//! The executors of a machine, each with all timers.

use crate::{executors::EXECUTORS, script::Play};
use crabllm_retry::{AsyncIoTimer, FuturesTimer};

fn assert_all_play(play: impl Fn() -> Play) {
    for (name, run) in EXECUTORS {
        println!("{name}");
        let play = play();
        run(play.script, play.tasks);
        play.trace.assert_expected();
    }
}

#[test]
fn in_virtual_time() {
    assert_all_play(Play::in_virtual_time);
}

#[test]
fn with_futures_timer() {
    assert_all_play(|| Play::in_real_time(FuturesTimer));
}

#[test]
fn with_async_io_timer() {
    assert_all_play(|| Play::in_real_time(AsyncIoTimer));
}

#[test]
fn with_a_closure() {
    assert_all_play(|| Play::in_real_time(smol::Timer::after));
}
