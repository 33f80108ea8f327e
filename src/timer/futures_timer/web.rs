//! A delay on the timers of a web page.
//!
//! A page's timer takes whole milliseconds in 31 bits: it truncates fractions and takes
//! more than 24 days for zero, and a browser may fire it up to a millisecond early. So
//! this delay rounds up, checks the clock, and waits again if it was early.

use crate::timer::Instant;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

/// The longest timer of a page: 2³¹ - 1 ms, because the HTML standard reads it as a
/// signed 32-bit integer.
const LONGEST: u128 = i32::MAX as u128;

#[derive(Debug)]
pub struct Delay {
    end: Instant,
    timer: futures_timer::Delay,
}

impl Delay {
    pub fn new(duration: Duration) -> Self {
        Self {
            end: Instant::now() + duration,
            timer: timer(duration),
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.timer).poll(cx));
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.timer = timer(left);
        }
    }
}

/// The page's timer for a duration, or for as much of it as fits.
fn timer(duration: Duration) -> futures_timer::Delay {
    let millis = duration.as_nanos().div_ceil(1_000_000).min(LONGEST);
    futures_timer::Delay::new(Duration::from_millis(millis as u64))
}
