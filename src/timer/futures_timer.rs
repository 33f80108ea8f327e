//! The default timer, on the `futures-timer` crate.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod web;

use super::{FOREVER, Timer};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use futures_timer::Delay;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use web::Delay;

/// A timer that works on every executor and without one.
///
/// It uses the `futures-timer` crate, which keeps one helper thread for the whole
/// process and starts it with the first sleep. In a browser it uses the page's own
/// timers and starts nothing.
///
/// A sleep of more than a hundred years lasts a hundred years.
///
/// # Panics
///
/// `futures-timer` panics when a sleep is polled and its thread could not be started: at
/// the system's limit of threads, or on a target without threads other than a browser's.
/// Use another timer there.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuturesTimer;

/// A sleep of [`FuturesTimer`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct FuturesSleep(Delay);

impl Timer for FuturesTimer {
    type Sleep = FuturesSleep;

    fn sleep(&self, duration: Duration) -> FuturesSleep {
        FuturesSleep(Delay::new(duration.min(FOREVER)))
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
