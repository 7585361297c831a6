//! From tokens to a document: what may follow what, and where a message ends.
//!
//! A message ends when its braces and its brackets balance, each kind counted by itself, or when one
//! too many is closed. So a message with a mistake is still read to its end and gives one error.

mod members;
mod run;
mod scalar;

use super::{Limits, SyntaxError, lexeme};
use crate::document::{Document, Token};

/// What one token did: nothing yet, or it ended a message.
type Outcome = Option<Result<(), SyntaxError>>;

/// What may come next in an open object or array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// An array's first element or its end.
    ElementOrEnd,
    /// An element, after a comma.
    Element,
    /// A comma or the array's end.
    ElementComma,
    /// An object's first key or its end.
    KeyOrEnd,
    /// A key, after a comma.
    Key,
    /// The colon after a key.
    Colon,
    /// A member's value.
    Value,
    /// A comma or the object's end.
    MemberComma,
}

/// An open object or array.
#[derive(Debug, Clone, Copy)]
struct Frame {
    expect: Expect,
    /// A key may be there twice.
    doubtful: bool,
    /// The text of a key in it, however deep, may have been written otherwise than it is.
    decoded: bool,
    /// What it may be like.
    like: Like,
    /// Index of its token.
    token: u32,
    /// Elements or members so far.
    len: u32,
    /// A bit for each key so far, by its hash: a new bit is a new key.
    seen: u64,
}

/// Something complete that what is being read may be like: an earlier element of the same array, or what is at the same place in
/// such an element. Long replies are lists of objects with the same keys, which need not be read anew each time.
///
/// That they are the same is asked for each key. What is asked no more is whether a key was there before: it was not where
/// this is, as long as nothing was different.
#[derive(Debug, Clone, Copy, Default)]
struct Like {
    /// Of an object, where the key is that would be next; of an array, where an element is. 0 if there is nothing like it, and
    /// [`Like::END`] behind the last key.
    next: u32,
    /// Where the object ends.
    end: u32,
    /// Where the value of the last key is, if that is an object or an array.
    value: u32,
}

impl Like {
    /// No place of anything.
    const END: u32 = u32::MAX;
}

impl Frame {
    #[inline]
    fn new(expect: Expect, token: u32) -> Self {
        Frame {
            expect,
            doubtful: false,
            decoded: false,
            like: Like::default(),
            token,
            len: 0,
            seen: 0,
        }
    }

    fn is_object(&self) -> bool {
        !matches!(
            self.expect,
            Expect::ElementOrEnd | Expect::Element | Expect::ElementComma
        )
    }
}

/// Room for decoding a string that is kept for the next one.
const KEEP_DECODED_BYTES: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Grammar {
    document: Document,
    open: Vec<Frame>,
    /// The first mistake; the message is then only counted to its end.
    error: Option<SyntaxError>,
    braces: i64,
    brackets: i64,
    tokens: usize,
    size: usize,
    /// A string that is being decoded.
    decoded: String,
    /// The peer puts a blank behind colons and commas.
    spaced: bool,
}

