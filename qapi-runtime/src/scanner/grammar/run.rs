//! Tokens that are whole in the bytes at hand, need no decoding and stand where they may, which nearly all do: one loop goes
//! through them.
//!
//! It does what the scanner's states and the rest of the grammar would have done, token by token. Whatever is rare
//! (another kind of token, a mistake, the end of the bytes, a limit that is near) it leaves to them, and goes on behind it.

use super::members::members;
use super::scalar::scalar;
use super::{Expect, Frame, Grammar, Like};
use crate::document::{Tape, Token};
use crate::scanner::Limits;

/// So many bytes are gone through at once, and room is made for their text.
const WINDOW: usize = 16 << 10;

impl Grammar {
    /// Takes tokens from the start of `bytes`; how many bytes it took, and whether a message ended there.
    // On its own: among the scanner's states there would be fewer registers for it.
    #[inline(never)]
    pub(in crate::scanner) fn run(&mut self, bytes: &[u8], limits: &Limits) -> (usize, bool) {
        // Each token has a byte at least: among so many bytes neither limit can be exceeded.
        let near = limits.tokens.saturating_sub(self.tokens).min(WINDOW);
        let near = near.min(limits.message_bytes.saturating_sub(self.size));
        let bytes = bytes.get(..near).unwrap_or(bytes);
        if self.error.is_some() || bytes.is_empty() {
            return (0, false);
        }
        let mut run = Run {
            tape: self.document.tape(bytes.len()),
            open: &mut self.open,
            input: Input {
                bytes,
                at: 0,
                blanks: 0,
                tokens: 0,
                spaced: self.spaced,
            },
            braces: 0,
            brackets: 0,
        };
        let ended = run.walk(limits.depth);
        let Run {
            tape,
            input,
            braces,
            brackets,
            ..
        } = run;
        tape.finish();
        self.spaced = input.spaced;
        self.tokens += input.tokens;
        self.size += input.at - input.blanks;
        self.braces += braces;
        self.brackets += brackets;
        (input.at, ended)
    }
}

/// The way through the bytes.
struct Run<'a> {
    tape: Tape<'a>,
    /// The innermost is changed where it is.
    open: &'a mut Vec<Frame>,
    input: Input<'a>,
    /// So many more were opened than closed.
    braces: i64,
    brackets: i64,
}

/// The bytes, and how far they were taken.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// So many of the bytes before `at` belong to no token.
    pub(super) blanks: usize,
    /// So many tokens were taken.
    pub(super) tokens: usize,
    /// There was a blank behind a colon.
    pub(super) spaced: bool,
}

