//! From tokens to a document: what may follow what, and where a message ends.
//!
//! A message ends when its braces and its brackets balance, each kind counted by itself, or when one
//! too many is closed. So a message with a mistake is still read to its end and gives one error.

use super::{Limits, SyntaxError, lexeme};
use crate::document::{Document, Token, key_hash};
use std::collections::HashSet;

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
#[derive(Debug)]
struct Frame {
    expect: Expect,
    /// Index of its token.
    token: u32,
    /// Elements or members so far.
    len: u32,
    /// The key before the value at hand was there already.
    duplicate: bool,
    /// A bit for each key so far, by its hash: a new bit is a new key.
    seen: u128,
    /// The keys, once there are too many to compare one by one.
    keys: Option<HashSet<Box<str>>>,
}

/// Objects up to this size compare a new key with each one before it.
const FEW_KEYS: u32 = 24;

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
    /// Bytes of the key sets of large objects.
    key_bytes: usize,
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
        self.document.held_bytes() + self.open.len() * size_of::<Frame>() + self.key_bytes
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
        self.key_bytes = 0;
    }

    #[inline]
    pub(super) fn punctuation(&mut self, byte: u8, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(1, limits) {
            return limit;
        }
        // Nearly all punctuation goes on with an object or array as it should.
        if self.error.is_none()
            && let Some(frame) = self.open.last_mut()
        {
            let next = match (frame.expect, byte) {
                (Expect::Colon, b':') => Some(Expect::Value),
                (Expect::MemberComma, b',') => Some(Expect::Key),
                (Expect::ElementComma, b',') => Some(Expect::Element),
                _ => None,
            };
            if let Some(next) = next {
                frame.expect = next;
                return None;
            }
        }
        self.bracket(byte, limits)
    }

    /// Punctuation that opens or closes something, or is a mistake.
    fn bracket(&mut self, byte: u8, limits: &Limits) -> Outcome {
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
        if self.error.is_none()
            && let Err(error) = self.punctuate(byte)
        {
            self.error = Some(error);
        }
        self.outcome()
    }

    pub(super) fn string(&mut self, token: &[u8], plain: bool, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(token.len(), limits) {
            return limit;
        }
        if self.error.is_none()
            && let Err(error) = self.add_string(token, plain)
        {
            self.error = Some(error);
        }
        self.outcome()
    }

    /// A whole string of ASCII without escapes; `text` is what is between the quotes.
    #[inline]
    pub(super) fn plain_string(&mut self, text: &str, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(text.len() + 2, limits) {
            return limit;
        }
        if self.error.is_none()
            && let Err(error) = self.add_plain_string(text)
        {
            self.error = Some(error);
        }
        self.outcome()
    }

    fn add_plain_string(&mut self, text: &str) -> Result<(), SyntaxError> {
        let is_key = self.before_value()?;
        let string = self.document.push_str(text);
        if is_key {
            self.check_key(string);
            Ok(())
        } else {
            self.after_value()
        }
    }

    /// A whole token that is a value, of so many bytes.
    #[inline]
    pub(super) fn value(&mut self, token: Token, bytes: usize, limits: &Limits) -> Outcome {
        if let Some(limit) = self.count(bytes, limits) {
            return limit;
        }
        if self.error.is_none() {
            let added = self.before_value().and_then(|_| {
                self.document.push(token);
                self.after_value()
            });
            self.error = added.err();
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
        if self.error.is_none()
            && let Err(error) = self.add_scalar(token, value)
        {
            self.error = Some(error);
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
                let (placeholder, expect) = if byte == b'{' {
                    (Token::Object { end: 0, len: 0 }, Expect::KeyOrEnd)
                } else {
                    (Token::Array { end: 0, len: 0 }, Expect::ElementOrEnd)
                };
                self.document.push(placeholder);
                self.open.push(Frame {
                    expect,
                    token,
                    len: 0,
                    duplicate: false,
                    seen: 0,
                    keys: None,
                });
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
                if let Some(frame) = self.open.pop() {
                    self.document.close(frame.token, frame.len);
                }
                self.after_value()
            }
        }
    }

    fn add_string(&mut self, token: &[u8], plain: bool) -> Result<(), SyntaxError> {
        let is_key = self.before_value()?;
        let string = self
            .document
            .push_text(|text| lexeme::string(token, plain, text))?;
        if !is_key {
            return self.after_value();
        }
        self.check_key(string);
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
            Expect::Value if frame.duplicate => return Err(SyntaxError::DuplicateKey),
            Expect::Value => frame.expect = Expect::MemberComma,
            _ => return Err(SyntaxError::KeyNotString),
        }
        Ok(())
    }

    /// A colon is to follow a key. Notes whether the key just pushed is in the innermost object already; that is reported after
    /// its value, so that a mistake in the value comes first.
    fn check_key(&mut self, key: Token) {
        let Some(frame) = self.open.last_mut() else { return };
        let key = self.document.text(key);
        let bit = 1 << (key_hash(key.as_bytes()) % u128::BITS);
        let known = frame.seen & bit != 0;
        frame.seen |= bit;
        frame.expect = Expect::Colon;
        if frame.len == 0 {
            return;
        }
        let object = self.document.cursor(frame.token);
        if frame.len < FEW_KEYS {
            if !known {
                return;
            }
            frame.duplicate = object
                .members_so_far(frame.len)
                .any(|(earlier, _)| earlier == key);
            return;
        }
        let keys = match &mut frame.keys {
            Some(keys) => keys,
            keys => {
                let earlier = object
                    .members_so_far(frame.len)
                    .map(|(earlier, _)| Box::from(earlier));
                keys.insert(earlier.collect())
            }
        };
        frame.duplicate = !keys.insert(Box::from(key));
        self.key_bytes += key.len() + 2 * size_of::<Box<str>>();
    }
}
