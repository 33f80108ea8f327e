//! Deadlines in their order: a few chains in a slab, and a tree.

use crate::Instant;
use std::{collections::BTreeSet, mem, task::Waker};

/// The deadlines that are waited for.
///
/// Entries stay where they are in `entries` and are linked by their positions,
/// so memory is given back only when none is there. Deadlines of one length come
/// in their order, so each is appended to a chain. One that is earlier than the
/// last of a chain is of another length, or has met another thread, and is
/// appended to the next chain; where there are more lengths than chains, it is a
/// stray and finds its place in a tree.
#[derive(Debug)]
pub(super) struct List {
    entries: Vec<Entry>,

    /// The number of entries that are not free.
    taken: usize,

    /// The free entry that was freed last.
    free: Position,

    chains: [Chain; CHAINS],

    /// The deadlines that are in no chain, and where they are.
    strays: BTreeSet<(Instant, Position)>,
}

/// Deadlines of which none is earlier than the one before.
#[derive(Clone, Copy, Debug)]
struct Chain {
    head: Position,
    tail: Position,
}

#[derive(Debug)]
struct Entry {
    deadline: Instant,

    /// `None` once the deadline has expired, and in a free entry.
    waker: Option<Waker>,

    /// [`STRAY`] where the entry is in no chain.
    before: Position,

    /// In a free entry, the one that was freed before.
    after: Position,
}

type Position = u32;

/// Where there is no entry.
const NONE: Position = Position::MAX;

/// What is before an entry that is in no chain.
const STRAY: Position = NONE - 1;

/// As many as a wrapper has timeouts of different lengths, most often, and one
/// for threads that meet.
const CHAINS: usize = 4;

/// The number of entries that an empty list always keeps.
const SPARE: usize = 64;

/// The position of an entry, until it is removed.
#[derive(Debug)]
pub(super) struct Key(Position);

/// What an owner finds its entry to be.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Expired,
    Waiting,

    /// Waiting, but with another waker than the one at hand.
    WaitingForAnother,
}

