//! Deadlines in order: a few linked chains in a slab, and a tree.

use super::Instant;
use std::{collections::BTreeSet, mem, task::Waker};

/// The deadlines of all waits.
///
/// Deadlines of one length arrive in order, so each is appended to a chain. One that is
/// earlier than the last of a chain has another length, or lost a race against another
/// thread, and is appended to the next chain. If it fits none, because there are more
/// lengths than chains, as with attempts capped by the deadlines of their calls, it goes
/// to a tree.
///
/// Entries stay in place and are linked by their positions, so memory stays at its
/// high-water mark while anything waits. The slab is our own because every waiting call
/// uses it: the `slab` crate's `insert` is not inlined and moves the entry twice, which
/// costs a sixth of such a call.
#[derive(Debug)]
pub struct List {
    entries: Vec<Entry>,

    /// The number of entries that are not free.
    used: usize,

    /// The entry that was freed last.
    free: Position,

    chains: [Chain; CHAINS],

    /// The deadlines that are in no chain, and their positions.
    overflow: BTreeSet<(Instant, Position)>,
}

/// Linked entries in the order of their deadlines.
#[derive(Clone, Copy, Debug)]
struct Chain {
    head: Position,
    tail: Position,
}

#[derive(Debug)]
struct Entry {
    deadline: Instant,

    /// `None` if the deadline has expired or the entry is free.
    waker: Option<Waker>,

    /// [`OVERFLOW`] if the entry is in no chain.
    before: Position,

    /// In a free entry, the one that was freed before.
    after: Position,
}

type Position = u32;

/// No entry.
const NONE: Position = Position::MAX;

/// The position before an entry that is in no chain.
const OVERFLOW: Position = NONE - 1;

/// Enough for the usual number of distinct timeouts, plus one for races.
const CHAINS: usize = 4;

/// The number of entries that an empty list always keeps.
const SPARE: usize = 64;

/// The key of an entry, until it is removed.
#[derive(Debug)]
pub struct Key(Position);

/// The state of an entry.
#[derive(Debug, PartialEq)]
pub enum State {
    Expired,
    Waiting(Instant),
    WaitingWithAnotherWaker(Instant),
}

