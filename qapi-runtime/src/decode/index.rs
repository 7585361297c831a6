//! Finding the members of one object by name, when they do not come in the order in which they are asked for.
//!
//! A member that comes next costs one comparison and no table. The table is made when one does not: replies of
//! QEMU have their members in no order, and most optional members are not there at all.

use crate::document::{Document, key_hash};

/// Objects with more members are searched one by one.
const MEMBERS: usize = 48;
/// A power of two, so that a hash becomes a slot by its low bits.
const SLOTS: usize = 64;

/// The members of one object by their names' hashes.
#[derive(Debug)]
pub(super) struct Index {
    /// The number of a member plus one, at the first free slot from that of its name's hash on.
    slots: [u8; SLOTS],
    /// Where its key is, counted from the first key.
    places: [u16; MEMBERS],
}

impl Index {
    /// The index of the object whose keys are from `first` to `end`; nothing for a large one.
    pub(super) fn new(document: &Document, first: usize, end: usize, len: u32) -> Option<Index> {
        if len as usize > MEMBERS {
            return None;
        }
        let mut index = Index {
            slots: [0; SLOTS],
            places: [0; MEMBERS],
        };
        let mut at = first;
        for (number, place) in (1_u8..).zip(&mut index.places) {
            if at >= end {
                break;
            }
            *place = u16::try_from(at - first).ok()?;
            let mut slot = document.hash_at(at) as usize % SLOTS;
            // There are more slots than members, so that one is free.
            while index.slots.get(slot).is_some_and(|taken| *taken != 0) {
                slot = (slot + 1) % SLOTS;
            }
            if let Some(slot) = index.slots.get_mut(slot) {
                *slot = number;
            }
            at = document.after(at + 1);
        }
        Some(index)
    }

    /// Where the key `name` is, and which member that is.
    pub(super) fn find(&self, document: &Document, first: usize, name: &str) -> Option<(usize, u32)> {
        let mut slot = key_hash(name.as_bytes()) as usize % SLOTS;
        loop {
            let number = u32::from(*self.slots.get(slot)?).checked_sub(1)?;
            let at = first + usize::from(*self.places.get(number as usize)?);
            if document.key_at(at) == name.as_bytes() {
                return Some((at, number));
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}
