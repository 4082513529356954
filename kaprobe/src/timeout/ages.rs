//! The longest ages of each size: many ages in little memory.

/// The number of buckets: eight per octave, up to 49 days.
#[cfg(test)]
pub(super) const BUCKETS: usize = 8 * 32;

/// The longest age of each bucket, ms, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongestAges(Vec<u32>);

impl LongestAges {
    /// Adds an age. Returns whether it is the longest of its bucket.
    pub fn add(&mut self, age_ms: u64) -> bool {
        let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        let found = self
            .0
            .binary_search_by_key(&bucket(age_ms), |&it| bucket(it));
        match found {
            Ok(at) if age_ms <= self.0[at] => return false,
            Ok(at) => self.0[at] = age_ms,
            Err(at) => self.0.insert(at, age_ms),
        }
        true
    }

    /// The ages, ms, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.0.iter().map(|&age| u64::from(age))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The bucket of an age: its octave and the three bits below its highest bit.
fn bucket(age_ms: u32) -> usize {
    let octave = age_ms.max(1).ilog2();
    let eighth = (u64::from(age_ms) << 3 >> octave) & 7;
    octave as usize * 8 + eighth as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_age_and_cover_all_ages() {
        let ages = (3..32).flat_map(|bit| (8..16).map(move |eighths| eighths << (bit - 3)));
        let buckets: Vec<_> = ages.map(bucket).collect();
        assert!(buckets.is_sorted_by(|a, b| a < b), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(BUCKETS - 1)));
        assert_eq!((bucket(0), bucket(u32::MAX)), (0, BUCKETS - 1));
    }
}