impl List {
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            used: 0,
            free: NONE,
            chains: [Chain {
                head: NONE,
                tail: NONE,
            }; CHAINS],
            overflow: BTreeSet::new(),
        }
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<Instant> {
        let heads = self.chains.iter().filter_map(|chain| self.get(chain.head));
        let overflow = self.overflow.first().map(|&(deadline, _)| deadline);
        heads.map(|first| first.deadline).chain(overflow).min()
    }

    /// Adds a deadline, or returns `None` if there are four billion already.
    #[inline]
    pub fn add(&mut self, deadline: Instant, waker: Waker) -> Option<Key> {
        let chain = self.chain_for(deadline);
        let before = chain.map_or(OVERFLOW, |chain| self.chains[chain].tail);
        let position = self.insert(Entry {
            deadline,
            waker: Some(waker),
            before,
            after: NONE,
        })?;
        match chain {
            Some(chain) => self.append(chain, before, position),
            None => self.overflow(deadline, position),
        }
        Some(Key(position))
    }

    /// Unlinks one deadline that is due at `now`, if any, and returns its waker.
    /// Deadlines of one chain expire in order.
    pub fn expire(&mut self, now: Instant) -> Option<Waker> {
        let first = self.chains.iter().find_map(|&Chain { head, .. }| {
            let first = self.get(head)?;
            (first.deadline <= now).then_some(head)
        });
        let position = first.or_else(|| match self.overflow.first() {
            Some(&(deadline, position)) if deadline <= now => Some(position),
            _ => None,
        })?;
        self.unlink(position)
    }

    /// The state of an entry, and whether it would wake `waker`.
    pub fn state(&self, key: &Key, waker: &Waker) -> State {
        let Some(entry) = self.get(key.0) else {
            return State::Expired;
        };
        match &entry.waker {
            Some(known) if known.will_wake(waker) => State::Waiting(entry.deadline),
            Some(_) => State::WaitingWithAnotherWaker(entry.deadline),
            None => State::Expired,
        }
    }

    /// Returns the old waker, or the new one as an error if the deadline has expired.
    pub fn replace_waker(&mut self, key: &Key, waker: Waker) -> Result<Waker, Waker> {
        match self.get_mut(key.0).and_then(|entry| entry.waker.as_mut()) {
            Some(known) => Ok(mem::replace(known, waker)),
            None => Err(waker),
        }
    }

    /// Removes an entry, expired or not, and returns its waker.
    #[inline]
    pub fn remove(&mut self, &Key(position): &Key) -> Option<Waker> {
        let waker = self.unlink(position);
        let free = mem::replace(&mut self.free, position);
        if let Some(entry) = self.get_mut(position) {
            entry.after = free;
        }
        self.used -= 1;
        if self.used == 0 && self.entries.capacity() > SPARE {
            self.clear();
        }
        waker
    }

    /// Halves the memory if at most a quarter was used since the list was last empty, so
    /// that a recurring burst does not allocate again.
    #[cold]
    fn clear(&mut self) {
        let (used, kept) = (self.entries.len(), self.entries.capacity());
        self.entries.clear();
        self.free = NONE;
        if used <= kept / 4 {
            self.entries.shrink_to((kept / 2).max(SPARE));
        }
    }

    /// The first chain whose last deadline is not later than this one.
    #[inline]
    fn chain_for(&self, deadline: Instant) -> Option<usize> {
        self.chains.iter().position(|chain| {
            let last = self.get(chain.tail);
            last.is_none_or(|last| last.deadline <= deadline)
        })
    }

    #[inline]
    fn append(&mut self, chain: usize, last: Position, position: Position) {
        self.chains[chain].tail = position;
        match self.get_mut(last) {
            Some(last) => last.after = position,
            None => self.chains[chain].head = position,
        }
    }

    #[cold]
    fn overflow(&mut self, deadline: Instant, position: Position) {
        self.overflow.insert((deadline, position));
    }

    /// Stores an entry at a free position, or at a new one.
    #[inline]
    fn insert(&mut self, entry: Entry) -> Option<Position> {
        let free = self.free;
        let position = match self.get_mut(free) {
            Some(place) => {
                let place = mem::replace(place, entry);
                self.free = place.after;
                free
            }
            None => {
                let position = Position::try_from(self.entries.len()).ok()?;
                if position >= OVERFLOW {
                    return None;
                }
                self.entries.push(entry);
                position
            }
        };
        self.used += 1;
        Some(position)
    }

    /// Takes an entry out of its chain or the tree, if it has not expired.
    #[inline]
    fn unlink(&mut self, position: Position) -> Option<Waker> {
        let entry = self.get_mut(position)?;
        let waker = entry.waker.take()?;
        let (deadline, before, after) = (entry.deadline, entry.before, entry.after);
        if before == OVERFLOW {
            self.overflow.remove(&(deadline, position));
            return Some(waker);
        }
        if let Some(entry) = self.get_mut(before) {
            entry.after = after;
        } else if let Some(chain) = self.chains.iter_mut().find(|it| it.head == position) {
            chain.head = after;
        }
        if let Some(entry) = self.get_mut(after) {
            entry.before = before;
        } else if let Some(chain) = self.chains.iter_mut().find(|it| it.tail == position) {
            chain.tail = before;
        }
        Some(waker)
    }

    #[inline]
    fn get(&self, position: Position) -> Option<&Entry> {
        self.entries.get(position as usize)
    }

    #[inline]
    fn get_mut(&mut self, position: Position) -> Option<&mut Entry> {
        self.entries.get_mut(position as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_test::task::noop_waker;
    use proptest::{collection::vec, prelude::*};
    use std::time::Duration;

    /// The instant `nanos` nanoseconds after the tests began.
    fn at(nanos: u64) -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_nanos(nanos)
    }

    fn insert(list: &mut List, nanos: u64, waker: Waker) -> Key {
        list.add(at(nanos), waker).unwrap()
    }

    /// The deadlines of a chain from head to tail, after a walk both ways.
    fn links(list: &List, chain: Chain) -> Vec<Instant> {
        let walk = |mut position: Position, forward: bool| {
            let mut deadlines = Vec::new();
            while let Some(entry) = list.get(position) {
                deadlines.push(entry.deadline);
                position = if forward { entry.after } else { entry.before };
            }
            deadlines
        };
        let mut backward = walk(chain.tail, false);
        backward.reverse();
        let forward = walk(chain.head, true);
        assert_eq!(forward, backward);
        assert!(forward.is_sorted());
        forward
    }

    #[test]
    fn each_length_uses_one_chain() {
        let mut list = List::new();
        for call in 0..10 {
            // Two deadlines of a length may be equal.
            let now = call / 2;
            for length in [300, 60, 30] {
                insert(&mut list, now + length, noop_waker());
            }
        }
        let lengths = list.chains.map(|chain| links(&list, chain).len());
        assert_eq!(lengths, [10, 10, 10, 0]);
        assert!(list.overflow.is_empty());
    }

    /// A change of a list: a deadline relative to the last expiry, the entry to remove,
    /// or the time that passes.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        Expire(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..100_u64).prop_map(Step::Insert),
            2 => any::<usize>().prop_map(Step::Remove),
            1 => (0..100_u64).prop_map(Step::Expire),
        ];
        vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn random_deadlines_expire_in_order_and_reuse_places(steps in steps()) {
            let mut list = List::new();
            let mut entries: Vec<(u64, Key)> = Vec::new();
            let (mut expired, mut most) = (0, 0);
            for step in steps {
                match step {
                    Step::Insert(nanos) => {
                        let nanos = expired + nanos;
                        let key = insert(&mut list, nanos, noop_waker());
                        entries.push((nanos, key));
                        most = most.max(entries.len());
                    }
                    Step::Remove(index) if !entries.is_empty() => {
                        let (nanos, key) = entries.swap_remove(index % entries.len());
                        prop_assert_eq!(list.remove(&key).is_some(), nanos > expired);
                    }
                    Step::Remove(_) => {}
                    Step::Expire(later) => expired += later,
                }
                let waiting = entries.iter().filter(|(nanos, _)| *nanos > expired);
                let first = waiting.map(|(nanos, _)| at(*nanos)).min();
                while list.expire(at(expired)).is_some() {}
                prop_assert_eq!(list.earliest(), first);
                for chain in list.chains {
                    links(&list, chain);
                }
                prop_assert_eq!(list.used, entries.len());
                prop_assert!(list.entries.len() <= most, "a free place is not reused");
            }
        }
    }

    #[test]
    fn memory_is_kept_for_a_recurring_burst_and_freed_otherwise() {
        let mut list = List::new();
        let mut burst = |entries| {
            let keys: Vec<_> = (0..entries)
                .map(|nanos| insert(&mut list, nanos, noop_waker()))
                .collect();
            for key in keys {
                list.remove(&key);
            }
            list.entries.capacity()
        };
        let kept = burst(1000);
        assert!(kept >= 1000);
        assert_eq!([burst(1000), burst(1000)], [kept; 2]);
        assert_eq!(burst(1), kept / 2);
        let last = [1; 10].map(&mut burst);
        assert_eq!(last[8..], [SPARE; 2]);
    }
}
