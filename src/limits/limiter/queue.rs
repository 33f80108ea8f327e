//! The calls that wait for a turn: two lines in order of arrival, retries first.

use crate::timer::{AnyTimer, Instant};
use std::{
    array,
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    task::Waker,
};

/// The waiting calls of one model, and the turns `T` that calls have not taken yet.
///
/// Each operation takes constant time, however many calls wait.
pub struct Queue<T> {
    /// Retries, and calls without an attempt.
    lines: [Line; 2],

    granted: HashMap<Key, Turn<T>>,

    /// The turns so far.
    turns: u64,

    /// The waiting calls whose timer can wake others.
    sharing: usize,

    /// Not later than the deadline of any waiting call; `None` if none has one.
    earliest_deadline: Option<Instant>,
}

/// Waiting calls in order of arrival.
#[derive(Default)]
struct Line {
    /// The number of the first place.
    first: u64,

    /// `None` for a call that has left. The first and the last place are taken.
    places: VecDeque<Option<Box<Waiter>>>,
}

/// Names a call in its queue, until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    line: usize,
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
    number: u64,
}

/// The result of leaving a queue.
pub enum Left<T> {
    Waiting(Waiter),
    Granted(Turn<T>),
    Unknown,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self {
            lines: array::from_fn(|_| Line::default()),
            granted: HashMap::new(),
            turns: 0,
            sharing: 0,
            earliest_deadline: None,
        }
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.places.is_empty())
    }

    /// Adds a call behind the others of its kind.
    pub fn join(&mut self, is_retry: bool, waiter: Waiter) -> Key {
        if self.is_empty() {
            self.earliest_deadline = None;
        }
        self.earliest_deadline = earlier(self.earliest_deadline, waiter.deadline);
        self.sharing += usize::from(waiter.is_shareable);
        let index = usize::from(!is_retry);
        let line = &mut self.lines[index];
        line.places.push_back(Some(Box::new(waiter)));
        Key {
            line: index,
            number: line.first + line.places.len() as u64 - 1,
        }
    }

    /// The call that gets the next turn.
    pub fn first(&mut self) -> Option<&mut Waiter> {
        self.waiters().next()
    }

    /// The first timer that can wake the limiter.
    pub fn timer(&self) -> Option<&Arc<dyn AnyTimer>> {
        if self.sharing == 0 {
            return None;
        }
        let places = self.lines.iter().flat_map(|line| &line.places);
        let waiter = places.flatten().find(|waiter| waiter.is_shareable)?;
        Some(&waiter.timer)
    }

    fn waiters(&mut self) -> impl Iterator<Item = &mut Waiter> {
        let places = self.lines.iter_mut().flat_map(|line| &mut line.places);
        places.flatten().map(Box::as_mut)
    }

    /// Counts a turn that nobody had to wait for.
    pub fn pass(&mut self) {
        self.turns += 1;
    }

    /// Grants the next turn to the first call, which is to be woken.
    pub fn grant(&mut self, turn: T) -> Option<Waiter> {
        self.turns += 1;
        let number = self.turns;
        self.hand_on(Turn { turn, number })
    }

    /// Grants the turn of a call that left to the first one, unless a later turn has
    /// been granted meanwhile.
    pub fn hand_on(&mut self, turn: Turn<T>) -> Option<Waiter> {
        if turn.number < self.turns {
            return None;
        }
        let mut lines = self.lines.iter_mut().enumerate();
        let (key, waiter) = lines.find_map(|(index, line)| {
            let number = line.first;
            let waiter = line.remove(number)?;
            Some((
                Key {
                    line: index,
                    number,
                },
                waiter,
            ))
        })?;
        self.sharing -= usize::from(waiter.is_shareable);
        self.granted.insert(key, turn);
        Some(waiter)
    }

    /// A waiting call, and the number of places before it. `None` if it has its turn.
    pub fn waiter(&mut self, key: Key) -> Option<(usize, &mut Waiter)> {
        let retries = self.lines[0].places.len();
        let line = &mut self.lines[key.line];
        let index = line.index(key.number)?;
        let waiter = line.places.get_mut(index)?.as_mut()?;
        Some((index + key.line * retries, waiter))
    }

    /// Removes a call that gives up or uses its turn.
    pub fn leave(&mut self, key: Key) -> Left<T> {
        if let Some(turn) = self.granted.remove(&key) {
            return Left::Granted(turn);
        }
        match self.lines[key.line].remove(key.number) {
            Some(waiter) => {
                self.sharing -= usize::from(waiter.is_shareable);
                Left::Waiting(waiter)
            }
            None => Left::Unknown,
        }
    }

    /// The wakers of the calls whose deadline is not after `time`. Reads the whole queue
    /// only if there may be one.
    pub fn wakers_of_overdue(&mut self, time: Instant) -> Vec<Waker> {
        if self
            .earliest_deadline
            .is_none_or(|earliest| earliest > time)
        {
            return Vec::new();
        }
        let (mut wakers, mut earliest) = (Vec::new(), None);
        for waiter in self.waiters() {
            match waiter.deadline {
                Some(deadline) if deadline <= time => wakers.extend(waiter.waker.take()),
                deadline => earliest = earlier(earliest, deadline),
            }
        }
        self.earliest_deadline = earliest;
        wakers
    }
}

