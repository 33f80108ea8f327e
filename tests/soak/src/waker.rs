//! Wakers that tell whether anybody still knows them.

use std::{
    sync::{Arc, Weak},
    task::{Wake, Waker},
};

/// Wakes a task, on behalf of one call.
///
/// A call is polled with wakers of its own. So, when it is over, whoever still holds one has not
/// forgotten the call.
pub struct CallWaker(Waker);

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
    }
}

/// The wakers of a call: a new one whenever the call is polled by another task.
#[derive(Default)]
pub struct CallWakers {
    last: Option<Arc<CallWaker>>,
}

impl CallWakers {
    /// The waker to poll with for this task's; and what tells of it when it is gone, if it is new.
    pub fn waker(&mut self, task: &Waker) -> (Waker, Option<Weak<CallWaker>>) {
        if let Some(last) = &self.last
            && last.0.will_wake(task)
        {
            return (Waker::from(last.clone()), None);
        }
        let new = Arc::new(CallWaker(task.clone()));
        self.last = Some(new.clone());
        let known = Arc::downgrade(&new);
        (Waker::from(new), Some(known))
    }
}
