//! Tokens that are whole in the bytes at hand, need no decoding and stand where they may, which nearly all do: one loop goes
//! through them.
//!
//! It does what the scanner's states and the rest of the grammar would have done, token by token. Whatever is rare
//! (another kind of token, a mistake, the end of the bytes, a limit that is near) it leaves to them, and goes on behind it.

use super::{Expect, Frame, Grammar};
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
            bytes,
            at: 0,
            blanks: 0,
            tokens: 0,
            braces: 0,
            brackets: 0,
        };
        let ended = run.walk(limits.depth);
        let Run {
            tape,
            at,
            blanks,
            tokens,
            braces,
            brackets,
            ..
        } = run;
        tape.finish();
        self.tokens += tokens;
        self.size += at - blanks;
        self.braces += braces;
        self.brackets += brackets;
        (at, ended)
    }
}

/// The way through the bytes.
struct Run<'a> {
    tape: Tape<'a>,
    open: &'a mut Vec<Frame>,
    bytes: &'a [u8],
    at: usize,
    /// So many of the bytes before `at` belong to no token.
    blanks: usize,
    /// So many tokens were taken.
    tokens: usize,
    /// So many more were opened than closed.
    braces: i64,
    brackets: i64,
}

impl Run<'_> {
    /// Whether the message ended. If not, what is open is in `open` as the next token finds it.
    #[inline(always)]
    fn walk(&mut self, depth: usize) -> bool {
        let mut top = match self.open.pop() {
            Some(top) => top,
            None => match self.next() {
                Some(bracket @ (b'{' | b'[')) if depth > 0 => self.begin(bracket),
                _ => return false,
            },
        };
        'stopped: loop {
            if matches!(top.expect, Expect::KeyOrEnd | Expect::Key) {
                match self.next() {
                    Some(b'"') => {
                        let Some((len, hash)) = self.tape.take_key(self.bytes, self.at + 1) else {
                            break;
                        };
                        self.take(len + 2);
                        top.note_key(hash);
                        top.expect = Expect::Colon;
                    }
                    Some(b'}') if top.expect == Expect::KeyOrEnd => top.expect = Expect::MemberComma,
                    _ => break,
                }
            }
            if top.expect == Expect::Colon {
                if self.next_mark() != Some(b':') {
                    break;
                }
                self.take(1);
                top.expect = Expect::Value;
            }
            if matches!(top.expect, Expect::Value | Expect::Element | Expect::ElementOrEnd) {
                match self.next() {
                    Some(b'"') => {
                        let Some(len) = self.tape.take_value(self.bytes, self.at + 1) else {
                            break;
                        };
                        self.take(len + 2);
                        top.value_ended();
                    }
                    Some(bracket @ (b'{' | b'[')) => {
                        if self.open.len() + 1 >= depth {
                            break;
                        }
                        self.open.push(top);
                        top = self.begin(bracket);
                        continue;
                    }
                    Some(b']') if top.expect == Expect::ElementOrEnd => top.expect = Expect::ElementComma,
                    Some(first) => {
                        let Some((token, len)) = scalar(self.bytes, self.at, first) else {
                            break;
                        };
                        self.tape.push(token);
                        self.take(len);
                        top.value_ended();
                    }
                    None => break,
                }
            }
            // What ends here may end what it is in.
            loop {
                let in_object = top.expect == Expect::MemberComma;
                match self.next_mark() {
                    Some(b',') => {
                        self.take(1);
                        top.expect = if in_object { Expect::Key } else { Expect::Element };
                        break;
                    }
                    Some(b'}') if in_object => {
                        if top.doubtful && self.tape.has_duplicate(top.token, top.len) {
                            break 'stopped;
                        }
                    }
                    Some(b']') if !in_object => {}
                    _ => break 'stopped,
                }
                // The value may stand where a key should.
                match self.open.pop() {
                    None => {
                        self.end(top, in_object);
                        return true;
                    }
                    Some(outer) if matches!(outer.expect, Expect::KeyOrEnd | Expect::Key) => {
                        self.open.push(outer);
                        break 'stopped;
                    }
                    Some(outer) => {
                        self.end(top, in_object);
                        top = outer;
                        top.value_ended();
                    }
                }
            }
        }
        self.open.push(top);
        false
    }

    /// Begins the object or array that the bracket at hand opens.
    #[inline(always)]
    fn begin(&mut self, bracket: u8) -> Frame {
        self.take(1);
        let token = self.tape.len();
        if bracket == b'{' {
            self.braces += 1;
            self.tape.push(Token::Object { end: 0, len: 0 });
            Frame::new(Expect::KeyOrEnd, token)
        } else {
            self.brackets += 1;
            self.tape.push(Token::Array { end: 0, len: 0 });
            Frame::new(Expect::ElementOrEnd, token)
        }
    }

    /// Ends the innermost object or array with the bracket at hand.
    #[inline(always)]
    fn end(&mut self, top: Frame, is_object: bool) {
        self.take(1);
        self.tape.close(top.token, top.len);
        if is_object {
            self.braces -= 1;
        } else {
            self.brackets -= 1;
        }
    }

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
        self.doubtful |= self.seen & bit != 0;
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