impl Line {
    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let index = self.index(number)?;
        let waiter = mem::take(self.places.get_mut(index)?);
        while self.places.front().is_some_and(Option::is_none) {
            self.places.pop_front();
            self.first += 1;
        }
        while self.places.back().is_some_and(Option::is_none) {
            self.places.pop_back();
        }
        waiter.map(|waiter| *waiter)
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::SharedTimer;
    use futures::{future::ready, task::noop_waker};
    use std::time::Duration;

    fn waiter(deadline: Option<Instant>) -> Waiter {
        Waiter {
            waker: Some(noop_waker()),
            timer: SharedTimer::new(|_| ready(())),
            is_shareable: false,
            sleeps_until: None,
            deadline,
        }
    }

    fn turn<T>(left: Left<T>) -> Turn<T> {
        match left {
            Left::Granted(turn) => turn,
            _ => panic!("no turn was granted"),
        }
    }

    #[test]
    fn an_unused_turn_goes_to_the_next_call_unless_a_later_one_was_granted() {
        let mut queue = Queue::new();
        let [first, second, third] = [(); 3].map(|()| queue.join(false, waiter(None)));
        queue.grant(1);
        let unused = turn(queue.leave(first));
        assert!(queue.hand_on(unused).is_some());
        queue.grant(2);
        let unused = turn(queue.leave(second));
        assert_eq!(unused.turn, 1);
        queue.join(false, waiter(None));
        assert!(queue.hand_on(unused).is_none());
        assert_eq!(turn(queue.leave(third)).turn, 2);
    }

    #[test]
    fn only_calls_whose_deadline_is_near_are_woken() {
        let mut queue = Queue::<()>::new();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        for deadline in [None, Some(3), Some(1)] {
            queue.join(false, waiter(deadline.map(after)));
        }
        let woken = [0, 1, 2, 3].map(|seconds| queue.wakers_of_overdue(after(seconds)).len());
        assert_eq!(woken, [0, 1, 0, 1]);
    }

    /// Against lines that are searched from the front.
    #[test]
    fn calls_join_leave_and_are_served_in_order() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut queue = Queue::new();
        let mut lines = [const { Vec::new() }; 2];
        for number in 0..20_000 {
            match random.u8(0..5) {
                0 | 1 => {
                    let is_retry = random.u8(0..4) == 0;
                    let key = queue.join(is_retry, waiter(None));
                    lines[usize::from(!is_retry)].push(key);
                }
                2 | 3 => {
                    let line = &mut lines[random.usize(0..2)];
                    if !line.is_empty() {
                        let key = line.remove(random.usize(0..line.len()));
                        assert!(matches!(queue.leave(key), Left::Waiting(_)));
                    }
                }
                _ => {
                    let line = lines.iter_mut().find(|line| !line.is_empty());
                    assert_eq!(queue.grant(number).is_some(), line.is_some());
                    if let Some(line) = line {
                        let key = line.remove(0);
                        assert!(queue.waiter(key).is_none());
                        assert_eq!(turn(queue.leave(key)).turn, number);
                    }
                }
            }
            let waiting = lines.iter().flatten().enumerate();
            for (index, &key) in waiting {
                let (ahead, _) = queue.waiter(key).unwrap();
                assert!(ahead >= index);
            }
            assert_eq!(queue.is_empty(), lines.iter().all(Vec::is_empty));
        }
        assert!(queue.granted.is_empty());
    }
}
