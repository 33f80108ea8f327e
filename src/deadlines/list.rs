//! Deadlines in their order: a doubly linked list in a slab.

use crate::Instant;
use std::{mem, task::Waker};

/// The deadlines that are waited for, the earliest first.
///
/// Entries stay where they are in `entries` and are linked by their positions,
/// so the memory of the most that were ever there together is given back only
/// when none is there.
/// Deadlines of one length come in their order, so each is appended at the
/// tail; a shorter one is moved towards the head, past those that are later.
#[derive(Debug)]
pub(super) struct List {
    entries: Vec<Entry>,

    /// The number of entries that are not free.
    taken: usize,

    /// The free entry that was freed last.
    free: usize,

    head: usize,
    tail: usize,
}

#[derive(Debug)]
enum Entry {
    /// Not in use; `next` is the free entry that was freed before.
    Free { next: usize },

    /// In the list, between `before` and `after`.
    Waiting {
        deadline: Instant,
        waker: Waker,
        before: usize,
        after: usize,
    },

    /// Out of the list, until its owner comes to see.
    Expired,
}

/// Where there is no entry.
const NONE: usize = usize::MAX;

/// The capacity that an empty list always keeps.
const SPARE: usize = 64;

/// The position of an entry, until it is removed.
#[derive(Debug)]
pub(super) struct Key(usize);

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
            head: NONE,
            tail: NONE,
        }
    }

    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        match self.entries.get(self.head) {
            Some(Entry::Waiting { deadline, .. }) => Some(*deadline),
            _ => None,
        }
    }

    /// Adds a deadline behind all that are not later.
    #[inline]
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> Key {
        let mut before = self.tail;
        let mut after = NONE;
        while let Some(Entry::Waiting {
            deadline: earlier,
            before: next,
            ..
        }) = self.entries.get(before)
            && *earlier > deadline
        {
            after = mem::replace(&mut before, *next);
        }
        let key = self.take(Entry::Waiting {
            deadline,
            waker,
            before,
            after,
        });
        self.link(before, after, key, key);
        Key(key)
    }

    /// Takes the earliest deadline out of the list, if it is not after `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Waker> {
        let first = self.head;
        match self.entries.get(first) {
            Some(Entry::Waiting { deadline, .. }) if *deadline <= now => {
                self.unlink(first, Entry::Expired)
            }
            _ => None,
        }
    }

    /// Looks at an entry, with the waker of whoever looks.
    pub(super) fn find(&self, key: &Key, waker: &Waker) -> Found {
        match &self.entries[key.0] {
            Entry::Waiting { waker: known, .. } if known.will_wake(waker) => Found::Waiting,
            Entry::Waiting { .. } => Found::WaitingForAnother,
            Entry::Expired | Entry::Free { .. } => Found::Expired,
        }
    }

    /// Changes whom to wake and returns whom not to, or the new waker as an
    /// error if the deadline has expired.
    pub(super) fn replace(&mut self, key: &Key, waker: Waker) -> Result<Waker, Waker> {
        match &mut self.entries[key.0] {
            Entry::Waiting { waker: known, .. } => Ok(mem::replace(known, waker)),
            Entry::Expired | Entry::Free { .. } => Err(waker),
        }
    }

    /// Removes an entry, expired or not, and returns whom not to wake.
    #[inline]
    pub(super) fn remove(&mut self, Key(key): Key) -> Option<Waker> {
        let waker = self.unlink(key, Entry::Free { next: self.free });
        self.free = key;
        self.taken -= 1;
        if self.taken == 0 {
            self.entries.clear();
            // Not at once, or else every burst would pay for its memory.
            let half = self.entries.capacity() / 2;
            self.entries.shrink_to(half.max(SPARE));
            self.free = NONE;
        }
        waker
    }

    /// Puts an entry into a free place, or into a new one.
    #[inline]
    fn take(&mut self, entry: Entry) -> usize {
        self.taken += 1;
        let key = self.free;
        match self.entries.get_mut(key) {
            Some(place) => {
                if let Entry::Free { next } = mem::replace(place, entry) {
                    self.free = next;
                }
                key
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    /// Puts another entry in the place of one, which leaves the list if it was
    /// in there.
    #[inline]
    fn unlink(&mut self, key: usize, entry: Entry) -> Option<Waker> {
        match mem::replace(&mut self.entries[key], entry) {
            Entry::Waiting {
                waker,
                before,
                after,
                ..
            } => {
                self.link(before, after, after, before);
                Some(waker)
            }
            Entry::Expired | Entry::Free { .. } => None,
        }
    }

    /// Has `next` follow the entry `before`, and `previous` precede `after`.
    #[inline]
    fn link(&mut self, before: usize, after: usize, next: usize, previous: usize) {
        match self.entries.get_mut(before) {
            Some(Entry::Waiting { after, .. }) => *after = next,
            _ => self.head = next,
        }
        match self.entries.get_mut(after) {
            Some(Entry::Waiting { before, .. }) => *before = previous,
            _ => self.tail = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_test::task::{new_count_waker, noop_waker};
    use std::time::Duration;

    /// The instant so many seconds after the tests began.
    fn at(seconds: u64) -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    /// The deadlines from head to tail, after a walk both ways.
    fn order(list: &List) -> Vec<Instant> {
        let walk = |mut key: usize, forward: bool| {
            let mut deadlines = Vec::new();
            while let Some(Entry::Waiting {
                deadline,
                before,
                after,
                ..
            }) = list.entries.get(key)
            {
                deadlines.push(*deadline);
                key = if forward { *after } else { *before };
            }
            deadlines
        };
        let mut backward = walk(list.tail, false);
        backward.reverse();
        let forward = walk(list.head, true);
        assert_eq!(forward, backward);
        forward
    }

    #[test]
    fn deadlines_are_kept_in_their_order() {
        let mut list = List::new();
        for seconds in [5, 7, 6, 1, 9, 7] {
            list.insert(at(seconds), noop_waker());
        }
        assert_eq!(order(&list), [1, 5, 6, 7, 7, 9].map(at));
        assert_eq!(list.first(), Some(at(1)));
    }

    #[test]
    fn equal_deadlines_expire_in_the_order_of_their_coming() {
        let mut list = List::new();
        let (first, first_count) = new_count_waker();
        list.insert(at(1), first);
        list.insert(at(1), noop_waker());
        list.expire(at(1)).unwrap().wake();
        assert_eq!(first_count.get(), 1);
    }

    #[test]
    fn only_what_is_due_expires() {
        let mut list = List::new();
        let keys = [3, 1, 2].map(|seconds| list.insert(at(seconds), noop_waker()));
        assert!(list.expire(at(0)).is_none());
        assert!(list.expire(at(2)).is_some());
        assert!(list.expire(at(2)).is_some());
        assert!(list.expire(at(2)).is_none());
        let found = keys.each_ref().map(|key| list.find(key, &noop_waker()));
        assert_eq!(found, [Found::Waiting, Found::Expired, Found::Expired]);
        assert_eq!(order(&list), [at(3)]);
    }

    #[test]
    fn entries_are_removed_from_anywhere() {
        for removed in 0..3 {
            let mut list = List::new();
            let mut keys: Vec<_> = (0..3)
                .map(|seconds| list.insert(at(seconds), noop_waker()))
                .collect();
            assert!(list.remove(keys.remove(removed)).is_some());
            let left: Vec<_> = (0..3).filter(|i| *i != removed as u64).map(at).collect();
            assert_eq!(order(&list), left);
        }
    }

    #[test]
    fn places_are_used_again() {
        let mut list = List::new();
        let _kept = list.insert(at(0), noop_waker());
        for seconds in 1..1000 {
            let key = list.insert(at(seconds), noop_waker());
            if seconds % 2 == 0 {
                list.expire(at(0));
            }
            list.remove(key);
        }
        assert_eq!(list.entries.len(), 2);
    }

    #[test]
    fn a_list_that_is_empty_now_and_then_gives_its_memory_back() {
        let mut list = List::new();
        let keys: Vec<_> = (0..1000)
            .map(|seconds| list.insert(at(seconds), noop_waker()))
            .collect();
        for key in keys {
            list.remove(key);
        }
        for _ in 0..10 {
            let key = list.insert(at(0), noop_waker());
            list.remove(key);
        }
        assert!(list.entries.capacity() <= SPARE);
        assert_eq!(order(&list), []);
        list.insert(at(1), noop_waker());
        assert_eq!(order(&list), [at(1)]);
    }

    #[test]
    fn the_waker_is_the_last_one_that_was_given() {
        let mut list = List::new();
        let [(first, first_count), (second, second_count)] = [new_count_waker(), new_count_waker()];
        let key = list.insert(at(1), first.clone());
        assert_eq!(list.find(&key, &first), Found::Waiting);
        assert_eq!(list.find(&key, &second), Found::WaitingForAnother);
        let stale = list.replace(&key, second.clone());
        assert!(stale.is_ok_and(|stale| stale.will_wake(&first)));
        list.expire(at(1)).unwrap().wake();
        assert_eq!((first_count.get(), second_count.get()), (0, 1));
        assert!(list.replace(&key, first).is_err());
    }
}
