//! The text of a document: all its strings, one behind the other.
//!
//! Strings of messages are short, so that calling a function to copy each would take longer than copying it: the
//! pool keeps room behind its text and copies whole blocks, of which it keeps what belongs to the string.

/// So many bytes are looked at and copied at once.
const BLOCK: usize = 16;

/// Text, and room behind it.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Up to `used` this is UTF-8; behind it is room with anything in it.
    bytes: Vec<u8>,
    used: usize,
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        let text = self.as_bytes().to_vec();
        Pool {
            used: text.len(),
            bytes: text,
        }
    }
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// A part of the text.
    #[inline]
    pub(super) fn get(&self, start: u32, end: u32) -> &str {
        // SAFETY: what is added is UTF-8: `push` takes a `str`, and `take_ascii` keeps only bytes below 0x80.
        let text = unsafe { std::str::from_utf8_unchecked(self.as_bytes()) };
        text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// A part of the text, to compare.
    #[inline]
    pub(super) fn bytes(&self, start: u32, end: u32) -> &[u8] {
        self.as_bytes()
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// The first sixteen bytes of a part of the text, with anything behind it if it is shorter.
    #[inline(always)]
    pub(super) fn block(&self, start: u32, end: u32) -> u128 {
        let from = start as usize;
        // There mostly is room behind the text, so that sixteen bytes can be read where fewer are meant.
        match self
            .bytes
            .get(from..from + BLOCK)
            .and_then(|room| room.first_chunk())
        {
            Some(block) => u128::from_le_bytes(*block),
            None => self.first_of_last(from, end.wrapping_sub(start) as usize),
        }
    }

    #[cold]
    #[inline(never)]
    fn first_of_last(&self, start: usize, len: usize) -> u128 {
        let rest = self.bytes.get(start..).unwrap_or_default();
        super::first_block(rest.get(..len).unwrap_or_default())
    }

    /// Empties the pool; room for more than `keep_bytes` is given back.
    pub(super) fn clear(&mut self, keep_bytes: usize) {
        self.used = 0;
        if self.bytes.len() > keep_bytes {
            self.bytes.truncate(keep_bytes);
            self.bytes.shrink_to_fit();
        }
    }

    /// Makes room for so many bytes more.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.used < more {
            self.make_room(more);
        }
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        let end = self.used + text.len();
        if end > self.bytes.len() {
            self.make_room(text.len());
        }
        if let Some(room) = self.bytes.get_mut(self.used..end) {
            room.copy_from_slice(text.as_bytes());
            self.used = end;
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, more: usize) {
        let wanted = (self.used + more).max(2 * self.bytes.len()).max(64);
        self.bytes.resize(wanted, 0);
    }

    /// To add strings of which no one is longer than `more` bytes, nor all together.
    #[inline]
    pub(super) fn adding(&mut self, more: usize) -> Adding<'_> {
        self.reserve(more + 2 * BLOCK);
        Adding {
            used: self.used,
            room: &mut self.bytes,
            text: &mut self.used,
        }
    }
}

/// A pool to which strings are being added; it has them when this is finished.
pub(super) struct Adding<'p> {
    room: &'p mut [u8],
    /// Up to here `room` is UTF-8.
    used: usize,
    text: &'p mut usize,
}

