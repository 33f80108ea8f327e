//! A wait for some time to pass.

use crate::{
    Timer,
    deadlines::{Deadline, Deadlines},
    timer::FOREVER,
};
use futures::ready;
use pin_project_lite::pin_project;
use std::{
    borrow::Borrow,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

pin_project! {
    /// A timeout or a delay: a sleep of its own or, if the timer is shareable, a
    /// deadline in the shared list. Once it is over it stays so.
    #[project = WaitProjection]
    pub(crate) enum Wait<T: Timer, D: Borrow<Deadlines<T>>> {
        Never,
        Own { #[pin] sleep: T::Sleep },
        Shared { deadline: Deadline<T, D> },
        Over,
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>>> Wait<T, D> {
    /// Waits for `duration` from now. `None` never ends; zero is over at once and
    /// makes no timer.
    #[inline]
    pub(crate) fn new(deadlines: D, duration: Option<Duration>) -> Self {
        let Some(duration) = duration else {
            return Self::Never;
        };
        let duration = duration.min(FOREVER);
        let timer = deadlines.borrow().timer();
        if duration.is_zero() {
            return Self::Over;
        }
        if !timer.is_shareable() {
            let sleep = timer.sleep(duration);
            return Self::Own { sleep };
        }
        match timer.now().checked_add(duration) {
            Some(at) => Self::Shared {
                deadline: Deadline::new(deadlines, at),
            },
            // Later than any instant.
            None => Self::Never,
        }
    }
}

impl<T: Timer, D: Borrow<Deadlines<T>> + Unpin> Future for Wait<T, D> {
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
            WaitProjection::Shared { deadline } => Pin::new(deadline).poll(cx),
            WaitProjection::Over => Poll::Ready(()),
        }
    }
}
