//! The calls that wait for a turn: retries first, then in order of arrival.

use crate::timer::{AnyTimer, Instant};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
    task::Waker,
};

/// The waiting calls of one model, and the turns `T` that calls have not taken yet.
#[derive(Default)]
pub struct Queue<T> {
    waiting: BTreeMap<Key, Waiter>,

    /// The number of retries among them.
    retries: usize,

    /// Those whose timer can wake the limiter.
    sharing: BTreeSet<Key>,

    /// Their deadlines.
    deadlines: BTreeSet<(Instant, Key)>,

    /// The retries and the other calls that have joined.
    joined: [u64; 2],

    /// The calls that have their turn and have not taken it yet.
    granted: HashMap<Key, (Turn<T>, Waiter)>,

    /// The last turn, if a call left with it and no other waited.
    pub unused: Option<Turn<T>>,

    /// The turns so far.
    turns: u64,
}

/// Names a call in its queue. The least one is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    is_first_attempt: bool,

    /// Counts the calls of its kind.
    number: u64,
}

/// A waiting call. Its parts run user code, so they are called and dropped outside locks.
pub struct Waiter {
    /// `None` if it was woken and has not looked since.
    pub waker: Option<Waker>,

    pub timer: Arc<dyn AnyTimer>,

    /// Whether the timer can wake the limiter at the next turn. Otherwise the call sleeps.
    pub is_shareable: bool,

    /// The end of that sleep.
    pub sleeps_until: Option<Instant>,

    pub deadline: Option<Instant>,
}

/// A turn that was granted.
pub struct Turn<T> {
    pub turn: T,

    /// Counts the turns.
    number: u64,
}

impl<T> Queue<T> {
    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a call behind the others of its kind.
    pub fn join(&mut self, is_retry: bool, waiter: Waiter) -> Key {
        let joined = &mut self.joined[usize::from(is_retry)];
        *joined += 1;
        let key = Key {
            is_first_attempt: !is_retry,
            number: *joined,
        };
        self.insert(key, waiter);
        key
    }

    fn insert(&mut self, key: Key, waiter: Waiter) {
        self.retries += usize::from(!key.is_first_attempt);
        self.sharing.extend(waiter.is_shareable.then_some(key));
        let deadline = waiter.deadline.map(|deadline| (deadline, key));
        self.deadlines.extend(deadline);
        self.waiting.insert(key, waiter);
    }

    /// The call that gets the next turn.
    pub fn first(&mut self) -> Option<&mut Waiter> {
        self.waiting.values_mut().next()
    }

    /// The first call behind one that has left.
    pub fn behind(&mut self, key: Key) -> Option<&mut Waiter> {
        Some(self.waiting.range_mut(key..).next()?.1)
    }

    /// The first timer that can wake the limiter.
    pub fn timer(&self) -> Option<&Arc<dyn AnyTimer>> {
        Some(&self.waiting.get(self.sharing.first()?)?.timer)
    }

    /// Numbers a turn, after which earlier ones are not handed on.
    pub fn number(&mut self, turn: T) -> Turn<T> {
        self.turns += 1;
        self.unused = None;
        let number = self.turns;
        Turn { turn, number }
    }

    /// Grants the next turn to the first call, and returns its waker.
    pub fn grant(&mut self, turn: T) -> Option<Waker> {
        let turn = self.number(turn);
        self.hand_on(turn)
    }

    /// Grants the turn of a call that left to the first one, whose waker it returns, or keeps
    /// it for the next one that comes, unless a later turn has been granted meanwhile.
    pub fn hand_on(&mut self, turn: Turn<T>) -> Option<Waker> {
        if turn.number < self.turns {
            return None;
        }
        let Some(&key) = self.waiting.keys().next() else {
            self.unused = Some(turn);
            return None;
        };
        let mut waiter = self.remove(key)?;
        let waker = waiter.waker.take();
        self.granted.insert(key, (turn, waiter));
        waker
    }

