//! Which keys an object has so far, to tell when one comes twice.
//!
//! Objects are small: a new key is looked for by its hash among the others. A peer could send many keys with one hash,
//! so that a large object gets a table that is safe against it.

use crate::document::Document;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;

/// Objects of more keys than this get a table.
const FEW: usize = 48;

/// The keys of all open objects, those of an inner one behind those of the outer.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Hash and place in the document.
    keys: Vec<(u32, u32)>,
    levels: Vec<Level>,
    /// The tables of large objects, each with the level of `keys` at which its object begins.
    tables: Vec<(u32, Table)>,
    hasher: RandomState,
}

/// Where a key is in the document, by a hash that nobody can foresee.
type Table = HashMap<u64, u32>;

/// The keys of one object.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where they begin.
    from: u32,
    /// A bit for each key so far, by its hash: a new bit is a new key.
    seen: [u64; 4],
}

impl Keys {
    /// Begins an object.
    #[inline]
    pub(super) fn enter(&mut self) {
        self.levels.push(Level {
            from: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            seen: [0; 4],
        });
    }

    /// Ends the innermost object.
    #[inline]
    pub(super) fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        self.keys.truncate(level.from as usize);
        if let Some((from, _)) = self.tables.last()
            && *from == level.from
        {
            self.tables.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.levels.clear();
        self.tables.clear();
    }

    pub(super) fn held_bytes(&self) -> usize {
        let tables = self
            .tables
            .iter()
            .map(|(_, table)| table.capacity() * 2 * size_of::<u64>());
        self.keys.len() * size_of::<(u32, u32)>() + tables.sum::<usize>()
    }

    /// Adds the key that is the last token of the document to the innermost object, the one at `object`; whether
    /// it was there already.
    #[inline]
    pub(super) fn add(&mut self, hash: u32, document: &Document, object: u32) -> bool {
        let place = document.len().saturating_sub(1);
        let Some(level) = self.levels.last_mut() else {
            return false;
        };
        let from = level.from;
        let bit = 1 << (hash % u64::BITS);
        let Some(seen) = level.seen.get_mut((hash / u64::BITS % 4) as usize) else {
            return false;
        };
        let is_new = *seen & bit == 0;
        *seen |= bit;
        if self.keys.len() - from as usize >= FEW {
            return self.add_to_table(from, document, object, place);
        }
        let known = !is_new && self.has(from, document, hash, place);
        self.keys.push((hash, place));
        known
    }

    /// Whether the object has the key at `place`.
    #[inline(never)]
    fn has(&self, from: u32, document: &Document, hash: u32, place: u32) -> bool {
        let keys = self.keys.get(from as usize..).unwrap_or_default();
        let mut alike = keys.iter().filter(|(other, _)| *other == hash);
        alike.any(|(_, other)| document.key_at(*other as usize) == document.key_at(place as usize))
    }

    #[cold]
    fn add_to_table(&mut self, from: u32, document: &Document, object: u32, place: u32) -> bool {
        let hasher = &self.hasher;
        let hash = |place: u32| hasher.hash_one(document.key_at(place as usize));
        if self.tables.last().is_none_or(|(of, _)| *of != from) {
            let keys = self.keys.get(from as usize..).unwrap_or_default();
            let table = keys.iter().map(|(_, place)| (hash(*place), *place)).collect();
            self.tables.push((from, table));
        }
        let Some((_, table)) = self.tables.last_mut() else {
            return false;
        };
        let key = document.key_at(place as usize);
        match table.entry(hash(place)) {
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                false
            }
            Entry::Occupied(found) if document.key_at(*found.get() as usize) == key => true,
            // Nobody will ever see this, but nothing speaks against two keys that have the same hash.
            Entry::Occupied(_) => {
                let mut members = document.cursor(object).members_until(place);
                members.any(|(other, _)| other.as_bytes() == key)
            }
        }
    }
}
