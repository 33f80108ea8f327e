//! The executors of a comparison.

use std::{hint::black_box, pin::pin};
use tokio::runtime::{Builder, Runtime};

/// The calls of one entry into an executor.
pub const CALLS: usize = 1_000;

/// An executor on the thread that enters it.
pub enum Executor {
    /// `futures::executor::block_on`.
    Futures,

    /// A current-thread runtime of tokio with its timer enabled.
    Tokio(Runtime),
}

impl Executor {
    pub fn tokio() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build();
        Self::Tokio(runtime.expect("a runtime without I/O"))
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Futures => futures::executor::block_on(future),
            Self::Tokio(runtime) => runtime.block_on(future),
        }
    }

    /// Makes [`CALLS`] calls, one after the other.
    pub fn repeat<R>(&self, mut call: impl AsyncFnMut() -> R) {
        self.block_on(async {
            for _ in 0..CALLS {
                let call = pin!(call());
                black_box(call.await);
            }
        });
    }
}
