//! The default timer, on the `futures-timer` crate.

use super::Timer;
use futures_timer::Delay;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A timer that works on every executor and without one.
///
/// It is made of the `futures-timer` crate, which keeps one helper thread for
/// the whole process and starts it with the first sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuturesTimer;

/// A sleep of [`FuturesTimer`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct FuturesSleep(Delay);

impl Timer for FuturesTimer {
    type Sleep = FuturesSleep;

    fn sleep(&self, duration: Duration) -> FuturesSleep {
        FuturesSleep(Delay::new(duration))
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

impl Future for FuturesSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}
