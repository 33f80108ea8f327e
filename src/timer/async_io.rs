//! The timer of smol and async-std, on the `async-io` crate.

use super::Timer;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A timer on the reactor that smol and async-std already run.
///
/// On any other executor, `async-io` drives its reactor on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncIoTimer;

/// A sleep of [`AsyncIoTimer`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AsyncIoSleep(async_io::Timer);

impl Timer for AsyncIoTimer {
    type Sleep = AsyncIoSleep;

    fn sleep(&self, duration: Duration) -> AsyncIoSleep {
        AsyncIoSleep(async_io::Timer::after(duration))
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

impl Future for AsyncIoSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
