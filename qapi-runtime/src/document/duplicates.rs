//! Whether an object has a key twice.
//!
//! Objects are small: a key is looked for by its hash among those before it. A peer could send many keys with one hash,
//! so that a large object gets a table that is safe against it.

use super::Token;
use std::collections::HashSet;

/// Objects of more keys than this get a table.
const FEW: u32 = 48;

/// Whether one of the first `count` keys of the object at `object` is there twice, where `text` has the strings.
#[inline]
pub(super) fn any(tokens: &[Token], text: &[u8], object: u32, count: u32) -> bool {
    if count < 2 {
        return false;
    }
    if count > FEW {
        return in_large(tokens, text, object, count);
    }
    // A bit for each key so far, by its hash: a new bit is a new key.
    let mut seen = [0_u64; 16];
    let mut keys = Keys::of(tokens, object);
    for number in 0..count {
        let Some(key) = keys.next() else { break };
        let bit = 1_u64 << (key.hash % u64::BITS);
        let Some(seen) = seen.get_mut((key.hash / u64::BITS % 16) as usize) else {
            break;
        };
        if *seen & bit != 0 && is_among(tokens, text, object, number, key) {
            return true;
        }
        *seen |= bit;
    }
    false
}

/// Whether a key is among the first `count`.
#[inline(never)]
fn is_among(tokens: &[Token], text: &[u8], object: u32, count: u32, key: Key) -> bool {
    let mut others = Keys::of(tokens, object).take(count as usize);
    others.any(|other| other.hash == key.hash && other.text(text) == key.text(text))
}

#[cold]
#[inline(never)]
fn in_large(tokens: &[Token], text: &[u8], object: u32, count: u32) -> bool {
    let mut known = HashSet::with_capacity(count as usize);
    let mut keys = Keys::of(tokens, object).take(count as usize);
    keys.any(|key| !known.insert(key.text(text)))
}

/// Where a key is in the text, and its hash.
#[derive(Debug, Clone, Copy)]
struct Key {
    start: u32,
    end: u32,
    hash: u32,
}

impl Key {
    fn text(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// The keys of an object; without end, if that is still being read.
struct Keys<'t> {
    tokens: &'t [Token],
    next: usize,
}

impl<'t> Keys<'t> {
    #[inline]
    fn of(tokens: &'t [Token], object: u32) -> Self {
        Keys {
            tokens,
            next: object as usize + 1,
        }
    }
}

impl Iterator for Keys<'_> {
    type Item = Key;

    #[inline]
    fn next(&mut self) -> Option<Key> {
        let Some(Token::String { start, end, hash }) = self.tokens.get(self.next) else {
            return None;
        };
        let value = self.next + 1;
        self.next = match self.tokens.get(value) {
            Some(Token::Array { end, .. } | Token::Object { end, .. }) => *end as usize,
            _ => value + 1,
        };
        Some(Key {
            start: *start,
            end: *end,
            hash: *hash,
        })
    }
}
