//! A bounded map that evicts the least recently used entry.
//!
//! All entries are in one vector, in a linked list by index. With tens of thousands of
//! entries, a box and pointers for each would take most of the memory.

use std::hash::{BuildHasher as _, Hash};
use std::mem;
use std::num::NonZeroUsize;

use hashbrown::{DefaultHashBuilder, HashTable};

/// The slot that means "no entry".
const NONE: u32 = u32::MAX;

/// A bounded map that evicts the least recently used entry. Memory grows with the number
/// of entries.
#[derive(Clone, Debug)]
pub struct LruMap<K, V> {
    capacity: u32,
    entries: Vec<Entry<K, V>>,
    slots: HashTable<u32>,
    hasher: DefaultHashBuilder,
    newest: u32,
    oldest: u32,
    /// The neighbours of the newest entry before its last use.
    neighbours: [u32; 2],
}

#[derive(Clone, Debug)]
struct Entry<K, V> {
    newer: u32,
    older: u32,
    key: K,
    value: V,
}

impl<K: Hash + Eq, V> LruMap<K, V> {
    /// Makes an empty map.
    #[must_use]
    pub fn with_capacity(capacity: NonZeroUsize) -> Self {
        Self {
            capacity: u32::try_from(capacity.get()).unwrap_or(NONE),
            entries: Vec::new(),
            slots: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            newest: NONE,
            oldest: NONE,
            neighbours: [NONE; 2],
        }
    }

