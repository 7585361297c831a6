//! Finding names of a fixed set.

use crate::document::Name;
use std::sync::OnceLock;

/// A set of names, each with its number: made when a name is looked for first, as most types of a schema are never met.
#[derive(Debug, Default)]
pub struct Names(OnceLock<Slots>);

/// A hash table.
#[derive(Debug)]
pub(crate) struct Slots(Box<[Slot]>);

/// A slot of a hash table; an empty one has no text.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    name: Name,
    number: u32,
    text: Option<&'static str>,
}

impl Names {
    /// A set that is not made yet.
    pub const fn new() -> Self {
        Names(OnceLock::new())
    }

    /// The table, where `names` are all there are.
    #[inline]
    pub(crate) fn slots<I>(&self, names: impl FnOnce() -> I) -> &Slots
    where
        I: Iterator<Item = &'static str>,
    {
        match self.0.get() {
            Some(slots) => slots,
            None => self.0.get_or_init(|| make(names().collect())),
        }
    }
}

impl Slots {
    /// The number of a name, whose text is asked for if it is long.
    #[inline]
    pub(crate) fn find<'t>(&self, name: Name, text: impl Fn() -> &'t [u8]) -> Option<u32> {
        let mask = self.0.len().wrapping_sub(1);
        let mut at = name.hash as usize & mask;
        loop {
            // There are twice as many slots as names, so that an empty one ends the search.
            let slot = self.0.get(at)?;
            if slot.name == name && (name.is_all() || slot.text.map(str::as_bytes) == Some(text())) {
                // The empty text looks like an empty slot.
                return slot.text.map(|_| slot.number);
            }
            slot.text?;
            at = (at + 1) & mask;
        }
    }
}

#[cold]
#[inline(never)]
fn make(names: Vec<&'static str>) -> Slots {
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
                number,
                text: Some(text),
            };
        }
    }
    Slots(slots.into_boxed_slice())
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
        let names = Names::new();
        let slots = names.slots(|| long.into_iter());
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