impl List {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            taken: 0,
            free: NONE,
            chains: [Chain {
                head: NONE,
                tail: NONE,
            }; CHAINS],
            strays: BTreeSet::new(),
        }
    }

    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        self.earliest().map(|(deadline, _)| deadline)
    }

    /// Adds a deadline. There is room for four billion of them, then for no
    /// more.
    #[inline]
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> Option<Key> {
        let chain = self.chain_for(deadline);
        let before = chain.map_or(STRAY, |chain| self.chains[chain].tail);
        let key = self.take(Entry {
            deadline,
            waker: Some(waker),
            before,
            after: NONE,
        })?;
        match chain {
            Some(chain) => self.append(chain, before, key),
            None => self.stray(deadline, key),
        }
        Some(Key(key))
    }

    /// Takes the earliest deadline out of the list, if it is not after `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Waker> {
        let (deadline, position) = self.earliest()?;
        if deadline > now {
            return None;
        }
        self.unlink(position)
    }

    /// Looks at an entry, with the waker of whoever looks.
    pub(super) fn find(&self, key: &Key, waker: &Waker) -> Found {
        match self.get(key.0).and_then(|entry| entry.waker.as_ref()) {
            Some(known) if known.will_wake(waker) => Found::Waiting,
            Some(_) => Found::WaitingForAnother,
            None => Found::Expired,
        }
    }

    /// Changes whom to wake and returns whom not to, or the new waker as an
    /// error if the deadline has expired.
    pub(super) fn replace(&mut self, key: &Key, waker: Waker) -> Result<Waker, Waker> {
        match self.get_mut(key.0).and_then(|entry| entry.waker.as_mut()) {
            Some(known) => Ok(mem::replace(known, waker)),
            None => Err(waker),
        }
    }

    /// Removes an entry, expired or not, and returns whom not to wake. Its key
    /// means nothing from then on.
    #[inline]
    pub(super) fn remove(&mut self, &Key(key): &Key) -> Option<Waker> {
        let waker = self.unlink(key);
        let free = mem::replace(&mut self.free, key);
        if let Some(entry) = self.get_mut(key) {
            entry.after = free;
        }
        self.taken -= 1;
        if self.taken == 0 && self.entries.capacity() > SPARE {
            self.clear();
        }
        waker
    }

    /// Gives memory back, but half of it at a time and only what was not used
    /// of late: or else every burst would pay for its memory.
    #[cold]
    fn clear(&mut self) {
        let (used, kept) = (self.entries.len(), self.entries.capacity());
        self.entries.clear();
        self.free = NONE;
        if used <= kept / 4 {
            self.entries.shrink_to((kept / 2).max(SPARE));
        }
    }

    fn earliest(&self) -> Option<(Instant, Position)> {
        let heads = self.chains.iter().filter_map(|&Chain { head, .. }| {
            let deadline = self.get(head)?.deadline;
            Some((deadline, head))
        });
        heads.chain(self.strays.first().copied()).min()
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
    fn stray(&mut self, deadline: Instant, position: Position) {
        self.strays.insert((deadline, position));
    }

    /// Puts an entry into a free place, or into a new one.
    #[inline]
    fn take(&mut self, entry: Entry) -> Option<Position> {
        let free = self.free;
        let position = match self.get_mut(free) {
            Some(place) => {
                let place = mem::replace(place, entry);
                self.free = place.after;
                free
            }
            None => {
                let position = Position::try_from(self.entries.len()).ok()?;
                if position >= STRAY {
                    return None;
                }
                self.entries.push(entry);
                position
            }
        };
        self.taken += 1;
        Some(position)
    }

    /// Takes an entry out of its chain or the tree, if it is in there.
    #[inline]
    fn unlink(&mut self, position: Position) -> Option<Waker> {
        let entry = self.get_mut(position)?;
        let waker = entry.waker.take()?;
        let (deadline, before, after) = (entry.deadline, entry.before, entry.after);
        if before == STRAY {
            self.strays.remove(&(deadline, position));
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
    use futures_test::task::{new_count_waker, noop_waker};
    use proptest::{collection::vec, prelude::*};
    use std::time::Duration;

    /// The instant so many nanoseconds after the tests began.
    fn at(nanos: u64) -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_nanos(nanos)
    }

    /// Adds a deadline to a list with room for it.
    fn insert(list: &mut List, nanos: u64, waker: Waker) -> Key {
        list.insert(at(nanos), waker).unwrap()
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

    /// All deadlines, the earliest first.
    fn order(list: &List) -> Vec<Instant> {
        let chains = list.chains.iter().flat_map(|&chain| links(list, chain));
        let strays = list.strays.iter().map(|&(deadline, _)| deadline);
        let mut deadlines: Vec<_> = chains.chain(strays).collect();
        deadlines.sort();
        deadlines
    }

    #[test]
    fn deadlines_are_kept_in_their_order() {
        let mut list = List::new();
        for nanos in [5, 7, 6, 1, 9, 7] {
            insert(&mut list, nanos, noop_waker());
        }
        assert_eq!(order(&list), [1, 5, 6, 7, 7, 9].map(at));
        assert_eq!(list.first(), Some(at(1)));
    }

    #[test]
    fn as_many_chains_are_used_as_there_are_lengths() {
        let mut list = List::new();
        for now in 0..10 {
            for length in [300, 60, 30] {
                insert(&mut list, now + length, noop_waker());
            }
        }
        let lengths = list.chains.map(|chain| links(&list, chain).len());
        assert_eq!(lengths, [10, 10, 10, 0]);
        assert!(list.strays.is_empty());
        assert_eq!(list.first(), Some(at(30)));
    }

    #[test]
    fn a_deadline_for_which_there_is_no_chain_has_its_place_all_the_same() {
        let mut list = List::new();
        let nanos = 10..16;
        let mut keys: Vec<_> = nanos
            .clone()
            .rev()
            .map(|nanos| insert(&mut list, nanos, noop_waker()))
            .collect();
        assert_eq!(list.strays.len(), 6 - CHAINS);
        assert_eq!(order(&list), nanos.map(at).collect::<Vec<_>>());
        assert_eq!(list.first(), Some(at(10)));
        list.remove(&keys.remove(5));
        assert_eq!(list.first(), Some(at(11)));
        assert!(list.expire(at(11)).is_some());
        assert!(list.strays.is_empty());
    }

    /// What happens to a list, each with a number that says to which entry, or
    /// when.
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
        fn deadlines_of_any_lengths_expire_at_their_time(steps in steps()) {
            let mut list = List::new();
            let mut entries: Vec<(u64, Key)> = Vec::new();
            let mut expired = 0;
            for step in steps {
                match step {
                    Step::Insert(nanos) => {
                        let nanos = expired + nanos;
                        let key = insert(&mut list, nanos, noop_waker());
                        entries.push((nanos, key));
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
                prop_assert_eq!(list.first(), first);
                prop_assert_eq!(order(&list).first().copied(), first);
                prop_assert_eq!(list.taken, entries.len());
            }
        }
    }

    #[test]
    fn equal_deadlines_expire_in_the_order_of_their_coming() {
        let mut list = List::new();
        let (first, first_count) = new_count_waker();
        insert(&mut list, 1, first);
        insert(&mut list, 1, noop_waker());
        assert_eq!(links(&list, list.chains[0]), [at(1); 2]);
        list.expire(at(1)).unwrap().wake();
        assert_eq!(first_count.get(), 1);
    }

    #[test]
    fn only_what_is_due_expires() {
        let mut list = List::new();
        let keys = [3, 1, 2].map(|nanos| insert(&mut list, nanos, noop_waker()));
        assert!(list.expire(at(0)).is_none());
        assert!(list.expire(at(2)).is_some());
        assert!(list.expire(at(2)).is_some());
        assert!(list.expire(at(2)).is_none());
        let found = keys.each_ref().map(|key| list.find(key, &noop_waker()));
        assert_eq!(found, [Found::Waiting, Found::Expired, Found::Expired]);
        assert_eq!(order(&list), [3].map(at));
    }

    #[test]
    fn entries_are_removed_from_anywhere() {
        for removed in 0..3 {
            let mut list = List::new();
            let mut keys: Vec<_> = (0..3)
                .map(|nanos| insert(&mut list, nanos, noop_waker()))
                .collect();
            assert!(list.remove(&keys.remove(removed)).is_some());
            let left: Vec<_> = (0..3).filter(|i| *i != removed as u64).map(at).collect();
            assert_eq!(order(&list), left);
        }
    }

    #[test]
    fn places_are_used_again() {
        let mut list = List::new();
        let _kept = insert(&mut list, 0, noop_waker());
        for nanos in 1..1000 {
            let key = insert(&mut list, nanos, noop_waker());
            if nanos % 2 == 0 {
                list.expire(at(0));
            }
            list.remove(&key);
        }
        assert_eq!(list.entries.len(), 2);
    }

    #[test]
    fn a_list_that_is_empty_now_and_then_gives_its_memory_back() {
        let mut list = List::new();
        let keys: Vec<_> = (0..1000)
            .map(|nanos| insert(&mut list, nanos, noop_waker()))
            .collect();
        for key in keys {
            list.remove(&key);
        }
        for _ in 0..10 {
            let key = insert(&mut list, 0, noop_waker());
            list.remove(&key);
        }
        assert!(list.entries.capacity() <= SPARE);
        assert!(order(&list).is_empty());
        insert(&mut list, 1, noop_waker());
        assert_eq!(order(&list), [1].map(at));
    }

    #[test]
    fn a_burst_that_comes_again_finds_the_memory_of_the_last_one() {
        let mut list = List::new();
        let mut burst = || {
            let keys: Vec<_> = (0..1000)
                .map(|nanos| insert(&mut list, nanos, noop_waker()))
                .collect();
            for key in keys {
                list.remove(&key);
            }
            list.entries.capacity()
        };
        let kept = burst();
        assert!(kept >= 1000);
        assert_eq!([burst(), burst()], [kept; 2]);
    }

    #[test]
    fn the_waker_is_the_last_one_that_was_given() {
        let mut list = List::new();
        let [(first, first_count), (second, second_count)] = [new_count_waker(), new_count_waker()];
        let key = insert(&mut list, 1, first.clone());
        assert_eq!(list.find(&key, &first), Found::Waiting);
        assert_eq!(list.find(&key, &second), Found::WaitingForAnother);
        let stale = list.replace(&key, second.clone());
        assert!(stale.is_ok_and(|stale| stale.will_wake(&first)));
        list.expire(at(1)).unwrap().wake();
        assert_eq!((first_count.get(), second_count.get()), (0, 1));
        assert!(list.replace(&key, first).is_err());
    }
}
