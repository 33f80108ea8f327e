//! One attempt against its timeout.

use crate::timer::{Timer, sleep};
use futures::{FutureExt, select_biased};
use std::{pin::pin, time::Duration};

/// Runs the future that `start` makes, for `bound` at most; `None` when the
/// bound has passed first.
///
/// The future is polled before the timer, so it wins where both are ready, and
/// a future that is ready at once makes no timer. It is made in here rather
/// than passed in, so that it is stored once. Either way it is dropped before
/// this returns.
pub(crate) async fn within<F: Future>(
    bound: Duration,
    timer: &impl Timer,
    start: impl FnOnce() -> F,
) -> Option<F::Output> {
    let mut attempt = pin!(start().fuse());
    let mut expiry = pin!(sleep(timer, bound).fuse());
    select_biased! {
        output = attempt => Some(output),
        () = expiry => None,
    }
}
