//! Finding names of a fixed set.

use crate::document::Name;

/// A set of names, each with its number: a hash table.
#[derive(Debug, Default)]
pub(crate) struct Names(Box<[Slot]>);

/// A slot of a hash table.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The name's first bytes.
    first: u128,
    /// The bits of them that are its own.
    mask: u128,
    /// How long it is; no name is as long as an empty slot says.
    len: u32,
    number: u32,
    text: &'static str,
}

impl Slot {
    const EMPTY: Slot = Slot {
        first: 0,
        mask: 0,
        len: u32::MAX,
        number: 0,
        text: "",
    };
}

impl Names {
    /// A set of names, numbered as they come; empty ones are passed over.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let mut slots = vec![Slot::EMPTY; (names.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (number, text) in (0_u32..).zip(names) {
            if text.is_empty() {
                continue;
            }
            let name = Name::of(text);
            let mut at = name.hash as usize & mask;
            while slots.get(at).is_some_and(|slot| slot.len != Slot::EMPTY.len) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Slot {
                    first: name.first,
                    mask: name.mask(),
                    len: name.len,
                    number,
                    text,
                };
            }
        }
        Names(slots.into_boxed_slice())
    }

    /// The number of a name, whose text is asked for if it is long.
    #[inline(always)]
    pub(crate) fn find<'t>(&self, name: Name, text: impl FnOnce() -> &'t [u8]) -> Option<u32> {
        if name.is_all() {
            self.search(name.hash, |slot| {
                // Of these the hash follows.
                slot.len == name.len && (slot.first ^ name.first) & slot.mask == 0
            })
        } else {
            self.find_long(name.hash, text())
        }
    }

    #[inline(never)]
    fn find_long(&self, hash: u32, text: &[u8]) -> Option<u32> {
        self.search(hash, |slot| slot.text.as_bytes() == text)
    }

    #[inline(always)]
    fn search(&self, hash: u32, is: impl Fn(&Slot) -> bool) -> Option<u32> {
        let mask = self.0.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.0.get(at)?;
            if is(slot) {
                return Some(slot.number);
            }
            // There are twice as many slots as names, so that an empty one ends the search.
            if slot.len == Slot::EMPTY.len {
                return None;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_others_are_not() {
        let long = [
            "a-name-of-more-than-sixteen",
            "a-name-if-more-than-sixteen",
            "x",
            "",
            "abcdefgh",
            "abcdefghi",
        ];
        let slots = Names::new(&long);
        for (number, text) in (0..).zip(long) {
            let expected = (!text.is_empty()).then_some(number);
            assert_eq!(slots.find(Name::of(text), || text.as_bytes()), expected, "{text}");
        }
        for text in [
            "a-name-xx-more-than-sixteen",
            "y",
            "abcdefg",
            "abcdefghj",
            "abcdefgh\0",
        ] {
            assert_eq!(slots.find(Name::of(text), || text.as_bytes()), None, "{text}");
        }
    }
}