/// An integer of few digits or a keyword, and how many bytes it has, if something follows it.
#[inline(always)]
fn scalar(bytes: &[u8], at: usize, first: u8) -> Option<(Token, usize)> {
    let (token, len) = match first {
        b'0'..=b'9' => {
            let digit = i64::from(first - b'0');
            match bytes.get(at + 1)? {
                b'0'..=b'9' if digit == 0 => return None,
                b'0'..=b'9' => {
                    let (value, len) = digits(bytes.get(at..)?)?;
                    (Token::Int(value), len)
                }
                _ => (Token::Int(digit), 1),
            }
        }
        b't' if bytes.get(at..)?.starts_with(b"true") => (Token::Bool(true), 4),
        b'f' if bytes.get(at..)?.starts_with(b"false") => (Token::Bool(false), 5),
        b'n' if bytes.get(at..)?.starts_with(b"null") => (Token::Null, 4),
        b'-' => {
            let (value, len) = digits(bytes.get(at + 1..)?)?;
            (Token::Int(-value), len + 1)
        }
        _ => return None,
    };
    match bytes.get(at + len)? {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => None,
        _ => Some((token, len)),
    }
}

/// Up to 16 digits, which cannot overflow, without a zero in front.
#[inline(never)]
fn digits(bytes: &[u8]) -> Option<(i64, usize)> {
    let (mut value, mut len) = digits_of_eight(bytes)?;
    if len == 8 {
        let (more, count) = digits_of_eight(bytes.get(8..)?)?;
        value = value * POWERS.get(count)? + more;
        len += count;
    }
    let zero_in_front = len > 1 && bytes.first() == Some(&b'0');
    (len > 0 && !zero_in_front).then_some((value, len))
}

/// The powers of ten of up to eight digits.
const POWERS: [i64; 9] = [
    1,
    10,
    100,
    1000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// The digits at the start of eight bytes.
#[inline]
fn digits_of_eight(bytes: &[u8]) -> Option<(i64, usize)> {
    let Some(eight) = bytes.first_chunk::<8>() else {
        return digits_one_by_one(bytes);
    };
    // Digits become their values, and other bytes something above 9.
    let values = u64::from_le_bytes(*eight) ^ 0x3030_3030_3030_3030;
    // Up to the first byte above 9 nothing is carried over.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let len = others.trailing_zeros() / 8;
    // The digits at the end of eight, zeroes before them.
    let Some(digits) = values.checked_shl(64 - 8 * len) else {
        return Some((0, 0));
    };
    // Pairs of digits, then pairs of these, then both.
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    let value = (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF;
    Some((i64::try_from(value).ok()?, len as usize))
}

/// The last few bytes of a buffer.
#[cold]
fn digits_one_by_one(bytes: &[u8]) -> Option<(i64, usize)> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    let (value, len) = digits.fold((0, 0), |(value, len), digit| {
        (value * 10 + i64::from(digit - b'0'), len + 1)
    });
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars() {
        for (text, expected) in [
            ("true,", Some((Token::Bool(true), 4))),
            ("false ", Some((Token::Bool(false), 5))),
            ("truex", None),
            ("true", None),
            ("fals,", None),
            ("null]", Some((Token::Null, 4))),
            ("0}", Some((Token::Int(0), 1))),
            ("-0 ", Some((Token::Int(0), 2))),
            ("-12 ", Some((Token::Int(-12), 3))),
            ("01 ", None),
            ("00000000000 ", None),
            ("1.5 ", None),
            ("1e5 ", None),
            ("12345678e5 ", None),
            ("- ", None),
            ("-", None),
            ("7", None),
            ("999999999999999 ", Some((Token::Int(999_999_999_999_999), 15))),
            (
                "-9999999999999999,        ",
                Some((Token::Int(-9_999_999_999_999_999), 17)),
            ),
            ("99999999999999999,        ", None),
        ] {
            assert_eq!(scalar(text.as_bytes(), 0, text.as_bytes()[0]), expected, "{text}");
        }
    }

    /// Numbers of each length, in front of each byte, with much and little behind them.
    #[test]
    fn numbers_as_the_library_reads_them() {
        for len in 1..=16 {
            for seed in 1..50_u64 {
                let number = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_string().repeat(2);
                let number = &number.trim_start_matches('0')[..len];
                for behind in 0..=u8::MAX {
                    let mut bytes = number.as_bytes().to_vec();
                    bytes.push(behind);
                    let expected = match behind {
                        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' => continue,
                        _ => Some((Token::Int(number.parse().unwrap()), len)),
                    };
                    assert_eq!(scalar(&bytes, 0, bytes[0]), expected, "{number}");
                    bytes.extend_from_slice(b"12345678901234567890");
                    assert_eq!(scalar(&bytes, 0, bytes[0]), expected, "{number}");
                }
            }
        }
    }
}
