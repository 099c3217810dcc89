//! A table of named slots with a hash index over it.
//!
//! Looking up takes no lock. Slots are added and given up under a lock; a reader that meets that
//! half done finds nothing, and asks again under the lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::OTHER;
use super::name::Name;

use Ordering::{Acquire, Relaxed, Release};

/// What every slot begins with.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Label {
    /// The hash of name and owner; 0 for a slot that is free.
    key: AtomicU64,
    /// The upstream that a peer belongs to.
    owner: AtomicU32,
    /// The configuration that names it last; 0 where none does.
    configured: AtomicU32,
    /// When it was added.
    since: AtomicU64,
    name: Name,
}

impl Label {
    pub(super) fn is_free(&self) -> bool {
        self.key.load(Acquire) == 0
    }

    /// The number that stands for owner and name.
    pub(super) fn key(&self) -> u64 {
        self.key.load(Relaxed)
    }

    /// Whether it is still the one with this key, and that has this name.
    #[inline]
    pub(super) fn holds(&self, key: u64, name: &[u8]) -> bool {
        self.key.load(Acquire) == key && self.name.is(name)
    }

    /// As [`Label::holds`], which calls nothing; false for a name that is shorter than a word.
    #[inline(always)]
    pub(super) fn holds_words(&self, key: u64, name: &[u8]) -> bool {
        self.key.load(Acquire) == key && self.name.is_of_words(name)
    }

    #[inline]
    pub(super) fn is(&self, owner: usize, name: &[u8]) -> bool {
        self.owner.load(Relaxed) as usize == owner && self.name.is(name)
    }

    pub(super) fn owner(&self) -> usize {
        self.owner.load(Relaxed) as usize
    }

    pub(super) fn name(&self) -> String {
        self.name.text()
    }

    /// Whether the name stands for others.
    pub(super) fn is_substitute(&self) -> bool {
        self.name.is(b"") || self.name.is(OTHER.as_bytes())
    }

    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    pub(super) fn configured(&self) -> u32 {
        self.configured.load(Relaxed)
    }

    pub(super) fn set_configured(&self, generation: u32) {
        self.configured.store(generation, Relaxed);
    }
}

/// A slot of a table.
pub(super) trait Slot {
    /// How it begins.
    fn label(&self) -> &Label;
    /// Sets everything behind the label to zero.
    fn clear(&self);
}

/// What a slot is looked up by.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) hash: u64,
    pub(super) owner: usize,
    pub(super) name: &'a [u8],
}

/// What is kept of a table besides its slots. Zeros are those of an empty one.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct State {
    /// A change goes on. Left by a process that was killed in it.
    unfinished: AtomicU32,
    /// Slots in use, by whether the name stands for others.
    named: AtomicU32,
    substitutes: AtomicU32,
    /// Where to look for a free slot.
    next: AtomicU32,
    /// When slots to be given up were looked for.
    pub(super) searched: AtomicU64,
}

#[cfg(test)]
impl State {
    pub(super) fn set_unfinished(&self) {
        self.unfinished.store(1, Relaxed);
    }
}

/// A table.
#[derive(Debug)]
pub(super) struct Table<'m, S> {
    pub(super) slots: &'m [S],
    /// Places of slots, counted from 1, by hash; 0 ends a search. A power of two of them, at
    /// least twice as many as slots.
    pub(super) index: &'m [AtomicU32],
    pub(super) state: &'m State,
}

impl<S> Clone for Table<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Table<'_, S> {}