    /// Takes all turns back that no attempt has used yet. Calls with a turn wait again, each
    /// in its old place; turns on their way are not handed on.
    pub fn take_back(&mut self) {
        self.turns += 1;
        self.unused = None;
        for (key, (_, waiter)) in mem::take(&mut self.granted) {
            self.insert(key, waiter);
        }
    }

    /// Removes the calls whose deadline is not after `time`, which are to be woken.
    pub fn expire(&mut self, time: Instant) -> Vec<Waiter> {
        let mut expired = Vec::new();
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= time
        {
            expired.extend(self.remove(key));
        }
        expired
    }

    /// Whether a call has a turn that it has not taken yet.
    pub fn has_turn(&self, key: Key) -> bool {
        self.granted.contains_key(&key)
    }

    /// A waiting call, and the number of calls before it, or somewhat more if some of
    /// them have left.
    pub fn waiter(&mut self, key: Key) -> Option<(usize, &mut Waiter)> {
        let of_its_kind = match key.is_first_attempt {
            true => self.waiting.len() - self.retries,
            false => self.retries,
        };
        let others = self.waiting.len() - of_its_kind;
        let line = Key { number: 0, ..key };
        let first = self.waiting.range(line..).next()?.0.number;
        let waiter = self.waiting.get_mut(&key)?;
        let places = usize::try_from(key.number - first).unwrap_or(usize::MAX);
        let ahead = places.min(of_its_kind - 1);
        Some(match key.is_first_attempt {
            true => (ahead + others, waiter),
            false => (ahead, waiter),
        })
    }

    /// Removes a call that gives up or uses its turn, which is returned if it has one. `None`
    /// if the call has expired.
    pub fn leave(&mut self, key: Key) -> Option<(Option<Turn<T>>, Waiter)> {
        match self.granted.remove(&key) {
            Some((turn, waiter)) => Some((Some(turn), waiter)),
            None => Some((None, self.remove(key)?)),
        }
    }

    fn remove(&mut self, key: Key) -> Option<Waiter> {
        let waiter = self.waiting.remove(&key)?;
        self.retries -= usize::from(!key.is_first_attempt);
        self.sharing.remove(&key);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::SharedTimer;
    use futures::future::ready;

    fn waiter() -> Waiter {
        Waiter {
            waker: None,
            timer: SharedTimer::new(|_| ready(())),
            is_shareable: false,
            sleeps_until: None,
            deadline: None,
        }
    }

    /// Against lines that are searched from the front.
    #[test]
    fn calls_join_leave_and_are_served_in_order() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut queue = Queue::default();
        let mut lines = [const { Vec::new() }; 2];
        for number in 0..20_000 {
            match random.u8(0..6) {
                0 | 1 => {
                    let is_retry = random.u8(0..4) == 0;
                    let key = queue.join(is_retry, waiter());
                    lines[usize::from(!is_retry)].push(key);
                }
                2 | 3 => {
                    let line = &mut lines[random.usize(0..2)];
                    if !line.is_empty() {
                        let key = line.remove(random.usize(0..line.len()));
                        assert!(queue.leave(key).unwrap().0.is_none());
                    }
                }
                4 => {
                    queue.grant(number);
                    let on_its_way = queue.number(number);
                    queue.take_back();
                    queue.hand_on(on_its_way);
                    assert!(queue.unused.is_none());
                }
                _ => {
                    let line = lines.iter_mut().find(|line| !line.is_empty());
                    queue.grant(number);
                    if let Some(line) = line {
                        let key = line.remove(0);
                        assert!(queue.has_turn(key) && queue.waiter(key).is_none());
                        let (turn, _) = queue.leave(key).unwrap();
                        assert_eq!(turn.unwrap().turn, number);
                    }
                }
            }
            let waiting = lines.concat();
            for (index, &key) in waiting.iter().enumerate() {
                let (ahead, _) = queue.waiter(key).unwrap();
                let most = if index == 0 { 0 } else { waiting.len() - 1 };
                assert!((index..=most).contains(&ahead));
            }
            assert_eq!(queue.is_empty(), waiting.is_empty());
        }
        assert!(queue.granted.is_empty());
    }
}
