//! Tokens that are whole in the bytes at hand, need no decoding and stand where they may, which nearly all do: one loop goes
//! through them.
//!
//! It does what the scanner's states and the rest of the grammar would have done, token by token. Whatever is rare
//! (another kind of token, a mistake, the end of the bytes, a limit that is near) it leaves to them, and goes on behind it.

use super::{Expect, Frame, Grammar};
use crate::document::Token;
use crate::scanner::Limits;

impl Grammar {
    /// Takes tokens from the start of `bytes`; how many bytes it took, and whether a message ended there.
    pub(in crate::scanner) fn run(&mut self, bytes: &[u8], limits: &Limits) -> (usize, bool) {
        // Each token has a byte at least: among so many bytes neither limit can be exceeded.
        let near = limits.tokens.saturating_sub(self.tokens);
        let near = near.min(limits.message_bytes.saturating_sub(self.size));
        let bytes = bytes.get(..near).unwrap_or(bytes);
        if self.error.is_some() {
            return (0, false);
        }
        self.document.expect_bytes(bytes.len());
        let mut reader = Reader {
            bytes,
            at: 0,
            blanks: 0,
            tokens: 0,
        };
        let ended = self.walk(&mut reader, limits.depth);
        self.tokens += reader.tokens;
        self.size += reader.at - reader.blanks;
        (reader.at, ended)
    }

    #[inline]
    fn walk(&mut self, reader: &mut Reader<'_>, depth: usize) -> bool {
        let mut top = match self.open.pop() {
            Some(top) => top,
            None => match reader.next() {
                Some(bracket @ (b'{' | b'[')) if depth > 0 => {
                    reader.take(1);
                    self.open(bracket)
                }
                _ => return false,
            },
        };
        loop {
            if matches!(top.expect, Expect::KeyOrEnd | Expect::Key) {
                match reader.next() {
                    Some(quote @ (b'"' | b'\'')) => {
                        let Some((len, hash)) = self.document.take_ascii(reader.behind(), quote) else {
                            break;
                        };
                        reader.take(len + 2);
                        top.duplicate = self.keys.add(hash, &self.document, top.token);
                        top.expect = Expect::Colon;
                    }
                    Some(b'}') if top.expect == Expect::KeyOrEnd => top.expect = Expect::MemberComma,
                    _ => break,
                }
            }
            if top.expect == Expect::Colon {
                match reader.next() {
                    Some(b':') => {
                        reader.take(1);
                        top.expect = Expect::Value;
                    }
                    _ => break,
                }
            }
            if matches!(top.expect, Expect::Value | Expect::Element | Expect::ElementOrEnd) {
                if top.duplicate {
                    break;
                }
                match reader.next() {
                    Some(quote @ (b'"' | b'\'')) => {
                        let Some((len, _)) = self.document.take_ascii(reader.behind(), quote) else {
                            break;
                        };
                        reader.take(len + 2);
                        top.value_ended();
                    }
                    Some(bracket @ (b'{' | b'[')) => {
                        if self.open.len() + 1 >= depth {
                            break;
                        }
                        reader.take(1);
                        self.open.push(top);
                        top = self.open(bracket);
                        continue;
                    }
                    Some(b']') if top.expect == Expect::ElementOrEnd => top.expect = Expect::ElementComma,
                    Some(first) => {
                        let Some((token, len)) = scalar(reader.rest(), first) else {
                            break;
                        };
                        reader.take(len);
                        self.document.push(token);
                        top.value_ended();
                    }
                    None => break,
                }
            }
            // What ends here may end what it is in.
            loop {
                let (next, end) = if top.expect == Expect::MemberComma {
                    (Expect::Key, b'}')
                } else {
                    (Expect::Element, b']')
                };
                match reader.next() {
                    Some(b',') => {
                        reader.take(1);
                        top.expect = next;
                        break;
                    }
                    Some(byte) if byte == end => {
                        // The value may have a key in front that is there already, or stand where a key should.
                        if self.open.last().is_some_and(Frame::is_mistaken) {
                            self.open.push(top);
                            return false;
                        }
                        reader.take(1);
                        if end == b'}' {
                            self.braces -= 1;
                        } else {
                            self.brackets -= 1;
                        }
                        self.end(byte, top);
                        match self.open.pop() {
                            Some(outer) => top = outer,
                            None => return true,
                        }
                        top.value_ended();
                    }
                    _ => {
                        self.open.push(top);
                        return false;
                    }
                }
            }
        }
        self.open.push(top);
        false
    }

    #[inline]
    fn open(&mut self, bracket: u8) -> Frame {
        if bracket == b'{' {
            self.braces += 1;
        } else {
            self.brackets += 1;
        }
        self.begin(bracket)
    }
}

impl Frame {
    /// The end of a value shows a mistake.
    #[inline]
    fn is_mistaken(&self) -> bool {
        self.duplicate || matches!(self.expect, Expect::KeyOrEnd | Expect::Key)
    }

    /// A value is complete, and nothing was wrong.
    #[inline]
    fn value_ended(&mut self) {
        self.len += 1;
        self.expect = if self.expect == Expect::Value {
            Expect::MemberComma
        } else {
            Expect::ElementComma
        };
    }
}

/// The bytes, and how far they were read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// So many of the bytes that were read belong to no token.
    blanks: usize,
    tokens: usize,
}

impl<'a> Reader<'a> {
    /// The first byte of the next token, which is then at hand.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let mut byte = *self.bytes.get(self.at)?;
        // There is one blank or none, if the text is not for people.
        if byte == b' ' {
            self.skip();
            byte = *self.bytes.get(self.at)?;
        }
        while matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            self.skip();
            byte = *self.bytes.get(self.at)?;
        }
        Some(byte)
    }

    #[inline]
    fn skip(&mut self) {
        self.at += 1;
        self.blanks += 1;
    }

    /// The token at hand has so many bytes.
    #[inline]
    fn take(&mut self, bytes: usize) {
        self.at += bytes;
        self.tokens += 1;
    }

    /// From the token at hand on.
    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// What is behind the byte at hand.
    #[inline]
    fn behind(&self) -> &'a [u8] {
        self.bytes.get(self.at + 1..).unwrap_or_default()
    }
}

/// An integer of few digits or a keyword, and how many bytes it has, if something follows it.
#[inline]
fn scalar(bytes: &[u8], first: u8) -> Option<(Token, usize)> {
    let (token, len) = match first {
        b'0'..=b'9' => {
            let (value, len) = digits(bytes)?;
            (Token::Int(value), len)
        }
        b't' if bytes.first_chunk() == Some(b"true") => (Token::Bool(true), 4),
        b'f' if bytes.first_chunk() == Some(b"false") => (Token::Bool(false), 5),
        b'n' if bytes.first_chunk() == Some(b"null") => (Token::Null, 4),
        b'-' => {
            let (value, len) = digits(bytes.get(1..)?)?;
            (Token::Int(-value), len + 1)
        }
        _ => return None,
    };
    match bytes.get(len)? {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => None,
        _ => Some((token, len)),
    }
}

/// Up to 16 digits, which cannot overflow, without a zero in front.
#[inline]
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
            assert_eq!(scalar(text.as_bytes(), text.as_bytes()[0]), expected, "{text}");
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
                    assert_eq!(scalar(&bytes, bytes[0]), expected, "{number}");
                    bytes.extend_from_slice(b"12345678901234567890");
                    assert_eq!(scalar(&bytes, bytes[0]), expected, "{number}");
                }
            }
        }
    }
}
