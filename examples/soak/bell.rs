//! Wakers that tell whether anybody still knows them.

use std::{
    sync::{Arc, Weak},
    task::{Wake, Waker},
};

/// Wakes a task, on behalf of one call.
///
/// A call is polled with bells of its own. So, when it is over, whoever still holds one has not
/// forgotten the call.
pub struct Bell(Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
    }
}

/// The bell of a call: a new one whenever the call is polled by another task.
#[derive(Default)]
pub struct Rope {
    bell: Option<Arc<Bell>>,
}

impl Rope {
    /// The waker to poll with, and the bell behind it if that is new.
    pub fn waker(&mut self, task: &Waker) -> (Waker, Option<Weak<Bell>>) {
        if let Some(bell) = &self.bell
            && bell.0.will_wake(task)
        {
            return (Waker::from(bell.clone()), None);
        }
        let bell = Arc::new(Bell(task.clone()));
        self.bell = Some(bell.clone());
        let known = Arc::downgrade(&bell);
        (Waker::from(bell), Some(known))
    }
}