impl Grammar {
    /// The message just finished.
    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    /// Token bytes of the message so far.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.document.held_bytes() + self.open.len() * size_of::<Frame>()
    }

    /// Begins a new message.
    pub(super) fn reset(&mut self, keep_bytes: usize) {
        self.document.clear(keep_bytes);
        self.open.clear();
        self.error = None;
        self.braces = 0;
        self.brackets = 0;
        self.tokens = 0;
        self.size = 0;
    }

    pub(super) fn punctuation(&mut self, byte: u8, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(1, limits) {
            return limit;
        }
        match byte {
            b'{' => self.braces += 1,
            b'}' => self.braces -= 1,
            b'[' => self.brackets += 1,
            b']' => self.brackets -= 1,
            _ => {}
        }
        if usize::try_from(self.braces + self.brackets).unwrap_or(0) > limits.depth {
            return Some(Err(SyntaxError::Depth));
        }
        if self.error.is_none() {
            let done = self.punctuate(byte);
            self.note(done);
        }
        self.outcome()
    }

    pub(super) fn string(&mut self, token: &[u8], plain: bool, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(token.len(), limits) {
            return limit;
        }
        if self.error.is_none() {
            let done = self.add_string(token, plain);
            self.note(done);
        }
        self.outcome()
    }

    pub(super) fn number(&mut self, token: &[u8], integral: bool, limits: &Limits) -> Outcome {
        self.scalar(token, limits, |token| lexeme::number(token, integral))
    }

    pub(super) fn keyword(&mut self, token: &[u8], limits: &Limits) -> Outcome {
        self.scalar(token, limits, |token| match token {
            b"true" => Ok(Token::Bool(true)),
            b"false" => Ok(Token::Bool(false)),
            b"null" => Ok(Token::Null),
            _ => Err(SyntaxError::Keyword(lexeme::for_message(token))),
        })
    }

    fn scalar(
        &mut self,
        token: &[u8],
        limits: &Limits,
        value: impl FnOnce(&[u8]) -> Result<Token, SyntaxError>,
    ) -> Outcome {
        if let Some(limit) = self.count(token.len(), limits) {
            return limit;
        }
        if self.error.is_none() {
            let done = self.add_scalar(token, value);
            self.note(done);
        }
        self.outcome()
    }

    /// Counts a token; an exceeded limit ends the message at once.
    #[inline]
    fn count(&mut self, bytes: usize, limits: &Limits) -> Option<Outcome> {
        self.tokens += 1;
        self.size += bytes;
        if self.size <= limits.message_bytes && self.tokens <= limits.tokens {
            return None;
        }
        Some(Some(Err(if self.size > limits.message_bytes {
            SyntaxError::Size
        } else {
            SyntaxError::Tokens
        })))
    }

    /// Keeps the first mistake. That a key is there twice is looked for at the end of its object; when another
    /// mistake comes before that end, one of the keys so far may be the first.
    fn note(&mut self, done: Result<(), SyntaxError>) {
        let Err(error) = done else { return };
        let mut objects = self.open.iter().filter(|frame| frame.is_object());
        let duplicate = objects.any(|object| self.document.has_duplicate(object.token, object.len));
        self.error = Some(if duplicate {
            SyntaxError::DuplicateKey
        } else {
            error
        });
    }

    /// Whether the message ends with the token just taken, and how.
    #[inline]
    fn outcome(&mut self) -> Outcome {
        if (self.braces > 0 || self.brackets > 0) && self.braces >= 0 && self.brackets >= 0 {
            return None;
        }
        Some(match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        })
    }

    fn punctuate(&mut self, byte: u8) -> Result<(), SyntaxError> {
        match byte {
            b'{' | b'[' => {
                self.before_value()?;
                let token = self.document.len();
                if byte == b'{' {
                    self.document.push(Token::Object { end: 0, len: 0 });
                    self.open.push(Frame::new(Expect::KeyOrEnd, token));
                } else {
                    self.document.push(Token::Array { end: 0, len: 0 });
                    self.open.push(Frame::new(Expect::ElementOrEnd, token));
                }
                Ok(())
            }
            _ => {
                let Some(frame) = self.open.last_mut() else {
                    return Err(SyntaxError::ExpectingValue);
                };
                let close = match (frame.expect, byte) {
                    (Expect::ElementOrEnd | Expect::ElementComma, b']') => true,
                    (Expect::KeyOrEnd | Expect::MemberComma, b'}') => true,
                    (Expect::ElementComma, b',') => {
                        frame.expect = Expect::Element;
                        false
                    }
                    (Expect::MemberComma, b',') => {
                        frame.expect = Expect::Key;
                        false
                    }
                    (Expect::Colon, b':') => {
                        frame.expect = Expect::Value;
                        false
                    }
                    (Expect::ElementComma, _) => return Err(SyntaxError::ListSeparator),
                    (Expect::MemberComma, _) => return Err(SyntaxError::DictSeparator),
                    (Expect::Colon, _) => return Err(SyntaxError::MissingColon),
                    _ => return Err(SyntaxError::ExpectingValue),
                };
                if !close {
                    return Ok(());
                }
                let Some(frame) = self.open.pop() else {
                    return Err(SyntaxError::ExpectingValue);
                };
                self.document.close(frame.token, frame.len);
                if let Some(outer) = self.open.last_mut() {
                    outer.decoded = true;
                }
                if byte == b'}' && self.document.has_duplicate(frame.token, frame.len) {
                    return Err(SyntaxError::DuplicateKey);
                }
                self.after_value()
            }
        }
    }

    fn add_string(&mut self, token: &[u8], plain: bool) -> Result<(), SyntaxError> {
        let is_key = self.before_value()?;
        self.decoded.clear();
        let result = lexeme::string(token, plain, &mut self.decoded);
        if result.is_ok() {
            self.document.push_str(&self.decoded);
        }
        result?;
        if !is_key {
            return self.after_value();
        }
        if let Some(frame) = self.open.last_mut() {
            frame.expect = Expect::Colon;
            frame.doubtful = true;
            frame.decoded = true;
        }
        self.decoded.shrink_to(KEEP_DECODED_BYTES);
        Ok(())
    }

    fn add_scalar(
        &mut self,
        token: &[u8],
        value: impl FnOnce(&[u8]) -> Result<Token, SyntaxError>,
    ) -> Result<(), SyntaxError> {
        self.before_value()?;
        let value = value(token)?;
        self.document.push(value);
        self.after_value()
    }

    /// Whether a value may stand here; `true` when it stands where a key has to be.
    #[inline]
    fn before_value(&self) -> Result<bool, SyntaxError> {
        match self.open.last().map(|frame| frame.expect) {
            None | Some(Expect::ElementOrEnd | Expect::Element | Expect::Value) => Ok(false),
            Some(Expect::KeyOrEnd | Expect::Key) => Ok(true),
            Some(Expect::Colon) => Err(SyntaxError::MissingColon),
            Some(Expect::ElementComma) => Err(SyntaxError::ListSeparator),
            Some(Expect::MemberComma) => Err(SyntaxError::DictSeparator),
        }
    }

    /// A value is complete: what its parent expects now.
    #[inline]
    fn after_value(&mut self) -> Result<(), SyntaxError> {
        let Some(frame) = self.open.last_mut() else {
            return Ok(());
        };
        frame.len += 1;
        match frame.expect {
            Expect::ElementOrEnd | Expect::Element => frame.expect = Expect::ElementComma,
            Expect::Value => frame.expect = Expect::MemberComma,
            _ => return Err(SyntaxError::KeyNotString),
        }
        Ok(())
    }
}
