//! Time as the engine sees it: something that sleeps, and a clock.

#[cfg(feature = "async-io")]
mod async_io;
#[cfg(feature = "futures-timer")]
mod futures_timer;
#[cfg(feature = "test-util")]
mod virtual_timer;

#[cfg(feature = "async-io")]
pub use async_io::{AsyncIoSleep, AsyncIoTimer};
#[cfg(feature = "futures-timer")]
pub use futures_timer::{FuturesSleep, FuturesTimer};
#[cfg(feature = "test-util")]
pub use virtual_timer::{VirtualSleep, VirtualTask, VirtualTimer};

use std::{sync::Arc, time::Duration};

/// A moment of the clock: std's, but in a browser, which has no such clock, the
/// one of the `web-time` crate.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[doc(no_inline)]
pub use std::time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use web_time::Instant;

/// A source of sleeps, and the clock that they follow.
///
/// Every `Fn(Duration) -> impl Future<Output = ()>` is a timer, so the sleep of
/// any runtime is one closure away:
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
/// The clock of such a timer is the system's monotonic one. If the sleeps follow
/// another one, as tokio's do in a test that has paused time, implement this trait
/// for a type of your own: deadlines and the times in events go by
/// [`now`](Self::now).
///
/// The sleep of a closure is only polled, never compared with the clock, so it has
/// the rules of its runtime. `tokio::time::sleep` takes part in tokio's cooperative
/// scheduling: an inner future that uses up its task's budget in every poll starves
/// it, and the attempt never times out. `FuturesTimer` does not have this fault.
pub trait Timer: Send + Sync + 'static {
    /// The future of one sleep. Dropping it cancels the sleep.
    type Sleep: Future<Output = ()> + Send + 'static;

    /// Sleeps for `duration`, counted from this call.
    ///
    /// A sleep may end late but must not end early: the engine takes its end
    /// for the passing of `duration`. The engine never asks for a zero
    /// duration, nor for more than a hundred years.
    fn sleep(&self, duration: Duration) -> Self::Sleep;

    /// The time now, by the clock that [`sleep`](Self::sleep) follows.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Whether one sleep may serve the timeouts of many calls. Default: no,
    /// each call that has to wait makes a sleep of its own.
    ///
    /// Where making a sleep is expensive, as it is for `FuturesTimer`, a wrapper
    /// keeps one for the timeouts of all its calls and the silence of all its open
    /// streams. A timer that says yes promises that
    /// [`now`](Self::now) is the very clock that its sleeps follow; that
    /// [`sleep`](Self::sleep) may be called, and its sleeps be polled, on any
    /// thread, even while one of them wakes; that a sleep does not wake while it
    /// is being polled, unless it is over; and that it does no harm to keep a
    /// sleep for a while that nobody waits for any more.
    fn is_shareable(&self) -> bool {
        false
    }
}

impl<F, S> Timer for F
where
    F: Fn(Duration) -> S + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    type Sleep = S;

    fn sleep(&self, duration: Duration) -> S {
        self(duration)
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

/// A hundred years: no timer is asked for more. Timer crates need not survive
/// `now + Duration::MAX`.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(all(test, feature = "async-io", feature = "futures-timer"))]
mod tests {
    use super::*;

    #[test]
    fn the_timers_of_timer_crates_are_shared_and_closures_are_not() {
        assert!(FuturesTimer.is_shareable());
        assert!(AsyncIoTimer.is_shareable());
        assert!(Arc::new(FuturesTimer).is_shareable());
        assert!(!(|_| std::future::ready(())).is_shareable());
    }
}
