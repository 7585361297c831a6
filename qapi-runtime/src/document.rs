//! A scanned message: the flat tape that decoding walks, so that nothing is parsed twice.
//!
//! The scanner has already refused duplicate keys, bad escapes and numbers, and too deep nesting; a
//! [`Document`] is always well formed.

mod duplicates;
mod mode;
mod pool;
mod tokens;

use crate::policy::Policy;
pub(crate) use mode::Mode;
use pool::Pool;
use tokens::Tokens;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer that fits 64 bits with a sign.
    Int(i64),
    /// An integer above `i64::MAX` that fits 64 bits without a sign.
    UInt(u64),
    /// Any other number.
    Double(f64),
    /// A string: bytes `start..end` of the document's text pool, valid UTF-8.
    String {
        /// First byte.
        start: u32,
        /// One past the last byte.
        end: u32,
        /// Of an object's key, a hash, by which it is found among names; of other strings, anything.
        hash: u32,
    },
    /// An array; `end` is the index one past its last token.
    Array {
        /// One past the last token of the array.
        end: u32,
        /// How many elements.
        len: u32,
    },
    /// An object: alternating keys (String tokens) and values; `end` is the index one past its last token.
    Object {
        /// One past the last token of the object.
        end: u32,
        /// How many members.
        len: u32,
    },
}

/// One whole JSON value.
#[derive(Debug, Clone, Default)]
pub struct Document {
    tokens: Tokens,
    text: Pool,
    /// Every scalar is text: it came from a command line's `key=value`.
    keyval: bool,
}

/// A place in a document: one value.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    document: &'a Document,
    index: usize,
    mode: Mode,
}

/// A value is read twice if it does not fit: to say why takes longer than to see that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// A value by itself.
    #[default]
    Both,
    /// Whether the whole fits is all that matters.
    First,
    /// The whole does not fit; why?
    Second,
}

/// Builds a document value by value, in order.
#[derive(Debug, Default)]
pub struct Builder {
    document: Document,
    open: Vec<usize>,
}

