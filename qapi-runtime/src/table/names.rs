//! Finding names of a fixed set.

use crate::document::key_hash;
use std::sync::OnceLock;

/// A set of names, each with its number: made when a name is looked for first, as most types of a schema are never met.
#[derive(Debug, Default)]
pub struct Names(OnceLock<Box<[Slot]>>);

/// A slot of a hash table; an empty one has no name.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    number: u32,
    name: Option<&'static str>,
}

impl Names {
    /// A set that is not made yet.
    pub const fn new() -> Self {
        Names(OnceLock::new())
    }

    /// The number of the name with that hash, where `names` are all there are.
    #[inline]
    pub(crate) fn find<I>(&self, name: &[u8], hash: u32, names: impl FnOnce() -> I) -> Option<usize>
    where
        I: Iterator<Item = &'static str>,
    {
        let slots = match self.0.get() {
            Some(slots) => slots,
            None => self.0.get_or_init(|| make(names().collect())),
        };
        let mask = slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            // There are twice as many slots as names, so that an empty one ends the search.
            let slot = slots.get(at)?;
            let found = slot.name?;
            if slot.hash == hash && found.as_bytes() == name {
                return Some(slot.number as usize);
            }
            at = (at + 1) & mask;
        }
    }
}

#[cold]
#[inline(never)]
fn make(names: Vec<&'static str>) -> Box<[Slot]> {
    let mut slots = vec![Slot::default(); (names.len() * 2).next_power_of_two().max(2)];
    let mask = slots.len() - 1;
    for (number, name) in (0_u32..).zip(names) {
        if name.is_empty() {
            continue;
        }
        let hash = key_hash(name.as_bytes());
        let mut at = hash as usize & mask;
        while slots.get(at).is_some_and(|slot| slot.name.is_some()) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = Slot {
                hash,
                number,
                name: Some(name),
            };
        }
    }
    slots.into_boxed_slice()
}
