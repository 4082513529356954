//! What was spoken of lately, up to a bound.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A cache of at most so many entries, which takes memory as it fills:
/// `LruCache::new` takes the table for all of them at once.
pub fn at_most<K: Hash + Eq, V>(most: NonZeroUsize) -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(most);
    cache
}
