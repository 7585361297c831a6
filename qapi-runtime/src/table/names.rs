//! Finding names of a fixed set.

use crate::document::Name;

/// A set of names, each with its number: a hash table.
#[derive(Debug, Default)]
pub(crate) struct Names(Box<[Slot]>);

/// A slot of a hash table; an empty one has no text.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    name: Name,
    /// The bits of its first bytes that are its own.
    mask: u128,
    number: u32,
    text: Option<&'static str>,
}

impl Names {
    /// A set of names, numbered as they come; empty ones are passed over.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let mut slots = vec![Slot::default(); (names.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (number, text) in (0_u32..).zip(names) {
            if text.is_empty() {
                continue;
            }
            let name = Name::of(text);
            let mut at = name.hash as usize & mask;
            while slots.get(at).is_some_and(|slot| slot.text.is_some()) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Slot {
                    name,
                    mask: name.mask(),
                    number,
                    text: Some(text),
                };
            }
        }
        Names(slots.into_boxed_slice())
    }

    /// The number of a name, whose text is asked for if it is long.
    #[inline(always)]
    pub(crate) fn find<'t>(&self, name: Name, text: impl FnOnce() -> &'t [u8]) -> Option<u32> {
        if name.is_all() {
            self.search(name, |_| true)
        } else {
            self.find_long(name, text())
        }
    }

    #[inline(never)]
    fn find_long(&self, name: Name, text: &[u8]) -> Option<u32> {
        self.search(name, |found| found.as_bytes() == text)
    }

    #[inline(always)]
    fn search(&self, name: Name, is: impl Fn(&str) -> bool) -> Option<u32> {
        let mask = self.0.len().wrapping_sub(1);
        let mut at = name.hash as usize & mask;
        loop {
            // There are twice as many slots as names, so that an empty one ends the search.
            let slot = self.0.get(at)?;
            let text = slot.text?;
            // Of these the hash follows.
            if slot.name.len == name.len && (slot.name.first ^ name.first) & slot.mask == 0 && is(text) {
                return Some(slot.number);
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
