//! Timers and clocks.

#[cfg(feature = "async-io")]
mod async_io;
#[cfg(feature = "futures-timer")]
mod futures_timer;
mod shared;
mod wait;

#[cfg(feature = "async-io")]
pub use async_io::{AsyncIoSleep, AsyncIoTimer};
#[cfg(feature = "futures-timer")]
pub use futures_timer::{FuturesSleep, FuturesTimer};
#[cfg(all(test, crabllm_retry_model))]
pub use shared::model;
pub use shared::{AnyEntry, AnyTimer, SharedTimer, contain_panics, sync};
pub use wait::Wait;

use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// A point in time: [`std::time::Instant`] or, in a browser, where that panics, the one
/// of the `web-time` crate.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[doc(no_inline)]
pub use std::time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use web_time::Instant;

/// A source of sleeps, and the clock that they follow.
///
/// Every `Fn(Duration) -> impl Future` is a timer, whatever the future returns. So the
/// sleep function of any runtime is one, such as `smol::Timer::after` or tokio's:
///
/// ```no_run
/// # #[cfg(feature = "crabllm-core-0_0_19")]
/// # fn wrap<P>(provider: P) {
/// use crabllm_retry::Retrying;
///
/// let retrying = Retrying::with_timer(provider, tokio::time::sleep);
/// # }
/// ```
///
/// The clock of such a timer is the system's monotonic one. If its sleeps follow
/// another clock, as tokio's do in a test with paused time, implement this trait for a
/// type of your own: deadlines, `first_content`, turns and the times in events use
/// [`now`](Self::now).
///
/// The sleep of a closure is only polled, never compared with the clock. So
/// `tokio::time::sleep` takes part in tokio's cooperative scheduling: an inner future
/// that uses up its task's budget in every poll starves the sleep, and the attempt
/// never times out. `FuturesTimer` does not have this fault.
pub trait Timer: Send + Sync + 'static {
    /// The future of one sleep. Dropping it cancels the sleep.
    type Sleep: Future<Output = ()> + Send + 'static;

    /// Sleeps for `duration`, counted from this call.
    ///
    /// A sleep may end late but not early, because the engine does not check the clock
    /// when it ends. The engine never asks for a zero duration or for more than a
    /// hundred years.
    fn sleep(&self, duration: Duration) -> Self::Sleep;

    /// The time now, by the clock that [`sleep`](Self::sleep) follows. Default:
    /// [`Instant::now`].
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Whether one sleep may serve the timeouts and delays of many calls. Default:
    /// false, each wait makes a sleep of its own.
    ///
    /// It pays if making a sleep is expensive, as for `FuturesTimer`: a wrapper then
    /// keeps one sleep for all its calls and open streams. A timer that returns true
    /// promises that
    ///
    /// * [`now`](Self::now) reads the clock that its sleeps follow;
    /// * [`sleep`](Self::sleep) may be called, and its sleeps polled, on any
    ///   thread, even while one of them wakes;
    /// * a sleep does not wake while it is being polled, unless it is over;
    /// * a sleep may outlive the calls that waited for it.
    fn is_shareable(&self) -> bool {
        false
    }
}

impl<F, S> Timer for F
where
    F: Fn(Duration) -> S + Send + Sync + 'static,
    S: Future + Send + 'static,
{
    type Sleep = FnSleep<S>;

    fn sleep(&self, duration: Duration) -> FnSleep<S> {
        let sleep = self(duration);
        FnSleep { sleep }
    }
}

pin_project! {
    /// The sleep of a function that is a [`Timer`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct FnSleep<S> {
        #[pin]
        sleep: S,
    }
}

impl<S: Future> Future for FnSleep<S> {
    type Output = ();

    /// Drops the output of the function's future.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().sleep.poll(cx).map(drop)
    }
}

impl<T: Timer + ?Sized> Timer for Arc<T> {
    type Sleep = T::Sleep;

    fn sleep(&self, duration: Duration) -> T::Sleep {
        (**self).sleep(duration)
    }

    fn now(&self) -> Instant {
        (**self).now()
    }

    fn is_shareable(&self) -> bool {
        (**self).is_shareable()
    }
}

/// A hundred years: the longest sleep, because `now + Duration::MAX` overflows in timer
/// crates. A limit this long counts as none.
pub const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(all(test, feature = "async-io", feature = "futures-timer"))]
mod tests {
    use super::*;

    #[test]
    fn the_timers_of_timer_crates_are_shareable_and_closures_are_not() {
        assert!(FuturesTimer.is_shareable());
        assert!(AsyncIoTimer.is_shareable());
        assert!(Arc::new(FuturesTimer).is_shareable());
        assert!(!(|_| std::future::ready(())).is_shareable());
    }
}
