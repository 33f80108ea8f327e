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
    /// The race borrows both, so each poll creates one.
    #[inline]
    pub fn race<S>(self: Pin<&mut Self>, start: S) -> Select<Pin<&mut F>, LazyTimeout<'_, T, S>>
    where
        S: FnMut(Pin<&mut Option<T>>, &mut Context<'_>) -> Poll<()> + Unpin,
    {
        let this = self.project();
        let timeout = LazyTimeout {
            timeout: this.timeout,
            start,
        };
        select(this.future, timeout)
    }
}

/// A timeout that starts when it is first polled. `select` polls it only after it
/// found the future pending, so a future that is ready at once needs no timer.
pub struct LazyTimeout<'a, T, S> {
    timeout: Pin<&'a mut Option<T>>,
    start: S,
}

impl<T, S> Future for LazyTimeout<'_, T, S>
where
    T: Future<Output = ()>,
    S: FnMut(Pin<&mut Option<T>>, &mut Context<'_>) -> Poll<()> + Unpin,
{
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { timeout, start } = &mut *self;
        match timeout.as_mut().as_pin_mut() {
            Some(timeout) => timeout.poll(cx),
            None => start(timeout.as_mut(), cx),
        }
    }
}
