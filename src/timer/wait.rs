//! A wait for some time to pass.

use super::{FOREVER, SharedTimer, Timer, shared::SharedWait};
use futures::ready;
use pin_project_lite::pin_project;
use std::{
    borrow::Borrow,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

pin_project! {
    /// A timeout or a delay: a sleep of its own or, if the timer is shareable, an
    /// entry in the shared list. After its end it stays ready.
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
    /// without a timer. An entry in the list wakes `waker` until a poll replaces it.
    #[inline(always)]
    pub fn new(timer: S, duration: Option<Duration>, waker: &Waker) -> Self {
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
        let deadline = own.now().checked_add(duration);
        match deadline.and_then(|deadline| SharedWait::start(timer, deadline, waker)) {
            Some(wait) => Self::Shared { wait },
            // Later than any instant, or the list is full.
            None => Self::Never,
        }
    }

    /// Starts a wait in an empty place and polls it for the first time.
    #[inline(always)]
    pub fn start(
        mut place: Pin<&mut Option<Self>>,
        timer: S,
        duration: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        place.set(Some(Self::new(timer, duration, cx.waker())));
        match place.as_pin_mut().map(Self::project) {
            Some(WaitProjection::Own { sleep }) => sleep.poll(cx),
            Some(WaitProjection::Over) => Poll::Ready(()),
            // A new entry in the list need not be polled.
            _ => Poll::Pending,
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
