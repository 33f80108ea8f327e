//! One attempt against its timeout.

use futures::future::{Select, select};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

pin_project! {
    /// A future, and its timeout once there is one.
    pub struct Attempt<F, T> {
        #[pin]
        future: F,

        #[pin]
        timeout: Option<T>,
    }
}

impl<F: Future, T: Future<Output = ()>> Attempt<F, T> {
    pub fn new(future: F) -> Self {
        Self {
            future,
            timeout: None,
        }
    }

    /// Races the future against its timeout. If both are ready, the future wins.
    ///
    /// The race borrows both, so it is made anew in each poll.
    #[inline]
    pub fn race<M: FnMut() -> T + Unpin>(
        self: Pin<&mut Self>,
        make_timeout: M,
    ) -> Select<Pin<&mut F>, LazyTimeout<'_, T, M>> {
        let this = self.project();
        let timeout = LazyTimeout {
            timeout: this.timeout,
            make: make_timeout,
        };
        select(this.future, timeout)
    }
}

/// A timeout that is made when it is first polled. `select` polls it only after it
/// found the future pending, so a future that is ready at once makes no timer.
pub struct LazyTimeout<'a, T, M> {
    timeout: Pin<&'a mut Option<T>>,
    make: M,
}

impl<T: Future<Output = ()>, M: FnMut() -> T + Unpin> Future for LazyTimeout<'_, T, M> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { timeout, make } = &mut *self;
        if timeout.is_none() {
            timeout.set(Some(make()));
        }
        match timeout.as_mut().as_pin_mut() {
            Some(timeout) => timeout.poll(cx),
            None => Poll::Pending,
        }
    }
}
