//! The observers of a wrapper.

use super::Event;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

type Observer = dyn Fn(&Event<'_>) + Send + Sync;

#[derive(Clone, Default)]
pub struct Observers {
    observer: Option<Arc<Observer>>,

    /// The calls that were observed, of this wrapper and its clones.
    calls: Arc<AtomicU64>,
}

impl Observers {
    #[inline]
    pub fn is_some(&self) -> bool {
        self.observer.is_some()
    }

    /// The number of a new call; 0 without an observer.
    #[inline]
    pub fn number_call(&self) -> u64 {
        match self.observer {
            Some(_) => self.calls.fetch_add(1, Ordering::Relaxed) + 1,
            None => 0,
        }
    }

    /// Adds an observer, which is called after the earlier ones.
    pub fn add(&mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.observer = Some(match self.observer.take() {
            Some(earlier) => Arc::new(move |event: &Event<'_>| {
                earlier(event);
                observer(event);
            }),
            None => Arc::new(observer),
        });
    }

    /// Calls the observer, if any. Without one, no event is made.
    #[inline]
    pub fn emit<'e>(&self, event: impl FnOnce() -> Event<'e>) {
        if let Some(observer) = &self.observer {
            observer(&event());
        }
    }
}
