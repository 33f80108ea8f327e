//! A wait for some time to pass.

use super::{FOREVER, SharedTimer, Timer, shared::SharedWait};
use futures::ready;
use pin_project_lite::pin_project;
use std::{
    borrow::Borrow,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

pin_project! {
    /// A timeout or a delay: a sleep of its own or, if the timer is shareable, an
    /// entry in the shared list. Once over it stays over.
    #[project = WaitProjection]
    pub enum Wait<T: Timer, S: Borrow<SharedTimer<T>>> {
        Never,
        Own { #[pin] sleep: T::Sleep },
        Shared { wait: SharedWait<T, S> },
        Over,
    }
}

impl<T: Timer, S: Borrow<SharedTimer<T>>> Wait<T, S> {
    /// Waits for `duration` from now. `None` never ends; zero is over at once,
    /// without a timer.
    #[inline(always)]
    pub fn new(timer: S, duration: Option<Duration>) -> Self {
        let Some(duration) = duration else {
            return Self::Never;
        };
        if duration.is_zero() {
            return Self::Over;
        }
        let duration = duration.min(FOREVER);
        let own = timer.borrow().timer();
        if !own.is_shareable() {
            let sleep = own.sleep(duration);
            return Self::Own { sleep };
        }
        match own.now().checked_add(duration) {
            Some(deadline) => Self::Shared {
                wait: SharedWait::new(timer, deadline),
            },
            // Later than any instant.
            None => Self::Never,
        }
    }
}

impl<T: Timer, S: Borrow<SharedTimer<T>> + Unpin> Future for Wait<T, S> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.as_mut().project() {
            WaitProjection::Never => Poll::Pending,
            WaitProjection::Own { sleep } => {
                ready!(sleep.poll(cx));
                self.set(Self::Over);
                Poll::Ready(())
            }
            WaitProjection::Shared { wait } => Pin::new(wait).poll(cx),
            WaitProjection::Over => Poll::Ready(()),
        }
    }
}