impl Run<'_> {
    /// Whether the message ended. If not, what is open is in `open` as the next token finds it.
    #[inline(always)]
    fn walk(&mut self, depth: usize) -> bool {
        if self.open.is_empty() {
            match self.input.next() {
                Some(bracket @ (b'{' | b'[')) if depth > 0 => self.begin(bracket),
                _ => return false,
            }
        }
        while let Some(top) = self.open.last_mut() {
            if matches!(top.expect, Expect::KeyOrEnd | Expect::Key) {
                members(top, &mut self.input, &mut self.tape);
            }
            if matches!(top.expect, Expect::KeyOrEnd | Expect::Key) {
                match self.input.next() {
                    Some(b'"') => {
                        let from = self.input.at + 1;
                        let Some((len, hash)) = self.tape.take_key(self.input.bytes, from) else {
                            return false;
                        };
                        self.input.take(len + 2);
                        top.note_key(hash);
                        top.expect = Expect::Colon;
                    }
                    Some(b'}') if top.expect == Expect::KeyOrEnd => top.expect = Expect::MemberComma,
                    _ => return false,
                }
            }
            if top.expect == Expect::Colon {
                if self.input.next_mark() != Some(b':') {
                    return false;
                }
                self.input.take(1);
                self.input.spaced = self.input.bytes.get(self.input.at) == Some(&b' ');
                top.expect = Expect::Value;
            }
            if matches!(top.expect, Expect::Value | Expect::Element | Expect::ElementOrEnd) {
                match self.input.next() {
                    Some(b'"') => {
                        let from = self.input.at + 1;
                        let Some(len) = self.tape.take_value(self.input.bytes, from) else {
                            return false;
                        };
                        self.input.take(len + 2);
                        top.value_ended();
                    }
                    Some(bracket @ (b'{' | b'[')) => {
                        if self.open.len() >= depth {
                            return false;
                        }
                        self.begin(bracket);
                        continue;
                    }
                    Some(b']') if top.expect == Expect::ElementOrEnd => top.expect = Expect::ElementComma,
                    Some(first) => {
                        let token = self.tape.next();
                        let Some(len) = scalar(self.input.bytes, self.input.at, first, token) else {
                            return false;
                        };
                        self.tape.keep_next();
                        self.input.take(len);
                        top.value_ended();
                    }
                    None => return false,
                }
            }
            match self.end() {
                Ended::Message => return true,
                Ended::Value => {}
                Ended::Stopped => return false,
            }
        }
        false
    }

    /// Begins the object or array that the bracket at hand opens.
    #[inline(always)]
    fn begin(&mut self, bracket: u8) {
        self.input.take(1);
        let token = self.tape.len();
        let like = match self.open.last() {
            Some(outer) if outer.expect == Expect::Value => outer.like.value,
            Some(outer) => outer.like.next,
            None => 0,
        };
        let (expect, open) = if bracket == b'{' {
            self.braces += 1;
            (Expect::KeyOrEnd, Token::Object { end: 0, len: 0 })
        } else {
            self.brackets += 1;
            (Expect::ElementOrEnd, Token::Array { end: 0, len: 0 })
        };
        let mut frame = Frame::new(expect, token);
        if like > 0
            && let Some((next, end)) = self.tape.content(like, open)
        {
            frame.like = Like { next, end, value: 0 };
        }
        self.tape.push(open);
        self.open.push(frame);
    }

    /// Takes what follows a value: a comma, or what ends here, which may end what it is in.
    #[inline(always)]
    fn end(&mut self) -> Ended {
        while let Some(top) = self.open.last_mut() {
            let in_object = top.expect == Expect::MemberComma;
            match self.input.next_mark() {
                Some(b',') => {
                    self.input.take(1);
                    top.expect = if in_object { Expect::Key } else { Expect::Element };
                    return Ended::Value;
                }
                Some(b'}') if in_object => {
                    if top.doubtful && self.tape.has_duplicate(top.token, top.len) {
                        return Ended::Stopped;
                    }
                }
                Some(b']') if !in_object => {}
                _ => return Ended::Stopped,
            }
            let (token, len, decoded) = (top.token, top.len, top.decoded);
            let depth = self.open.len() - 1;
            // The value may stand where a key should.
            if let Some(outer) = depth.checked_sub(1).and_then(|outer| self.open.get(outer))
                && matches!(outer.expect, Expect::KeyOrEnd | Expect::Key)
            {
                return Ended::Stopped;
            }
            self.open.truncate(depth);
            self.input.take(1);
            self.tape.close(token, len);
            if in_object {
                self.braces -= 1;
            } else {
                self.brackets -= 1;
            }
            match self.open.last_mut() {
                Some(outer) => {
                    outer.value_ended();
                    outer.decoded |= decoded;
                    if in_object && !decoded && outer.expect == Expect::ElementComma {
                        outer.like.next = token;
                    }
                }
                None => return Ended::Message,
            }
        }
        Ended::Stopped
    }
}

/// What ended.
enum Ended {
    /// The whole message.
    Message,
    /// A value; another one or a key follows.
    Value,
    /// Something that is not for this loop follows.
    Stopped,
}

impl Input<'_> {
    /// The first byte of the next token, which is then at hand. There mostly is one blank before it.
    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        if self.bytes.get(self.at) == Some(&b' ') {
            self.at += 1;
            self.blanks += 1;
        }
        self.next_mark()
    }

    /// The same where there mostly is none.
    #[inline(always)]
    fn next_mark(&mut self) -> Option<u8> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            None => None,
            _ => {
                let blanks = count_blanks(self.bytes, self.at);
                self.at += blanks;
                self.blanks += blanks;
                self.bytes.get(self.at).copied()
            }
        }
    }

    /// The token at hand has so many bytes.
    #[inline(always)]
    fn take(&mut self, bytes: usize) {
        self.at += bytes;
        self.tokens += 1;
    }
}

impl Frame {
    #[inline(always)]
    fn note_key(&mut self, hash: u32) {
        let bit = 1 << (hash % u64::BITS);
        self.doubtful |= self.seen & bit != 0 || self.like.next > 0;
        self.like = Like::default();
        self.seen |= bit;
    }

    /// A value is complete, and nothing was wrong.
    #[inline(always)]
    fn value_ended(&mut self) {
        self.len += 1;
        self.expect = if self.expect == Expect::Value {
            Expect::MemberComma
        } else {
            Expect::ElementComma
        };
    }
}

/// How many blanks there are from `at` on. It stands alone so that nothing of the loop has to be in memory for it.
#[cold]
#[inline(never)]
fn count_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    rest.iter().position(|byte| !is_blank(byte)).unwrap_or(rest.len())
}
