//! The alarm of a model: an entry in a timer's list that looks at the next turn.

use super::turns::{Model, Models, Shared, now_since};
use crate::timer::{
    AnyEntry, AnyTimer, Instant, contain_panics,
    sync::{AtomicBool, Ordering},
};
use std::{
    sync::{Arc, Weak},
    task::{Wake, Waker},
};

/// An entry in a timer's list that looks at the next turn.
pub struct Alarm {
    bell: Arc<Bell>,
    _entry: AnyEntry,
}

/// The waker of an alarm.
struct Bell {
    shared: Weak<Shared>,
    model: Arc<str>,
    timer: Arc<dyn AnyTimer>,
    at: Instant,

    /// Whether it has been woken, after which its alarm is useless.
    rang: AtomicBool,
}

impl Shared {
    /// Sets the alarm of a model for its next turn.
    #[cold]
    pub fn set_alarm(self: &Arc<Self>, name: &str) {
        let next = |models: &Models| models.by_name.get(name)?.next_alarm();
        loop {
            let Some((at, timer)) = next(&self.lock()) else {
                return;
            };
            let bell = Arc::new(Bell {
                shared: Arc::downgrade(self),
                model: name.into(),
                timer: timer.clone(),
                at,
                rang: AtomicBool::new(false),
            });
            let waker = Waker::from(bell.clone());
            let mut entry = None;
            // If the time has come, the bell rings at once and looks. The timer may be another
            // wrapper's, whose panic is not for this call.
            contain_panics(|| entry = timer.wake_at(at, &waker));
            let Some(_entry) = entry else {
                return;
            };
            let alarm = Alarm { bell, _entry };
            let mut models = self.lock();
            let unused = match models.by_name.get_mut(name) {
                Some(model) if model.next_alarm().is_some() => model.alarm.replace(alarm),
                _ => Some(alarm),
            };
            drop(models);
            drop(unused);
        }
    }
}

impl Model {
    /// When and by which timer to look next, unless the alarm is set for that.
    pub fn next_alarm(&self) -> Option<(Instant, Arc<dyn AnyTimer>)> {
        let due = self.law.due();
        let timer = self.queue.timer()?;
        let is_set = self.alarm.as_ref().is_some_and(|Alarm { bell, .. }| {
            !bell.rang.load(Ordering::Acquire) && bell.at <= due && Arc::ptr_eq(&bell.timer, timer)
        });
        (!is_set).then(|| (due, timer.clone()))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        if let Some(shared) = self.shared.upgrade() {
            // The clock may be behind the timer.
            let now = now_since(&*self.timer, self.at);
            shared.look(&self.model, now, |_, _| Some(()));
        }
    }
}
