//! One attempt against its timeout.

use crate::{
    Timer,
    deadlines::{Deadlines, Timeout},
};
use futures::{FutureExt, pending, poll, select_biased};
use std::{pin::pin, task::Poll, time::Duration};

/// Runs the future that `start` makes, for as long as `bound` says when that
/// future first has to wait; `None` when the bound has passed first.
///
/// The future is polled before the timer, so it wins where both are ready. Its
/// first poll stands before the race: a future that is ready at once makes no
/// timer and pays for no race. It is made in here rather than passed in, so that
/// it is stored once. Either way it is dropped before this returns.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice"
)]
pub(crate) fn within<F: Future, T: Timer>(
    deadlines: &Deadlines<T>,
    bound: impl FnOnce() -> Option<Duration>,
    start: impl FnOnce() -> F,
) -> impl Future<Output = Option<F::Output>> {
    async move {
        let mut attempt = pin!(start());
        if let Poll::Ready(output) = poll!(attempt.as_mut()) {
            return Some(output);
        }
        let mut expiry = pin!(Timeout::new(deadlines, bound()));
        if poll!(expiry.as_mut()).is_ready() {
            return None;
        }
        // Both have been polled, and will wake this task.
        pending!();
        let (mut attempt, mut expiry) = (attempt.fuse(), expiry.fuse());
        select_biased! {
            output = attempt => Some(output),
            () = expiry => None,
        }
    }
}