impl Document {
    /// The value itself, unless the document is empty.
    pub fn root(&self) -> Option<Cursor<'_>> {
        if self.tokens.len() == 0 {
            None
        } else {
            Some(Cursor {
                document: self,
                index: 0,
                mode: Mode::default(),
            })
        }
    }

    /// Whether every scalar is text, to be read as the type that is wanted: made by [`Builder::keyval`].
    pub fn is_keyval(&self) -> bool {
        self.keyval
    }

    /// An object without members.
    pub(crate) fn empty_object() -> Document {
        let mut builder = Builder::default();
        builder.begin_object();
        builder.end();
        builder.finish()
    }

    /// The bytes of the key at an index.
    #[inline]
    pub(crate) fn key_at(&self, index: usize) -> &[u8] {
        match self.tokens.get(index) {
            Some(Token::String { start, end, .. }) => self.text.bytes(*start, *end),
            _ => &[],
        }
    }

    /// The text of a string token.
    #[inline]
    pub(crate) fn text(&self, start: u32, end: u32) -> &str {
        self.text.get(start, end)
    }

    #[inline]
    pub(crate) fn tokens(&self) -> &[Token] {
        self.tokens.as_slice()
    }

    /// The hash of the key at an index: [`key_hash`] of its bytes.
    #[inline]
    pub(crate) fn hash_at(&self, index: usize) -> u32 {
        match self.tokens.get(index) {
            Some(Token::String { hash, .. }) => *hash,
            _ => 0,
        }
    }

    /// The key at an index, to be looked up.
    #[inline(always)]
    pub(crate) fn name_at(&self, index: usize) -> Name {
        match self.tokens.get(index) {
            Some(Token::String { start, end, hash }) => self.name(*start, *end, *hash),
            _ => Name::default(),
        }
    }

    /// The key of a token.
    #[inline(always)]
    pub(crate) fn name(&self, start: u32, end: u32, hash: u32) -> Name {
        Name {
            first: self.text.block(start, end),
            len: end.wrapping_sub(start),
            hash,
        }
    }

    /// The index one past the last token of the value at an index.
    #[inline]
    pub(crate) fn after(&self, index: usize) -> usize {
        match self.tokens.get(index) {
            Some(Token::Array { end, .. } | Token::Object { end, .. }) => *end as usize,
            _ => index + 1,
        }
    }

    /// The value at an index, as a cursor.
    #[inline]
    pub(crate) fn cursor_at(&self, index: usize, mode: Mode) -> Cursor<'_> {
        Cursor {
            document: self,
            index,
            mode,
        }
    }

    /// Empties the document; buffers larger than `keep_bytes` are given back.
    pub(crate) fn clear(&mut self, keep_bytes: usize) {
        self.tokens.clear(keep_bytes / size_of::<Token>());
        self.text.clear(keep_bytes);
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.tokens.len() * size_of::<Token>() + self.text.len()
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> u32 {
        offset(self.tokens.len())
    }

    pub(crate) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// To add what so many bytes of a message are.
    #[inline]
    pub(crate) fn tape(&mut self, bytes: usize) -> Tape<'_> {
        Tape {
            tokens: &mut self.tokens,
            text: self.text.adding(bytes),
        }
    }

    /// Whether the object at `object`, which may still be read, has a key twice among its first `count` members.
    #[inline]
    pub(crate) fn has_duplicate(&self, object: u32, count: u32) -> bool {
        duplicates::any(self.tokens.as_slice(), self.text.as_bytes(), object, count)
    }

    /// Adds a string.
    pub(crate) fn push_str(&mut self, text: &str) {
        let start = offset(self.text.len());
        self.text.push(text);
        self.tokens.push(Token::String {
            start,
            end: offset(self.text.len()),
            hash: key_hash(text.as_bytes()),
        });
    }

    /// Ends the object or array at `at`, which has `count` members or elements.
    pub(crate) fn close(&mut self, at: u32, count: u32) {
        close(&mut self.tokens, at, count);
    }

    pub(crate) fn cursor(&self, index: u32) -> Cursor<'_> {
        Cursor {
            document: self,
            index: index as usize,
            mode: Mode::default(),
        }
    }
}

/// Ends the object or array at `at`, which has `count` members or elements.
#[inline]
fn close(tokens: &mut Tokens, at: u32, count: u32) {
    let after = offset(tokens.len());
    if let Some(Token::Array { end, len } | Token::Object { end, len }) = tokens.get_mut(at as usize) {
        *end = after;
        *len = count;
    }
}

/// A document to which the tokens of one buffer are being added; it has their text when this is finished.
pub(crate) struct Tape<'d> {
    tokens: &'d mut Tokens,
    text: pool::Adding<'d>,
}

