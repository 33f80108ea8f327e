//! One attempt against its timeout.

use futures::{FutureExt, select_biased};
use pin_project_lite::pin_project;
use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

pin_project! {
    /// A future for as long as a timeout allows; `None` when that has passed
    /// first.
    pub(crate) struct Attempt<F, M, T> {
        #[pin]
        future: F,

        make_timeout: M,

        // `None` before the future has had to wait.
        #[pin]
        timeout: Option<T>,
    }
}

impl<F, M, T> Attempt<F, M, T> {
    /// The timeout is made when the future first has to wait: one that is ready
    /// at once makes no timer.
    pub(crate) fn new(future: F, make_timeout: M) -> Self {
        Self {
            future,
            make_timeout,
            timeout: None,
        }
    }
}

impl<F, M, T> Future for Attempt<F, M, T>
where
    F: Future,
    M: FnMut() -> T,
    T: Future<Output = ()>,
{
    type Output = Option<F::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(timeout) = this.timeout.as_mut().as_pin_mut() {
            // Made anew for each poll, since all that lasts is in its futures:
            // so an attempt need not keep it.
            let race = async {
                let (mut future, mut timeout) = (this.future.fuse(), timeout.fuse());
                select_biased! {
                    output = future => Some(output),
                    () = timeout => None,
                }
            };
            return pin!(race).poll(cx);
        }
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        this.timeout.set(Some((this.make_timeout)()));
        match this.timeout.as_pin_mut() {
            Some(timeout) => timeout.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }
}
