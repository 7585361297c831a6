//! A bounded cache of metadata pieces with clock eviction. Dirty pieces are never evicted.
//!
//! Knows neither what its values mean nor how they reach the disk.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A hasher for cluster and slice numbers: one multiplication. Keys are numbers that the image's owner can choose,
/// but a bad distribution costs only time on that owner's own image.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

pub(super) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;
pub(super) type NumberSet = std::collections::HashSet<u64, BuildHasherDefault<NumberHasher>>;

#[derive(Debug)]
struct Slot<V> {
    key: u64,
    value: V,
    /// Counts changes, so that a write-back can tell whether what it wrote is still current.
    version: u64,
    dirty: bool,
    recent: bool,
}

/// The cache.
#[derive(Debug)]
pub(super) struct Cache<V> {
    map: NumberMap<usize>,
    slots: Vec<Slot<V>>,
    hand: usize,
    capacity: usize,
    dirty: BTreeSet<u64>,
}

impl<V> Cache<V> {
    /// A cache of `capacity` pieces, at least two.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            map: NumberMap::default(),
            slots: Vec::new(),
            hand: 0,
            capacity: capacity.max(2),
            dirty: BTreeSet::new(),
        }
    }

    /// Changes how many pieces may be held.
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity.max(2);
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.map.contains_key(&key)
    }

    /// Forgets clean pieces that were not used since this was called last, and gives their memory back.
    pub(super) fn drop_unused(&mut self) {
        let mut at = 0;
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.dirty || slot.recent {
                slot.recent = false;
                at += 1;
            } else {
                self.drop_slot(at);
            }
        }
        self.slots.shrink_to_fit();
        self.map.shrink_to_fit();
    }

    /// A piece, if held.
    pub(super) fn get(&mut self, key: u64) -> Option<&V> {
        let slot = self.slots.get_mut(*self.map.get(&key)?)?;
        slot.recent = true;
        Some(&slot.value)
    }

    /// A piece to change; it is dirty from now on.
    pub(super) fn change(&mut self, key: u64) -> Option<&mut V> {
        let slot = self.slots.get_mut(*self.map.get(&key)?)?;
        slot.recent = true;
        slot.version += 1;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.insert(key);
        }
        Some(&mut slot.value)
    }

    /// Whether so much is dirty that it should be written back before more gets dirty.
    pub(super) fn crowded(&self) -> bool {
        self.dirty.len() >= self.capacity.div_ceil(2)
    }

    /// Takes a piece in. A clean one makes place; when all are dirty the cache grows past its bound by this one, which
    /// [`crowded`](Self::crowded) then shows.
    pub(super) fn insert(&mut self, key: u64, value: V) {
        if let Some(slot) = self.map.get(&key).and_then(|at| self.slots.get_mut(*at)) {
            slot.value = value;
            slot.version += 1;
            return;
        }
        let slot = Slot {
            key,
            value,
            version: 0,
            dirty: false,
            recent: true,
        };
        while self.slots.len() > self.capacity {
            match self.victim() {
                Some(at) => self.drop_slot(at),
                None => break,
            }
        }
        if self.slots.len() >= self.capacity
            && let Some(at) = self.victim()
            && let Some(place) = self.slots.get_mut(at)
        {
            self.map.remove(&place.key);
            *place = slot;
            self.map.insert(key, at);
        } else {
            self.map.insert(key, self.slots.len());
            self.slots.push(slot);
        }
    }

    /// A clean slot that was not used lately.
    fn victim(&mut self) -> Option<usize> {
        // Two rounds: the first may only clear the marks.
        for _ in 0..self.slots.len() * 2 {
            self.hand = if self.hand + 1 < self.slots.len() {
                self.hand + 1
            } else {
                0
            };
            let slot = self.slots.get_mut(self.hand)?;
            if slot.dirty {
                continue;
            }
            if slot.recent {
                slot.recent = false;
            } else {
                return Some(self.hand);
            }
        }
        None
    }

    fn drop_slot(&mut self, at: usize) {
        if at < self.slots.len() {
            let gone = self.slots.swap_remove(at);
            self.map.remove(&gone.key);
            if let Some(moved) = self.slots.get(at) {
                self.map.insert(moved.key, at);
            }
        }
    }

    /// Forgets a piece, dirty or not.
    pub(super) fn remove(&mut self, key: u64) {
        self.dirty.remove(&key);
        if let Some(at) = self.map.get(&key).copied() {
            self.drop_slot(at);
        }
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn dirty_keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.dirty.iter().copied()
    }

    /// A dirty piece with its version.
    pub(super) fn peek(&self, key: u64) -> Option<(&V, u64)> {
        let slot = self.slots.get(*self.map.get(&key)?)?;
        Some((&slot.value, slot.version))
    }

    /// The piece is on disk as it was at `version`.
    pub(super) fn written(&mut self, key: u64, version: u64) {
        if let Some(slot) = self.map.get(&key).and_then(|at| self.slots.get_mut(*at))
            && slot.version == version
        {
            slot.dirty = false;
            self.dirty.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_pieces_go_and_dirty_ones_stay() {
        let mut cache = Cache::new(8);
        for key in 0..4 {
            cache.insert(key, key);
        }
        cache.change(3);
        cache.drop_unused();
        cache.get(1);
        cache.drop_unused();
        assert!(cache.contains(1) && cache.contains(3));
        assert!(!cache.contains(0) && !cache.contains(2));
        assert_eq!(cache.get(1), Some(&1));
    }

    #[test]
    fn dirty_pieces_stay() {
        let mut cache = Cache::new(4);
        for key in 0..4 {
            cache.insert(key, key * 10);
        }
        *cache.change(1).unwrap() += 1;
        for key in 10..100 {
            cache.insert(key, 0);
        }
        assert_eq!(cache.get(1), Some(&11));
        assert!(cache.slots.len() <= 4);
        let version = cache.peek(1).unwrap().1;
        *cache.change(1).unwrap() += 1;
        cache.written(1, version);
        assert!(cache.has_dirty(), "changed since");
        let version = cache.peek(1).unwrap().1;
        cache.written(1, version);
        assert!(!cache.has_dirty());
    }

    #[test]
    fn grows_only_while_all_is_dirty() {
        let mut cache = Cache::new(2);
        for key in 0..5 {
            cache.insert(key, ());
            cache.change(key);
        }
        assert!(cache.crowded());
        assert_eq!(cache.slots.len(), 5);
        for key in 0..5 {
            let version = cache.peek(key).unwrap().1;
            cache.written(key, version);
        }
        cache.insert(9, ());
        assert!(cache.slots.len() <= 3);
        assert!(cache.contains(9));
        for (key, at) in &cache.map {
            assert_eq!(cache.slots[*at].key, *key);
        }
    }
}