impl<'m, S: Slot> Table<'m, S> {
    /// The slot at a place.
    #[inline]
    pub(super) fn slot(&self, at: usize) -> Option<&'m S> {
        self.slots.get(at)
    }

    /// The slots in use, with their places.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &'m S)> {
        self.slots.iter().enumerate().filter(|(_, slot)| !slot.label().is_free())
    }

    /// The place of a slot.
    pub(super) fn find(&self, key: Key<'_>) -> Option<usize> {
        let hash = key.hash.max(1);
        for probe in 0..self.index.len() {
            let at = self.probe(hash, probe)?;
            let place = match at.load(Acquire).checked_sub(1) {
                Some(place) => place as usize,
                None => return None,
            };
            let found = self.slots.get(place).map(Slot::label);
            if found.is_some_and(|label| {
                label.key.load(Acquire) == hash && label.is(key.owner, key.name)
            }) {
                return Some(place);
            }
        }
        None
    }

    /// Slots in use whose names stand for others, or for themselves.
    pub(super) fn count(&self, substitutes: bool) -> usize {
        let state = self.state;
        let count = if substitutes { &state.substitutes } else { &state.named };
        count.load(Relaxed) as usize
    }

    /// Puts a slot into use. `None` if there is no free one. Under the lock.
    pub(super) fn add(&self, key: Key<'_>, now: u64) -> Option<usize> {
        let next = self.state.next.load(Relaxed) as usize;
        let free =
            |place: &usize| self.slots.get(*place).is_some_and(|slot| slot.label().is_free());
        let place = (next..self.slots.len()).chain(0..next).find(free)?;
        let slot = self.slots.get(place)?;
        self.state.unfinished.store(1, Relaxed);
        slot.clear();
        let label = slot.label();
        label.owner.store(u32::try_from(key.owner).ok()?, Relaxed);
        label.configured.store(0, Relaxed);
        label.since.store(now, Relaxed);
        label.name.set(key.name);
        // The key comes last: without it the slot is free, and what points to it finds nothing.
        let hash = key.hash.max(1);
        self.point(hash, place)?;
        label.key.store(hash, Release);
        self.count_slot(label);
        let next = u32::try_from(place).ok()?.saturating_add(1);
        self.state.next.store(next, Relaxed);
        self.state.unfinished.store(0, Relaxed);
        Some(place)
    }

    /// Gives slots up. Under the lock.
    pub(super) fn remove(&self, mut gone: impl FnMut(usize, &S) -> bool) {
        self.state.unfinished.store(1, Relaxed);
        for (place, slot) in self.used() {
            if gone(place, slot) {
                slot.label().key.store(0, Release);
            }
        }
        self.rebuild();
    }

    /// Mends what a process that was killed has left. Under the lock.
    pub(super) fn repair(&self) {
        if self.state.unfinished.load(Relaxed) != 0 {
            self.rebuild();
        }
    }

    fn rebuild(&self) {
        self.index.iter().for_each(|place| place.store(0, Release));
        for count in [&self.state.named, &self.state.substitutes, &self.state.next] {
            count.store(0, Relaxed);
        }
        for (place, slot) in self.used() {
            self.point(slot.label().key.load(Relaxed), place);
            self.count_slot(slot.label());
        }
        self.state.unfinished.store(0, Relaxed);
    }

    fn count_slot(&self, label: &Label) {
        let state = self.state;
        let count = if label.is_substitute() { &state.substitutes } else { &state.named };
        count.fetch_add(1, Relaxed);
    }

    /// Lets the index point to a slot.
    fn point(&self, hash: u64, place: usize) -> Option<()> {
        let number = u32::try_from(place).ok()?.checked_add(1)?;
        let free = (0..self.index.len())
            .filter_map(|probe| self.probe(hash, probe))
            .find(|at| at.load(Relaxed) == 0)?;
        free.store(number, Release);
        Some(())
    }

    fn probe(&self, hash: u64, probe: usize) -> Option<&'m AtomicU32> {
        let mask = self.index.len().checked_sub(1)?;
        let first = usize::try_from(hash & mask as u64).ok()?;
        self.index.get(first.wrapping_add(probe) & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Plain {
        label: Label,
        value: AtomicU64,
    }

    impl Slot for Plain {
        fn label(&self) -> &Label {
            &self.label
        }

        fn clear(&self) {
            self.value.store(0, Relaxed);
        }
    }

    fn with_table(test: impl FnOnce(Table<'_, Plain>)) {
        let slots: Vec<Plain> = (0..32).map(|_| Plain::default()).collect();
        let index: Vec<AtomicU32> = (0..64).map(|_| AtomicU32::new(0)).collect();
        test(Table { slots: &slots, index: &index, state: &State::default() });
    }

    fn key(name: &str, hash: u64) -> Key<'_> {
        Key { hash, owner: 0, name: name.as_bytes() }
    }

    /// Guards against slots lost behind others of the same hash, when those are given up too.
    #[test]
    fn slots_are_found_whatever_their_hash() {
        for spread in [0, 1, 31, u64::MAX / 64] {
            with_table(|table| {
                let name = |n: u64| format!("peer {n}");
                for n in 0..32 {
                    let place = table.add(key(&name(n), n * spread), n).unwrap();
                    table.slots[place].value.store(n, Relaxed);
                }
                assert_eq!(table.add(key("one more", 7), 0), None);
                assert_eq!(table.count(false), 32);
                table.remove(|_, slot| slot.value.load(Relaxed).is_multiple_of(3));
                assert_eq!((table.count(false), table.count(true)), (21, 0));
                for n in 0..32 {
                    let found = table.find(key(&name(n), n * spread));
                    let value = found.map(|place| table.slots[place].value.load(Relaxed));
                    assert_eq!(value, (n % 3 != 0).then_some(n));
                }
                let place = table.add(key("one more", 7), 0).unwrap();
                assert_eq!(table.find(key("one more", 7)), Some(place));
                assert_eq!(table.slots[place].value.load(Relaxed), 0);
                assert_eq!(table.used().count(), 22);
            });
        }
    }

    /// Guards against one peer's counts going to another of the same name or the same hash.
    #[test]
    fn owner_and_name_have_to_match() {
        with_table(|table| {
            let a = table.add(key("a", 5), 0).unwrap();
            let other = Key { owner: 1, ..key("a", 5) };
            assert_eq!(table.find(other), None);
            let b = table.add(other, 0).unwrap();
            assert_ne!(a, b);
            assert_eq!(table.find(key("a", 5)), Some(a));
            assert_eq!(table.find(key("b", 5)), None);
        });
    }

    /// Guards against an index that a killed process left half made.
    #[test]
    fn a_killed_writer_is_repaired() {
        with_table(|table| {
            for n in 0..10 {
                table.add(key(&format!("{n}"), n), n);
            }
            table.state.unfinished.store(1, Relaxed);
            table.state.named.store(99, Relaxed);
            table.index.iter().for_each(|place| place.store(0, Relaxed));
            assert_eq!(table.find(key("3", 3)), None);
            table.repair();
            assert_eq!(table.count(false), 10);
            for n in 0..10 {
                assert!(table.find(key(&format!("{n}"), n)).is_some());
            }
        });
    }

    #[test]
    fn nonsense_in_the_index_is_survived() {
        with_table(|table| {
            table.index.iter().for_each(|place| place.store(u32::MAX, Relaxed));
            assert_eq!(table.find(key("a", 1)), None);
            assert_eq!(table.add(key("a", 1), 0), None);
        });
    }
}