impl Tape<'_> {
    /// How many tokens there are.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        offset(self.tokens.len())
    }

    #[inline]
    pub(crate) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// Where the next token is to be written; it is there when [`Tape::keep_next`] says so.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> &mut Token {
        self.tokens.next()
    }

    #[inline(always)]
    pub(crate) fn keep_next(&mut self) {
        self.tokens.keep_next();
    }

    /// Where the content of the object or array at `at` begins and ends, if it is of the kind of this token, and complete, and not
    /// empty.
    #[inline(always)]
    pub(crate) fn content(&self, at: u32, kind: Token) -> Option<(u32, u32)> {
        let end = match (self.tokens.get(at as usize)?, kind) {
            (Token::Object { end, .. }, Token::Object { .. }) => *end,
            (Token::Array { end, .. }, Token::Array { .. }) => *end,
            _ => return None,
        };
        let first = at.wrapping_add(1);
        (first < end).then_some((first, end))
    }

    /// To add members whose keys and values are short.
    #[inline(always)]
    pub(crate) fn short_members(&mut self) -> ShortMembers<'_> {
        let (done, room, used) = self.tokens.split();
        ShortMembers {
            done,
            pairs: room.as_chunks_mut().0.iter_mut(),
            used,
            text: self.text.nested(),
        }
    }

    /// Adds a key that `input` has from `from` on up to a double quote, if it needs no decoding; how many bytes it has, and
    /// their hash.
    #[inline(always)]
    pub(crate) fn take_key(&mut self, input: &[u8], from: usize) -> Option<(usize, u32)> {
        self.take(input, from, true)
    }

    /// The same for a string that is a value.
    #[inline(always)]
    pub(crate) fn take_value(&mut self, input: &[u8], from: usize) -> Option<usize> {
        self.take(input, from, false).map(|(len, _)| len)
    }

    #[inline(always)]
    fn take(&mut self, input: &[u8], from: usize, is_key: bool) -> Option<(usize, u32)> {
        let start = offset(self.text.len());
        let (len, hash) = self.text.take(input, from, is_key)?;
        self.tokens.push(Token::String {
            start,
            end: offset(self.text.len()),
            hash,
        });
        Some((len, hash))
    }

    /// As [`Document::has_duplicate`].
    #[inline]
    pub(crate) fn has_duplicate(&self, object: u32, count: u32) -> bool {
        duplicates::any(self.tokens.as_slice(), self.text.bytes(), object, count)
    }

    /// As [`Document::close`].
    #[inline]
    pub(crate) fn close(&mut self, at: u32, count: u32) {
        close(self.tokens, at, count);
    }

    /// The document has the text from now on.
    #[inline]
    pub(crate) fn finish(self) {
        self.text.finish();
    }
}

/// Longer keys are not looked for again.
pub(crate) const LONGEST_AGAIN: usize = 26;

/// Members that are being added to a document one by one, which has them when this is finished.
pub(crate) struct ShortMembers<'t> {
    done: &'t [Token],
    pairs: std::slice::IterMut<'t, [Token; 2]>,
    used: &'t mut usize,
    text: pool::Adding<'t>,
}

impl<'t> ShortMembers<'t> {
    /// Room for the next member's key and value, if there is any.
    #[inline(always)]
    pub(crate) fn room(&mut self) -> Option<&'t mut [Token; 2]> {
        self.pairs.next()
    }

    /// Adds the key at `at` again, if these bytes begin with it and a double quote; how many bytes it has.
    #[inline(always)]
    pub(crate) fn take_key_again(&self, at: u32, bytes: &[u8; 32], token: &mut Token) -> Option<usize> {
        let Some(key @ Token::String { start, end, .. }) = self.done.get(at as usize) else {
            return None;
        };
        let len = end.wrapping_sub(*start) as usize;
        if len <= LONGEST_AGAIN && bytes.get(len) == Some(&b'"') && self.text.has(*start, len, bytes) {
            *token = *key;
            Some(len)
        } else {
            None
        }
    }

    /// Where the value of the key at `at` is, if it is an object or array, else 0; and what comes behind it.
    #[inline(always)]
    pub(crate) fn behind_key(&self, at: u32) -> (u32, u32) {
        match self.done.get(at as usize + 1) {
            Some(Token::Array { end, .. } | Token::Object { end, .. }) => (at + 1, *end),
            _ => (0, at + 2),
        }
    }

    /// Adds a string that begins with these bytes and ends with a double quote among them, if it needs no decoding; how many
    /// bytes it has before that.
    #[inline(always)]
    pub(crate) fn take_value(&mut self, block: &[u8; 16], token: &mut Token) -> Option<usize> {
        let start = offset(self.text.len());
        let (len, hash) = self.text.take_short(block, false)??;
        let end = start.wrapping_add(offset(len));
        *token = Token::String { start, end, hash };
        Some(len)
    }

    /// The same for a key; also, its hash.
    #[inline(always)]
    pub(crate) fn take_key(&mut self, block: &[u8; 16], token: &mut Token) -> Option<(usize, u32)> {
        let start = offset(self.text.len());
        let (len, hash) = self.text.take_short(block, true)??;
        let end = start.wrapping_add(offset(len));
        *token = Token::String { start, end, hash };
        Some((len, hash))
    }

    /// So many tokens and the text that was taken are the document's.
    #[inline(always)]
    pub(crate) fn finish(self, tokens: usize) {
        *self.used += tokens;
        self.text.finish();
    }
}

