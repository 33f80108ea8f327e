//! An open stream whose silence is bounded.

use crate::{Event, Failure, Operation, Timer, attempt::within, call::Engine, hooks::Hooks};
use futures::{Stream, StreamExt, stream};
use std::{pin::Pin, sync::Arc, time::Duration};

/// The boxed stream of the `Provider` trait.
type BoxStream<I> = Pin<Box<dyn Stream<Item = I> + Send>>;

impl<T: Timer> Engine<T> {
    /// Opens a stream as [`call`](Self::call) does, and bounds its silence.
    pub(crate) async fn open<I, E, F>(
        &self,
        operation: Operation,
        model: Option<&str>,
        start: impl FnMut() -> F,
    ) -> Result<BoxStream<Result<I, E>>, E>
    where
        I: Send + 'static,
        E: Failure,
        F: Future<Output = Result<BoxStream<Result<I, E>>, E>>,
    {
        let items = self.call(operation, model, start).await?;
        let idle = self.policy.stream_idle;
        if idle.is_zero() {
            return Ok(items);
        }
        let stall = Stall {
            idle,
            operation,
            // Nobody else needs the name once the request is gone.
            model: self.hooks.observer.as_ref().and(model).map(str::to_owned),
            hooks: self.hooks.clone(),
        };
        Ok(idle_bounded(items, self.timer.clone(), stall))
    }
}

/// What to say when a stream stalls, and when it does.
struct Stall {
    idle: Duration,
    operation: Operation,
    model: Option<String>,
    hooks: Hooks,
}

impl Stall {
    fn tell(&self) {
        self.hooks.tell(|| Event::StreamStalled {
            operation: self.operation,
            model: self.model.as_deref(),
            idle: self.idle,
        });
    }
}

/// The same items, but a wait for the next one that lasts longer than allowed
/// ends the stream with a timeout.
///
/// The wait is measured from the poll that found no item ready, so it is the
/// stream's own silence and never the slowness of its consumer.
fn idle_bounded<I, E, T>(
    items: BoxStream<Result<I, E>>,
    timer: Arc<T>,
    stall: Stall,
) -> BoxStream<Result<I, E>>
where
    I: Send + 'static,
    E: Failure,
    T: Timer,
{
    let state = Some((items, timer, stall));
    let bounded = stream::unfold(state, async |state| {
        let (mut items, timer, stall) = state?;
        match within(stall.idle, &*timer, || items.next()).await {
            Some(Some(item)) => Some((item, Some((items, timer, stall)))),
            Some(None) => None,
            None => {
                drop(items);
                stall.tell();
                Some((Err(E::timeout()), None))
            }
        }
    });
    // `unfold` may not be polled after its end; fused, it stays ended.
    Box::pin(bounded.fuse())
}