impl Adding<'_> {
    /// How long the text is.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// All text and the room behind it.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.room
    }

    /// The pool has the strings from now on.
    #[inline]
    pub(super) fn finish(self) {
        *self.text = self.used;
    }

    /// Adds the bytes of `input` from `from` on up to the next double quote, if they are ASCII without control characters and
    /// backslashes; how many that are, and their hash if it is wanted. Else nothing is added.
    #[inline(always)]
    pub(super) fn take(&mut self, input: &[u8], from: usize, hashed: bool) -> Option<(usize, u32)> {
        let last;
        let block = match input.get(from..)?.first_chunk::<BLOCK>() {
            Some(block) => block,
            None => {
                last = last_block(input, from);
                &last
            }
        };
        if let Some(taken) = self.take_short(block, hashed)? {
            return Some(taken);
        }
        let start = self.used;
        let (len, hash) = take_long(self.room, start, input, from, hashed)?;
        self.used = start + len;
        Some((len, hash))
    }

    /// The same for a string that begins with these bytes. If it does not end among them it is not added, and `Some(None)` is the
    /// answer.
    #[inline(always)]
    pub(super) fn take_short(&mut self, block: &[u8; BLOCK], hashed: bool) -> Option<Option<(usize, u32)>> {
        let start = self.used;
        *self.room.get_mut(start..)?.first_chunk_mut::<BLOCK>()? = *block;
        let special = special_bytes(block);
        if special.any == 0 {
            return Some(None);
        }
        let len = special.any.trailing_zeros() as usize;
        if special.quotes >> len & 1 == 0 {
            return None;
        }
        let hash = if hashed {
            super::hash_of_block(super::first_bytes(block, len), len)
        } else {
            0
        };
        self.used = start + len;
        Some(Some((len, hash)))
    }

    /// Whether the text has `len` bytes from `start` on that these bytes begin with; not if these are too few.
    #[inline(always)]
    pub(super) fn has(&self, start: u32, len: usize, bytes: &[u8; 2 * BLOCK]) -> bool {
        let Some(text) = self.room.get(start as usize..).and_then(<[u8]>::first_chunk) else {
            return false;
        };
        let same = same_bytes(text, bytes, 0);
        same >= len || same == BLOCK && BLOCK + same_bytes(text, bytes, BLOCK) >= len
    }

    /// To add some more strings.
    #[inline(always)]
    pub(super) fn nested(&mut self) -> Adding<'_> {
        Adding {
            room: self.room,
            used: self.used,
            text: &mut self.used,
        }
    }
}

/// What [`Adding::take`] does with a string that is longer than a block, which is in the room already. It stands alone so
/// that what others are about has not to be in memory.
#[inline(never)]
fn take_long(room: &mut [u8], start: usize, input: &[u8], from: usize, hashed: bool) -> Option<(usize, u32)> {
    let mut len = BLOCK;
    loop {
        let last;
        let block = match input.get(from + len..)?.first_chunk::<BLOCK>() {
            Some(block) => block,
            None => {
                last = last_block(input, from + len);
                &last
            }
        };
        *room.get_mut(start + len..)?.first_chunk_mut::<BLOCK>()? = *block;
        let special = special_bytes(block);
        if special.any != 0 {
            let plain = special.any.trailing_zeros();
            len += plain as usize;
            if special.quotes >> plain & 1 == 0 {
                return None;
            }
            let hash = if hashed {
                super::key_hash(room.get(start..start + len)?)
            } else {
                0
            };
            return Some((len, hash));
        }
        len += BLOCK;
    }
}

/// The bytes of `input` from `at` on, filled up with zeroes.
#[cold]
#[inline(never)]
fn last_block(input: &[u8], at: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (to, from) in block.iter_mut().zip(input.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    block
}

/// Which bytes of a block are special: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Special {
    /// Double quotes.
    quotes: u32,
    /// These, backslashes, control characters and what is beyond ASCII.
    any: u32,
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
fn special_bytes(block: &[u8; BLOCK]) -> Special {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: the program is made for processors that have SSE2, and the pointer is to sixteen bytes.
    let (quotes, any) = unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast());
        let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"'.cast_signed()));
        let escapes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\'.cast_signed()));
        // As numbers with a sign, bytes beyond ASCII are below all others.
        let others = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
        let any = _mm_or_si128(others, _mm_or_si128(quotes, escapes));
        (_mm_movemask_epi8(quotes), _mm_movemask_epi8(any))
    };
    Special {
        quotes: quotes.cast_unsigned(),
        any: any.cast_unsigned(),
    }
}

