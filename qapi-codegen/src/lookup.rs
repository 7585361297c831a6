//! Looking things up by name, when nearly all collections are small.
//!
//! Definitions have a handful of members, so that comparing with each is quicker than hashing; enums may
//! have thousands of values, so that only hashing keeps the cost linear. [`Lookup`] does the one or the
//! other by its size. [`Map`] and [`Set`] are the standard collections with a hasher that suits short names.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;

/// A map with a fast hasher. Its order is no order.
pub(crate) type Map<K, V> = HashMap<K, V, RandomState>;
/// A set with a fast hasher. Its order is no order.
pub(crate) type Set<K> = HashSet<K, RandomState>;

/// An empty map with room for so many.
pub(crate) fn map_for<K, V>(capacity: usize) -> Map<K, V> {
    Map::with_capacity_and_hasher(capacity, RandomState::default())
}

/// Up to this many entries are compared one by one.
const FEW: usize = 16;

/// Keys with values, in the order of their insertion, each key once.
#[derive(Debug)]
pub(crate) struct Lookup<K, V> {
    entries: Vec<(K, V)>,
    /// Positions by key; empty as long as there are few.
    index: Map<K, usize>,
}

impl<K: Copy + Eq + Hash, V> Lookup<K, V> {
    /// An empty one with room for so many.
    pub fn with_capacity(capacity: usize) -> Lookup<K, V> {
        Lookup {
            entries: Vec::with_capacity(capacity),
            index: Map::default(),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        let at = if self.index.is_empty() {
            self.entries.iter().position(|(other, _)| *other == key)?
        } else {
            *self.index.get(&key)?
        };
        self.entries.get(at).map(|(_, value)| value)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Adds a key; if it is there already, changes nothing and gives back the value that is there.
    pub fn add(&mut self, key: K, value: V) -> Option<&V> {
        if self.contains(key) {
            return self.get(key);
        }
        if self.entries.len() >= FEW {
            if self.index.is_empty() {
                self.index
                    .extend(self.entries.iter().enumerate().map(|(at, (key, _))| (*key, at)));
            }
            self.index.insert(key, self.entries.len());
        }
        self.entries.push((key, value));
        None
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }
}

impl<K: Copy + Eq + Hash, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Lookup::with_capacity(0)
    }
}

/// A name that is equal to every name that generated code cannot tell from it: everything but letters,
/// digits and `_` counts as `_`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mangled<'a>(pub &'a str);

fn mangled(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'_' }
}

impl PartialEq for Mangled<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && std::iter::zip(self.0.bytes(), other.0.bytes())
                .all(|(a, b)| a == b || mangled(a) == mangled(b))
    }
}

impl Eq for Mangled<'_> {}

impl Hash for Mangled<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for chunk in self.0.as_bytes().chunks(8) {
            let word = chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(mangled(*byte)));
            state.write_u64(word);
        }
        state.write_usize(self.0.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_answer_alike() {
        let names: Vec<String> = (0..100).map(|n| format!("name-{n}")).collect();
        let mut lookup = Lookup::default();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(lookup.add(name.as_str(), at), None);
            assert_eq!(lookup.add(name.as_str(), 1_000), Some(&at));
        }
        for (at, name) in names.iter().enumerate() {
            assert_eq!(lookup.get(name), Some(&at));
        }
        assert_eq!(lookup.get("name"), None);
    }

    #[test]
    fn mangled_names_meet() {
        let mut lookup = Lookup::default();
        for n in 0..40 {
            let name: &'static str = Box::leak(format!("some-longer.name_{n}").into_boxed_str());
            assert_eq!(lookup.add(Mangled(name), n), None);
        }
        assert_eq!(lookup.get(Mangled("some_longer-name.7")), Some(&7));
        assert_eq!(lookup.get(Mangled("some_longer_name_40")), None);
    }
}
