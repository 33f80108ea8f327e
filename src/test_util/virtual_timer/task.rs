//! A task that tells the clock when it is asleep.

use super::clock::Clock;
use futures::task::AtomicWaker;
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// A task that a [`VirtualTimer`](super::VirtualTimer) watches.
#[must_use = "futures do nothing unless polled"]
pub struct VirtualTask<F> {
    /// `None` once it is done.
    future: Option<Pin<Box<F>>>,

    waker: Arc<TaskWaker>,
}

/// Marks a task as awake in the clock, then wakes its executor.
struct TaskWaker {
    id: u64,
    clock: Arc<Clock>,
    executor: AtomicWaker,
}

impl<F: Future> VirtualTask<F> {
    pub(super) fn new(clock: &Arc<Clock>, future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            waker: Arc::new(TaskWaker {
                id: clock.add_task(),
                clock: clock.clone(),
                executor: AtomicWaker::new(),
            }),
        }
    }
}

impl<F: Future> Future for VirtualTask<F> {
    type Output = F::Output;

    /// Stays pending if polled again after its end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let TaskWaker { id, clock, .. } = &*this.waker;
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        this.waker.executor.register(cx.waker());
        let hold = clock.poll_task(*id);
        let waker = Waker::from(this.waker.clone());
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            // The future is dropped first: its sleeps must not move the clock.
            this.future = None;
            clock.remove_task(*id);
        }
        drop(hold);
        clock.settle();
        poll
    }
}

impl<F> Drop for VirtualTask<F> {
    fn drop(&mut self) {
        self.future = None;
        self.waker.clock.remove_task(self.waker.id);
    }
}

impl<F> fmt::Debug for VirtualTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTask").finish_non_exhaustive()
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.clock.wake_task(self.id);
        self.executor.wake();
    }
}
