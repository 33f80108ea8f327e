//! One attempt against its timeout.

use futures::{
    FutureExt,
    future::{Fuse, ready},
    select_biased,
};
use pin_project_lite::pin_project;
use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

pin_project! {
    /// A future and its timeout, which is made when the future first has to
    /// wait: one that is ready at once makes no timer.
    ///
    /// It is polled in two steps, the future and then the race, so that the
    /// answer stays where the future has put it: moving one of a few hundred
    /// bytes costs as much as setting a deadline.
    pub(crate) struct Attempt<F, T> {
        #[pin]
        future: F,

        #[pin]
        timeout: Option<T>,
    }
}

/// What ends an attempt.
pub(crate) enum Winner {
    Answer,
    Timeout,
}

impl<F: Future, T: Future<Output = ()>> Attempt<F, T> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future,
            timeout: None,
        }
    }

    /// The first step: polls the future.
    #[inline]
    pub(crate) fn answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }

    /// The second step: the race between an answer, if there is one, and the
    /// timeout. Where both are there, the answer wins.
    ///
    /// The order of `select_biased!` is that rule. What races for the answer is
    /// the word that it is there, and the race lasts for one poll, since all that
    /// outlasts it is kept here.
    #[inline]
    pub(crate) fn race(
        self: Pin<&mut Self>,
        answered: bool,
        make_timeout: impl FnOnce() -> T,
        cx: &mut Context<'_>,
    ) -> Poll<Winner> {
        let mut timeout = self.project().timeout;
        if timeout.is_none() && !answered {
            timeout.set(Some(make_timeout()));
        }
        let Some(timeout) = timeout.as_pin_mut() else {
            return Poll::Ready(Winner::Answer);
        };
        let race = async {
            let mut answer = match answered {
                true => ready(()).fuse(),
                false => Fuse::terminated(),
            };
            let mut timeout = timeout.fuse();
            select_biased! {
                () = answer => Winner::Answer,
                () = timeout => Winner::Timeout,
            }
        };
        pin!(race).poll(cx)
    }
}
