//! One attempt against its timeout.

use crate::{
    deadlines::Deadlines,
    timer::{Timer, yield_once},
};
use futures::{FutureExt, select_biased};
use std::{future::pending, pin::pin, sync::Arc, time::Duration};

/// Runs the future that `start` makes, for as long as `bound` says when that
/// future first has to wait; `None` when the bound has passed first.
///
/// The future is polled before the timer, so it wins where both are ready, and
/// a future that is ready at once makes no timer. It is made in here rather
/// than passed in, so that it is stored once. Either way it is dropped before
/// this returns.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice"
)]
pub(crate) fn within<F: Future, T: Timer>(
    deadlines: &Arc<Deadlines<T>>,
    bound: impl FnOnce() -> Option<Duration>,
    start: impl FnOnce() -> F,
) -> impl Future<Output = Option<F::Output>> {
    async move {
        let mut attempt = pin!(start().fuse());
        let expiry = async {
            match bound() {
                Some(Duration::ZERO) => yield_once().await,
                Some(bound) => deadlines.timeout(bound).await,
                None => pending().await,
            }
        };
        let mut expiry = pin!(expiry.fuse());
        select_biased! {
            output = attempt => Some(output),
            () = expiry => None,
        }
    }
}
