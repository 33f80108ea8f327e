//! A bound on how long something may take.

use crate::{
    Instant, Timer,
    deadlines::{Deadlines, Wait},
    timer::Sleep,
};
use pin_project_lite::pin_project;
use std::{
    borrow::Borrow,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

pin_project! {
    /// A bound: none, a sleep of its own, or a deadline among others where the
    /// timer allows that.
    #[project = TimeoutProjection]
    pub(crate) enum Timeout<T: Timer, D: Borrow<Deadlines<T>>> {
        Never,
        Own { #[pin] sleep: Sleep<T::Sleep> },
        Shared { wait: Wait<T, D> },
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>>> Timeout<T, D> {
    /// Ends when `duration` has passed: never if there is none, and once the
    /// executor's other tasks have had their turn if it is zero. To be polled at
    /// once; `now` is the time, where it is known.
    pub(crate) fn new(deadlines: D, duration: Option<Duration>, now: Option<Instant>) -> Self {
        let Some(duration) = duration else {
            return Self::Never;
        };
        let timer = deadlines.borrow().timer();
        if duration.is_zero() || !timer.is_shareable() {
            let sleep = Sleep::new(timer, duration);
            return Self::Own { sleep };
        }
        let now = now.unwrap_or_else(|| timer.now());
        match now.checked_add(duration) {
            Some(deadline) => Self::Shared {
                wait: Wait::new(deadlines, deadline),
            },
            // Beyond what an instant can hold, no deadline comes.
            None => Self::Never,
        }
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>> + Unpin> Future for Timeout<T, D> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            TimeoutProjection::Never => Poll::Pending,
            TimeoutProjection::Own { sleep } => sleep.poll(cx),
            TimeoutProjection::Shared { wait } => Pin::new(wait).poll(cx),
        }
    }
}