impl<'a> Cursor<'a> {
    /// The same value, to be decoded under the input half of a policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.mode = self.mode.with_policy(policy);
        self
    }

    pub(crate) fn mode(self) -> Mode {
        self.mode
    }

    pub(crate) fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The document and the index of the value in it.
    pub(crate) fn place(self) -> (&'a Document, usize) {
        (self.document, self.index)
    }

    /// Where the value is, for [`Document::cursor`].
    pub(crate) fn place_in_document(self) -> u32 {
        offset(self.index)
    }

    /// What the value is.
    pub fn token(self) -> Token {
        self.document
            .tokens
            .get(self.index)
            .copied()
            .unwrap_or(Token::Null)
    }

    /// Whether the document has text for every scalar: see [`Document::is_keyval`].
    pub fn is_keyval(self) -> bool {
        self.document.keyval
    }

    /// The text of a string value.
    pub fn as_str(self) -> Option<&'a str> {
        match self.token() {
            Token::String { start, end, .. } => Some(self.document.text.get(start, end)),
            _ => None,
        }
    }

    /// The members of an object, in the order of the text; nothing for other values.
    pub fn members(self) -> Members<'a> {
        let (next, end) = match self.token() {
            Token::Object { end, .. } => (self.index + 1, end as usize),
            _ => (0, 0),
        };
        Members {
            document: self.document,
            next,
            end,
            mode: self.mode,
        }
    }

    /// A copy of the value as a document of its own.
    pub fn to_document(self) -> Document {
        let mut builder = Builder::default();
        builder.document.keyval = self.document.keyval;
        self.copy_into(&mut builder);
        builder.finish()
    }

    /// Values nest at most as deep as the scanner's limit allows, so the recursion is bounded.
    fn copy_into(self, builder: &mut Builder) {
        match self.token() {
            Token::String { .. } => builder.string(self.as_str().unwrap_or_default()),
            Token::Array { .. } => {
                builder.begin_array();
                for element in self.elements() {
                    element.copy_into(builder);
                }
                builder.end();
            }
            Token::Object { .. } => {
                builder.begin_object();
                for (key, value) in self.members() {
                    builder.string(key);
                    value.copy_into(builder);
                }
                builder.end();
            }
            scalar => builder.scalar(scalar),
        }
    }

    /// The elements of an array; nothing for other values.
    pub fn elements(self) -> Elements<'a> {
        let (next, end) = match self.token() {
            Token::Array { end, .. } => (self.index + 1, end as usize),
            _ => (0, 0),
        };
        Elements {
            document: self.document,
            next,
            end,
            mode: self.mode,
        }
    }

    /// The index one past this value's last token.
    fn after(self) -> usize {
        match self.token() {
            Token::Array { end, .. } | Token::Object { end, .. } => end as usize,
            _ => self.index + 1,
        }
    }
}

/// What a name is found by: its first bytes, which are all of it, unless it is longer than sixteen. Behind a shorter one there
/// may be anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Name {
    pub(crate) first: u128,
    pub(crate) len: u32,
    pub(crate) hash: u32,
}

impl Name {
    /// The same of a text.
    pub(crate) fn of(text: &str) -> Name {
        Name {
            first: first_block(text.as_bytes()),
            len: offset(text.len()),
            hash: key_hash(text.as_bytes()),
        }
    }

    /// The bits of the first bytes that belong to the name.
    pub(crate) fn mask(&self) -> u128 {
        first_bytes(&[0xFF; 16], self.len as usize)
    }

    /// Names of that length whose first bytes are the same are the same text.
    #[inline]
    pub(crate) fn is_all(&self) -> bool {
        self.len <= 16
    }
}

/// A hash of a key, to tell most keys apart: of its ends and its length. Keys that clash cost time, as long as
/// objects are small, and large ones are not trusted to it.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u32 {
    let mut block = first_block(key);
    if key.len() > 16
        && let Some(last) = key.last_chunk()
    {
        block = block.wrapping_add(u128::from_le_bytes(*last));
    }
    hash_of_block(block, key.len())
}

