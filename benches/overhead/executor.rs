//! The executors of a comparison.

use std::{
    future::poll_fn,
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::runtime::{Builder, Runtime};

/// How many calls are made for each entry into an executor.
pub const CALLS: usize = 1_000;

/// An executor on the thread that enters it.
pub enum Executor {
    /// `futures::executor::block_on`.
    Futures,

    /// A current-thread runtime of tokio with its timer enabled.
    Tokio(Runtime),

    /// The same, but a call that pends is polled again at once, before the
    /// runtime gets to look at its timers.
    Impatient(Runtime),
}

impl Executor {
    pub fn tokio() -> Self {
        Self::Tokio(runtime())
    }

    pub fn impatient() -> Self {
        Self::Impatient(runtime())
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Futures => futures::executor::block_on(future),
            Self::Tokio(runtime) | Self::Impatient(runtime) => runtime.block_on(future),
        }
    }

    /// Makes [`CALLS`] calls, one after the other.
    pub fn repeat<R>(&self, mut call: impl AsyncFnMut() -> R) {
        self.block_on(async {
            for _ in 0..CALLS {
                let mut call = pin!(call());
                black_box(match self {
                    Self::Impatient(_) => poll_fn(|cx| insist(call.as_mut(), cx)).await,
                    _ => call.await,
                });
            }
        });
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O")
}

fn insist<F: Future>(mut future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
    }
}