    /// Maximum number of entries.
    #[must_use]
    pub fn capacity(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.capacity as usize).unwrap_or(NonZeroUsize::MIN)
    }

    /// Lets the map have this many entries. Never fewer than before.
    pub fn allow(&mut self, capacity: NonZeroUsize) {
        let capacity = u32::try_from(capacity.get()).unwrap_or(NONE);
        self.capacity = self.capacity.max(capacity);
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the map has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a new entry would evict another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() == self.capacity as usize
    }

    /// The value of a key. Does not count as a use.
    #[must_use]
    pub fn peek(&self, key: &K) -> Option<&V> {
        let slot = self.slot(key)?;
        Some(&self.entries[slot as usize].value)
    }

    /// The value of a key. Counts as a use.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slot(key)?;
        Some(self.touch(slot))
    }

    /// The value of a key. Inserts a new one if there is none.
    pub fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.get_or_push(key, new).0
    }

    /// The value of a key. Inserts a new one if there is none. Returns the evicted entry too.
    pub fn get_or_push(&mut self, key: K, new: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        match self.slot(&key) {
            Some(slot) => (self.touch(slot), None),
            None => {
                let evicted = self.insert(key, new());
                (self.touch(self.newest), evicted)
            }
        }
    }

    /// Inserts an entry. Returns its value, and the replaced or evicted entry.
    pub fn push(&mut self, key: K, value: V) -> (&mut V, Option<(K, V)>) {
        match self.slot(&key) {
            Some(slot) => {
                let entry = self.touch(slot);
                let old = mem::replace(entry, value);
                (entry, Some((key, old)))
            }
            None => {
                let evicted = self.insert(key, value);
                (self.touch(self.newest), evicted)
            }
        }
    }

    /// Removes an entry. Frees memory when many entries are unused.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slot(key)?;
        let value = self.remove_slot(slot).1;
        let capacity = self.entries.capacity();
        if self.entries.len() < capacity / 4 * 3 {
            self.entries.shrink_to(capacity / 8 * 7);
        }
        Some(value)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|it| (&it.key, &it.value))
    }

    /// All entries, in no particular order. Counts as no use.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|it| (&it.key, &mut it.value))
    }

    /// Makes an entry the next one to evict.
    pub fn demote(&mut self, key: &K) {
        if let Some(slot) = self.slot(key) {
            self.unlink(slot);
            self.link(slot, self.oldest, NONE);
        }
    }

    fn slot(&self, key: &K) -> Option<u32> {
        self.likely_slot(key).or_else(|| self.find(key))
    }

    /// Looks for a key in three likely slots: the newest entry, and its neighbours before
    /// its last use. Timers of the same interval fire in the same order each time. These
    /// slots are in the CPU cache; a lookup in a large hash table misses it twice.
    fn likely_slot(&self, key: &K) -> Option<u32> {
        let [newer, older] = self.neighbours;
        let matches = |&slot: &u32| {
            let entry = self.entries.get(slot as usize);
            entry.is_some_and(|entry| entry.key == *key)
        };
        [self.newest, newer, older].into_iter().find(matches)
    }

    fn find(&self, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let matches = |&slot: &u32| self.entries[slot as usize].key == *key;
        self.slots.find(hash, matches).copied()
    }

    /// Makes an entry the most recently used.
    fn touch(&mut self, slot: u32) -> &mut V {
        if slot != self.newest {
            let entry = &self.entries[slot as usize];
            self.neighbours = [entry.newer, entry.older];
            self.unlink(slot);
            self.link(slot, NONE, self.newest);
        }
        &mut self.entries[slot as usize].value
    }

    /// Inserts an entry with a new key. Returns the evicted entry.
    fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let evicted = self.is_full().then(|| {
            self.make_final();
            self.remove_slot(self.oldest)
        });
        let slot = self.entries.len() as u32;
        let hash = self.hasher.hash_one(&key);
        self.entries.push(Entry {
            newer: NONE,
            older: NONE,
            key,
            value,
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.slots.insert_unique(hash, slot, |&slot| {
            hasher.hash_one(&entries[slot as usize].key)
        });
        self.link(slot, NONE, self.newest);
        evicted
    }

    /// Gives the hash table the size that it would come to sooner or later. A full map then
    /// takes no more memory, however long entries come and go: a table of less than half its
    /// entries is cleaned of removed ones in place, and any other grows (`reserve_rehash` of
    /// hashbrown).
    fn make_final(&mut self) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        let double = 2 * (entries.len() + 1);
        if self.slots.capacity() < double {
            let missing = double - self.slots.len();
            self.slots.reserve(missing, |&slot| {
                hasher.hash_one(&entries[slot as usize].key)
            });
        }
    }

    fn remove_slot(&mut self, slot: u32) -> (K, V) {
        self.unlink(slot);
        let hash = self.hasher.hash_one(&self.entries[slot as usize].key);
        if let Ok(found) = self.slots.find_entry(hash, |&it| it == slot) {
            found.remove();
        }
        let taken = self.entries.swap_remove(slot as usize);
        self.relink(self.entries.len() as u32, slot);
        (taken.key, taken.value)
    }

    /// Updates the links and the hash table after an entry moved to another slot.
    fn relink(&mut self, from: u32, to: u32) {
        let Some(entry) = self.entries.get(to as usize) else {
            return;
        };
        let (newer, older) = (entry.newer, entry.older);
        let hash = self.hasher.hash_one(&entry.key);
        if let Some(slot) = self.slots.find_mut(hash, |&it| it == from) {
            *slot = to;
        }
        *self.older_of(newer) = to;
        *self.newer_of(older) = to;
    }

    /// Links an entry between two neighbours.
    fn link(&mut self, slot: u32, newer: u32, older: u32) {
        let entry = &mut self.entries[slot as usize];
        (entry.newer, entry.older) = (newer, older);
        *self.older_of(newer) = slot;
        *self.newer_of(older) = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let entry = &self.entries[slot as usize];
        let (newer, older) = (entry.newer, entry.older);
        *self.older_of(newer) = older;
        *self.newer_of(older) = newer;
    }

    /// The link to the next older entry. For [`NONE`], the newest entry.
    fn older_of(&mut self, slot: u32) -> &mut u32 {
        match self.entries.get_mut(slot as usize) {
            Some(entry) => &mut entry.older,
            None => &mut self.newest,
        }
    }

    /// The link to the next newer entry. For [`NONE`], the oldest entry.
    fn newer_of(&mut self, slot: u32) -> &mut u32 {
        match self.entries.get_mut(slot as usize) {
            Some(entry) => &mut entry.newer,
            None => &mut self.oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;
    use std::iter;

    use proptest::prelude::*;

    use super::*;

    /// A simple model of the map, newest entry first.
    #[derive(Default)]
    struct Model(Vec<(u8, u32)>);

    impl Model {
        fn remove(&mut self, key: u8) -> Option<(u8, u32)> {
            let at = self.0.iter().position(|it| it.0 == key)?;
            Some(self.0.remove(at))
        }

        fn push(&mut self, key: u8, value: u32, max: usize) -> Option<(u8, u32)> {
            let old = self.remove(key);
            let evicted = (self.0.len() == max).then(|| self.0.pop()).flatten();
            self.0.insert(0, (key, value));
            old.or(evicted)
        }
    }

    /// All entries from newest to oldest, by the older links and by the newer links.
    fn walk(map: &LruMap<u8, u32>) -> [Vec<(u8, u32)>; 2] {
        let chain = |first: u32, next: fn(&Entry<u8, u32>) -> u32| {
            let entry = |slot: u32| map.entries.get(slot as usize);
            let chain = iter::successors(entry(first), |it| entry(next(it)));
            let chain = chain.take(map.len() + 1);
            chain.map(|it| (it.key, it.value)).collect::<Vec<_>>()
        };
        let mut walks = [
            chain(map.newest, |it| it.older),
            chain(map.oldest, |it| it.newer),
        ];
        walks[1].reverse();
        walks
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(u8),
        Get(u8),
        GetOrInsert(u8),
        Peek(u8),
        Remove(u8),
        Demote(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        (0..6, 0..12_u8).prop_map(|(op, key)| match op {
            0 => Op::Push(key),
            1 => Op::Get(key),
            2 => Op::GetOrInsert(key),
            3 => Op::Peek(key),
            4 => Op::Remove(key),
            _ => Op::Demote(key),
        })
    }

    proptest! {
        #[test]
        fn the_map_evicts_the_least_recently_used_entry(
            max in 1..8_usize,
            ops in prop::collection::vec(op(), 0..200),
        ) {
            let mut map = LruMap::with_capacity(NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN));
            let mut model = Model::default();
            for (value, op) in (0..).zip(ops) {
                match op {
                    Op::Push(key) => {
                        prop_assert_eq!(map.push(key, value).1, model.push(key, value, max));
                    }
                    Op::Get(key) => {
                        let found = model.remove(key);
                        model.0.splice(0..0, found);
                        prop_assert_eq!(map.get_mut(&key).copied(), found.map(|it| it.1));
                    }
                    Op::GetOrInsert(key) => {
                        let value = model.remove(key).map_or(value, |it| it.1);
                        model.push(key, value, max);
                        prop_assert_eq!(*map.get_or_insert_with(key, || value), value);
                    }
                    Op::Peek(key) => {
                        let found = model.0.iter().find(|it| it.0 == key);
                        prop_assert_eq!(map.peek(&key), found.map(|it| &it.1));
                    }
                    Op::Remove(key) => {
                        prop_assert_eq!(map.remove(&key), model.remove(key).map(|it| it.1));
                    }
                    Op::Demote(key) => {
                        map.demote(&key);
                        let found = model.remove(key);
                        model.0.extend(found);
                    }
                }
                prop_assert_eq!(map.len(), model.0.len());
                prop_assert_eq!(map.is_full(), model.0.len() == max);
                prop_assert_eq!(walk(&map), [model.0.clone(), model.0.clone()]);
            }
        }
    }

    thread_local! {
        /// How often a key of a table was hashed or compared.
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// A key of a table that counts what is done with it.
    #[derive(Clone, Copy, Debug)]
    struct CountedKey(u32);

    impl Hash for CountedKey {
        fn hash<H: Hasher>(&self, state: &mut H) {
            LOOKS.set(LOOKS.get() + 1);
            self.0.hash(state);
        }
    }

    impl PartialEq for CountedKey {
        fn eq(&self, other: &Self) -> bool {
            LOOKS.set(LOOKS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for CountedKey {}

    /// How often a key is hashed or compared, for a thousand events of so many sockets, which come
    /// in no order. At the same time sockets come and go.
    fn looks_per_thousand(sockets: u32) -> u64 {
        let max = NonZeroUsize::MIN.saturating_add(sockets as usize - 1);
        let mut table = LruMap::with_capacity(max);
        LOOKS.set(0);
        let events = 4 * u64::from(sockets);
        for n in 0..events {
            // One event in four is the first of a socket.
            let newest = (n / 4) as u32;
            let back = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
            let socket = match n % 4 {
                0 => newest,
                _ => newest - back.checked_rem(newest).unwrap_or_default(),
            };
            table.get_or_insert_with(CountedKey(socket), || ());
        }
        assert_eq!(table.len(), max.get());
        LOOKS.get() * 1_000 / events
    }

    /// What a table does for an event does not grow with the number of sockets in it.
    #[test]
    fn a_use_takes_no_more_among_a_million() {
        let most = 1 << 20;
        let (few, many) = (looks_per_thousand(most / 16), looks_per_thousand(most));
        println!(
            "{few} looks for a thousand events of {}, {many} of {most}",
            most / 16
        );
        assert!(many <= few + few / 20, "{few} looks, then {many}");
    }
}