/// The hash of a key of so many bytes, sixteen at most.
#[inline]
fn hash_of_block(block: u128, len: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
    let (low, high) = (block as u64, (block >> 64) as u64);
    let mixed = (low ^ high.rotate_left(23) ^ len as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The high half of a product depends on all bits.
    (mixed >> 32) as u32
}

/// The first sixteen bytes, with zeroes behind a shorter text.
#[inline]
fn first_block(text: &[u8]) -> u128 {
    match text.first_chunk() {
        Some(block) => u128::from_le_bytes(*block),
        None => text
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u128::from(*byte)),
    }
}

/// The first `len` bytes of a block, with zeroes behind them.
#[inline(always)]
fn first_bytes(block: &[u8; 16], len: usize) -> u128 {
    /// All bits of so many bytes.
    const WANTED: [u128; 16] = {
        let mut wanted = [0; 16];
        let mut len = 1;
        while len < wanted.len() {
            wanted[len] = wanted[len - 1] << 8 | 0xFF;
            len += 1;
        }
        wanted
    };
    let block = u128::from_le_bytes(*block);
    match WANTED.get(len) {
        Some(wanted) => block & wanted,
        None => block,
    }
}

/// Iterates over an object's members.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    document: &'a Document,
    next: usize,
    end: usize,
    mode: Mode,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Cursor<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let key = Cursor {
            document: self.document,
            index: self.next,
            mode: self.mode,
        };
        let value = Cursor {
            document: self.document,
            index: self.next + 1,
            mode: self.mode,
        };
        self.next = value.after();
        Some((key.as_str().unwrap_or_default(), value))
    }
}

/// Iterates over an array's elements.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    document: &'a Document,
    next: usize,
    end: usize,
    mode: Mode,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Cursor<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let value = Cursor {
            document: self.document,
            index: self.next,
            mode: self.mode,
        };
        self.next = value.after();
        Some(value)
    }
}

impl Builder {
    /// A builder for a document in which every scalar is text (a command line's `key=value`).
    pub fn keyval() -> Self {
        let mut builder = Self::default();
        builder.document.keyval = true;
        builder
    }

    /// Adds `null`, a boolean or a number.
    pub fn scalar(&mut self, token: Token) {
        self.count();
        self.document.tokens.push(token);
    }

    /// Adds a string, or an object's key.
    pub fn string(&mut self, text: &str) {
        self.count();
        self.document.push_str(text);
    }

    /// Opens an array.
    pub fn begin_array(&mut self) {
        self.count();
        self.open.push(self.document.tokens.len());
        self.document.tokens.push(Token::Array { end: 0, len: 0 });
    }

    /// Opens an object.
    pub fn begin_object(&mut self) {
        self.count();
        self.open.push(self.document.tokens.len());
        self.document.tokens.push(Token::Object { end: 0, len: 0 });
    }

    /// Closes the innermost array or object.
    pub fn end(&mut self) {
        let after = offset(self.document.tokens.len());
        if let Some(at) = self.open.pop() {
            match self.document.tokens.get_mut(at) {
                Some(Token::Array { end, .. }) => *end = after,
                Some(Token::Object { end, len }) => {
                    *end = after;
                    // Keys were counted like values.
                    *len /= 2;
                }
                _ => {}
            }
        }
    }

    /// The finished document.
    pub fn finish(self) -> Document {
        self.document
    }

    fn count(&mut self) {
        if let Some(&at) = self.open.last()
            && let Some(Token::Array { len, .. } | Token::Object { len, .. }) =
                self.document.tokens.get_mut(at)
        {
            *len += 1;
        }
    }
}

/// The scanner's limits are never so high that this cuts anything off. A document that is built otherwise, of more than 4 GiB,
/// would be a wrong one, but nothing is read outside of it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "see above; it is asked for every token"
)]
pub(crate) fn offset(at: usize) -> u32 {
    at as u32
}
