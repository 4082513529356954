//! A bounded map that evicts the least recently used entry.
//!
//! Entries lie side by side in one block, tied by their places in it: with tens of
//! thousands of them, boxes of their own and pointers would be most of the memory.

use std::hash::{BuildHasher as _, Hash};
use std::mem;
use std::num::NonZeroUsize;

use hashbrown::{DefaultHashBuilder, HashTable};

/// No entry's place.
const NONE: u32 = u32::MAX;

/// A map of a bounded number of entries: past that it evicts the least recently used one.
/// It takes memory as it fills.
#[derive(Debug)]
pub struct LruMap<K, V> {
    capacity: u32,
    entries: Vec<Entry<K, V>>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    newest: u32,
    oldest: u32,
    /// The neighbours that the newest entry had before it was used.
    neighbours: [u32; 2],
}

#[derive(Debug)]
struct Entry<K, V> {
    newer: u32,
    older: u32,
    key: K,
    value: V,
}

impl<K: Hash + Eq, V> LruMap<K, V> {
    /// An empty one.
    #[must_use]
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        Self {
            capacity: u32::try_from(capacity.get()).unwrap_or(NONE),
            entries: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            newest: NONE,
            oldest: NONE,
            neighbours: [NONE; 2],
        }
    }

    /// How many entries there can be.
    #[must_use]
    pub fn capacity(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.capacity as usize).unwrap_or(NonZeroUsize::MIN)
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next new entry takes the place of another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() == self.capacity as usize
    }

    /// The entry of this key, without counting as a use of it.
    #[must_use]
    pub fn peek(&self, key: &K) -> Option<&V> {
        let place = self.place(key)?;
        Some(&self.entries[place as usize].value)
    }

    /// The entry of this key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key)?;
        Some(self.touch(place))
    }

    /// The entry of this key, a new one where there was none.
    pub fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let place = match self.place(&key) {
            Some(place) => place,
            None => {
                self.insert(key, new());
                self.newest
            }
        };
        self.touch(place)
    }

    /// Puts an entry in; gives it, and what it replaces: the entry that had the key, or
    /// else the one that is evicted for it.
    pub fn push(&mut self, key: K, value: V) -> (&mut V, Option<(K, V)>) {
        match self.place(&key) {
            Some(place) => {
                let entry = self.touch(place);
                let old = mem::replace(entry, value);
                (entry, Some((key, old)))
            }
            None => {
                let evicted = self.insert(key, value);
                (self.touch(self.newest), evicted)
            }
        }
    }

    /// Takes an entry out. Memory is given back as they go.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key)?;
        let value = self.take(place).1;
        let room = self.entries.capacity();
        if self.entries.len() < room / 4 * 3 {
            self.entries.shrink_to(room / 8 * 7);
        }
        Some(value)
    }

    /// All entries, in no order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|it| (&it.key, &it.value))
    }

    /// Makes an entry the next to be evicted.
    pub fn demote(&mut self, key: &K) {
        if let Some(place) = self.place(key) {
            self.untie(place);
            self.tie(place, self.oldest, NONE);
        }
    }

    fn place(&self, key: &K) -> Option<u32> {
        self.likely_place(key).or_else(|| self.find(key))
    }

    /// The likely place of an entry: that of the newest, or of one of the neighbours that
    /// it had then. Timers of one interval fire in the same turn again. These entries are
    /// in the processor's cache, where a look into a table of tens of thousands waits for
    /// memory twice.
    fn likely_place(&self, key: &K) -> Option<u32> {
        let [newer, older] = self.neighbours;
        let is_it = |&place: &u32| {
            let entry = self.entries.get(place as usize);
            entry.is_some_and(|entry| entry.key == *key)
        };
        [self.newest, newer, older].into_iter().find(is_it)
    }

    fn find(&self, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let is_it = |&place: &u32| self.entries[place as usize].key == *key;
        self.places.find(hash, is_it).copied()
    }

    /// Makes an entry the most recently used one.
    fn touch(&mut self, place: u32) -> &mut V {
        if place != self.newest {
            let entry = &self.entries[place as usize];
            self.neighbours = [entry.newer, entry.older];
            self.untie(place);
            self.tie(place, NONE, self.newest);
        }
        &mut self.entries[place as usize].value
    }

    /// Puts in an entry whose key is new; gives the one that is evicted for it.
    fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let evicted = self.is_full().then(|| self.take(self.oldest));
        let place = self.entries.len() as u32;
        let hash = self.hasher.hash_one(&key);
        self.entries.push(Entry {
            newer: NONE,
            older: NONE,
            key,
            value,
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, place, |&place| {
            hasher.hash_one(&entries[place as usize].key)
        });
        self.tie(place, NONE, self.newest);
        evicted
    }

    fn take(&mut self, place: u32) -> (K, V) {
        self.untie(place);
        let hash = self.hasher.hash_one(&self.entries[place as usize].key);
        if let Ok(found) = self.places.find_entry(hash, |&it| it == place) {
            found.remove();
        }
        let taken = self.entries.swap_remove(place as usize);
        self.moved(self.entries.len() as u32, place);
        (taken.key, taken.value)
    }

    /// What was the last entry may now lie at another place: who knows it learns so.
    fn moved(&mut self, from: u32, to: u32) {
        let Some(entry) = self.entries.get(to as usize) else {
            return;
        };
        let (newer, older) = (entry.newer, entry.older);
        let hash = self.hasher.hash_one(&entry.key);
        if let Some(place) = self.places.find_mut(hash, |&it| it == from) {
            *place = to;
        }
        *self.older_of(newer) = to;
        *self.newer_of(older) = to;
    }

    /// Ties an entry in between these two, which are neighbours.
    fn tie(&mut self, place: u32, newer: u32, older: u32) {
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (newer, older);
        *self.older_of(newer) = place;
        *self.newer_of(older) = place;
    }

    fn untie(&mut self, place: u32) {
        let entry = &self.entries[place as usize];
        let (newer, older) = (entry.newer, entry.older);
        *self.older_of(newer) = older;
        *self.newer_of(older) = newer;
    }

    /// What comes after an entry; after none, the newest.
    fn older_of(&mut self, place: u32) -> &mut u32 {
        match self.entries.get_mut(place as usize) {
            Some(entry) => &mut entry.older,
            None => &mut self.newest,
        }
    }

    /// What comes before an entry; before none, the oldest.
    fn newer_of(&mut self, place: u32) -> &mut u32 {
        match self.entries.get_mut(place as usize) {
            Some(entry) => &mut entry.newer,
            None => &mut self.oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::*;

    /// The same, kept simply: the newest first.
    #[derive(Default)]
    struct Model(Vec<(u8, u32)>);

    impl Model {
        fn take(&mut self, key: u8) -> Option<(u8, u32)> {
            let at = self.0.iter().position(|it| it.0 == key)?;
            Some(self.0.remove(at))
        }

        fn push(&mut self, key: u8, value: u32, most: usize) -> Option<(u8, u32)> {
            let old = self.take(key);
            let evicted = (self.0.len() == most).then(|| self.0.pop()).flatten();
            self.0.insert(0, (key, value));
            old.or(evicted)
        }
    }

    /// All entries from the newest to the oldest, by either chain of ties.
    fn walk(recent: &LruMap<u8, u32>) -> [Vec<(u8, u32)>; 2] {
        let chain = |first: u32, next: fn(&Entry<u8, u32>) -> u32| {
            let entry = |place: u32| recent.entries.get(place as usize);
            let chain = iter::successors(entry(first), |it| entry(next(it)));
            let chain = chain.take(recent.len() + 1);
            chain.map(|it| (it.key, it.value)).collect::<Vec<_>>()
        };
        let mut walks = [
            chain(recent.newest, |it| it.older),
            chain(recent.oldest, |it| it.newer),
        ];
        walks[1].reverse();
        walks
    }

    #[derive(Clone, Debug)]
    enum Act {
        Push(u8),
        Get(u8),
        GetOrInsert(u8),
        Peek(u8),
        Remove(u8),
        Demote(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        (0..6, 0..12_u8).prop_map(|(act, key)| match act {
            0 => Act::Push(key),
            1 => Act::Get(key),
            2 => Act::GetOrInsert(key),
            3 => Act::Peek(key),
            4 => Act::Remove(key),
            _ => Act::Demote(key),
        })
    }

    proptest! {
        #[test]
        fn it_evicts_the_least_recently_used(
            most in 1..8_usize,
            acts in prop::collection::vec(act(), 0..200),
        ) {
            let mut recent = LruMap::with_capacity(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN));
            let mut model = Model::default();
            for (value, act) in (0..).zip(acts) {
                match act {
                    Act::Push(key) => {
                        prop_assert_eq!(recent.push(key, value).1, model.push(key, value, most));
                    }
                    Act::Get(key) => {
                        let found = model.take(key);
                        model.0.splice(0..0, found);
                        prop_assert_eq!(recent.get_mut(&key).copied(), found.map(|it| it.1));
                    }
                    Act::GetOrInsert(key) => {
                        let value = model.take(key).map_or(value, |it| it.1);
                        model.push(key, value, most);
                        prop_assert_eq!(*recent.get_or_insert_with(key, || value), value);
                    }
                    Act::Peek(key) => {
                        let found = model.0.iter().find(|it| it.0 == key);
                        prop_assert_eq!(recent.peek(&key), found.map(|it| &it.1));
                    }
                    Act::Remove(key) => {
                        prop_assert_eq!(recent.remove(&key), model.take(key).map(|it| it.1));
                    }
                    Act::Demote(key) => {
                        recent.demote(&key);
                        let found = model.take(key);
                        model.0.extend(found);
                    }
                }
                prop_assert_eq!(recent.len(), model.0.len());
                prop_assert_eq!(recent.is_full(), model.0.len() == most);
                prop_assert_eq!(walk(&recent), [model.0.clone(), model.0.clone()]);
            }
        }
    }
}
