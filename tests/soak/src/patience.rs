//! Waiting, within bounds, for what other threads are about to do.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Waits until something holds, or for as long as it could take.
pub fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_micros(100));
    }
}

/// The count of something that should go, once it had the time to.
pub fn until_none(left: impl Fn() -> usize) -> usize {
    until(|| left() == 0);
    left()
}