/// How many of sixteen bytes, from `at` on, are the same before one is not.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
fn same_bytes(one: &[u8; 2 * BLOCK], other: &[u8; 2 * BLOCK], at: usize) -> usize {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
    let (Some(one), Some(other)) = (one.get(at..at + BLOCK), other.get(at..at + BLOCK)) else {
        return 0;
    };
    // SAFETY: the program is made for processors that have SSE2, and the pointers are to sixteen bytes.
    let same = unsafe {
        let one = _mm_loadu_si128(one.as_ptr().cast());
        let other = _mm_loadu_si128(other.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(one, other))
    };
    same.trailing_ones() as usize
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
fn same_bytes(one: &[u8; 2 * BLOCK], other: &[u8; 2 * BLOCK], at: usize) -> usize {
    same_bytes_portably(one, other, at)
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
fn same_bytes_portably(one: &[u8; 2 * BLOCK], other: &[u8; 2 * BLOCK], at: usize) -> usize {
    let pairs = one.iter().zip(other).skip(at).take(BLOCK);
    pairs.take_while(|(one, other)| one == other).count()
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
fn special_bytes(block: &[u8; BLOCK]) -> Special {
    special_bytes_portably(block)
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
#[inline(always)]
fn special_bytes_portably(block: &[u8; BLOCK]) -> Special {
    let mut special = Special { quotes: 0, any: 0 };
    for (place, byte) in block.iter().enumerate() {
        let is_quote = *byte == b'"';
        special.quotes |= u32::from(is_quote) << place;
        special.any |= u32::from(is_quote || *byte == b'\\' || !(0x20..0x80).contains(byte)) << place;
    }
    special
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::key_hash;

    /// What is taken of bytes behind a quote.
    fn taken(bytes: &[u8]) -> Option<(String, u32)> {
        let mut pool = Pool::default();
        pool.push("é");
        let mut adding = pool.adding(bytes.len());
        let taken = adding.take(bytes, 0, true);
        adding.finish();
        let text = pool.get(0, u32::try_from(pool.len()).unwrap());
        assert_eq!(text.len(), 2 + taken.map_or(0, |(len, _)| len));
        Some((text.strip_prefix('é').unwrap().to_owned(), taken?.1))
    }

    #[test]
    fn strings_up_to_their_quote() {
        let long = "0123456789abcdef".repeat(40);
        for (bytes, expected) in [
            ("abc\" ", Some("abc")),
            ("abcdefghijklmnop\"", Some("abcdefghijklmnop")),
            ("it's this one\" ", Some("it's this one")),
            ("a'b\\\" ", None),
            ("abcdefghijk", None),
            ("abcdefghijklmnop", None),
            ("ab\u{e9}cdefgh\"", None),
            ("ab\tcdefghijkl\"", None),
            ("\"", Some("")),
            ("", None),
            ("\u{7f}\"", Some("\u{7f}")),
            (&(long.clone() + "\""), Some(&long)),
            (&(long.clone() + "\n\""), None),
        ] {
            let expected = expected.map(|text| (text.to_owned(), key_hash(text.as_bytes())));
            assert_eq!(taken(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    /// A byte that differs at every place, against the plain rule.
    #[test]
    fn same_up_to_a_place() {
        for place in 0..2 * BLOCK {
            let one = [b'x'; 2 * BLOCK];
            let mut other = one;
            other[place] = b'y';
            for at in [0, BLOCK] {
                let expected = same_bytes_portably(&one, &other, at);
                assert_eq!(same_bytes(&one, &other, at), expected);
                assert_eq!(expected, if place < at { BLOCK } else { BLOCK.min(place - at) });
            }
        }
    }

    /// Every byte at every place, against the plain rule.
    #[test]
    fn every_byte() {
        for byte in 0..=u8::MAX {
            for place in 0..40 {
                let mut bytes = [b'x'; 41];
                bytes[40] = b'"';
                bytes[place] = byte;
                let expected = match byte {
                    b'"' => Some(place),
                    b'\\' | 0..0x20 | 0x80.. => None,
                    _ => Some(40),
                };
                let len = taken(&bytes).map(|(text, _)| text.len());
                assert_eq!(len, expected, "{byte} at {place}");
                let block = bytes.first_chunk().unwrap();
                assert_eq!(special_bytes(block), special_bytes_portably(block));
            }
        }
    }

    #[test]
    fn hashes_are_those_of_names() {
        let text = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        for len in 0..text.len() {
            let text = &text[..len];
            for behind in ["", "more and more and more"] {
                let (_, hash) = taken(format!("{text}\"{behind}").as_bytes()).unwrap();
                assert_eq!(hash, key_hash(text.as_bytes()));
            }
        }
    }

    #[test]
    fn room_is_given_back() {
        let mut pool = Pool::default();
        pool.push(&"x".repeat(10_000));
        pool.clear(100);
        assert!(pool.bytes.capacity() <= 200);
        assert_eq!(pool.len(), 0);
        pool.push("é");
        assert_eq!(pool.get(0, 2), "é");
        assert_eq!(pool.get(0, 1), "");
    }
}
