//! Tokens that are whole in the bytes at hand and need no decoding, which nearly all are.
//!
//! What is found here is what the scanner's state machine would have found; when in doubt these say nothing, and
//! it looks at the token byte by byte.

use crate::document::Token;

/// The text of a string of ASCII without escapes, from behind its opening quote up to the closing one.
#[inline]
pub(super) fn string(bytes: &[u8], quote: u8) -> Option<&str> {
    let mut at = 0;
    loop {
        match bytes.get(at..)?.first_chunk::<8>() {
            Some(eight) => match first_special(u64::from_le_bytes(*eight), quote) {
                Some(within) => {
                    at += within;
                    break;
                }
                None => at += 8,
            },
            // The last few bytes of a buffer.
            None => {
                let special = |byte: u8| byte == quote || byte == b'\\' || !(0x20..0x80).contains(&byte);
                at += bytes.get(at..)?.iter().position(|&byte| special(byte))?;
                break;
            }
        }
    }
    if *bytes.get(at)? != quote {
        return None;
    }
    let text = bytes.get(..at)?;
    debug_assert!(text.is_ascii());
    // SAFETY: `first_special` and the loop above stop at the first byte from 0x80 on, and `at` is where they
    // stopped first, so that all bytes before it are ASCII, which is UTF-8.
    Some(unsafe { std::str::from_utf8_unchecked(text) })
}

/// Which of eight bytes, the lowest first, is the first that is a quote, a backslash, or outside of
/// printable ASCII.
#[inline]
fn first_special(word: u64, quote: u8) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A subtraction borrows from a byte only when one below it is special already.
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let quotes = is_zero(word ^ (ONES * u64::from(quote)));
    let escapes = is_zero(word ^ (ONES * u64::from(b'\\')));
    let special = control | quotes | escapes | (word & HIGH);
    (special != 0).then(|| special.trailing_zeros() as usize / 8)
}

/// An integer of few digits or a keyword, and how many bytes it has, if something follows it.
#[inline]
pub(super) fn scalar(bytes: &[u8]) -> Option<(Token, usize)> {
    let (token, len) = match bytes.first()? {
        b't' if bytes.starts_with(b"true") => (Token::Bool(true), 4),
        b'f' if bytes.starts_with(b"false") => (Token::Bool(false), 5),
        b'n' if bytes.starts_with(b"null") => (Token::Null, 4),
        b'-' => {
            let (value, len) = digits(bytes.get(1..)?)?;
            (Token::Int(-value), len + 1)
        }
        b'0'..=b'9' => {
            let (value, len) = digits(bytes)?;
            (Token::Int(value), len)
        }
        _ => return None,
    };
    match bytes.get(len)? {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => None,
        _ => Some((token, len)),
    }
}

/// Up to 18 digits, which cannot overflow, without a zero in front.
#[inline]
fn digits(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    let mut len = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(len) {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        len += 1;
    }
    let zero_in_front = len > 1 && bytes.first() == Some(&b'0');
    (len > 0 && len <= 18 && !zero_in_front).then_some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for (bytes, text) in [
            (r#"abc" "#, Some("abc")),
            (r#"abcdefghijklmnop""#, Some("abcdefghijklmnop")),
            (r#"a'b\" "#, None),
            (r#"it's this one" "#, Some("it's this one")),
            ("abcdefghijk", None),
            ("ab\u{e9}cdefgh\"", None),
            ("ab\tcdefghijkl\"", None),
            ("\"", Some("")),
            ("\u{7f}\"", Some("\u{7f}")),
        ] {
            assert_eq!(string(bytes.as_bytes(), b'"'), text, "{bytes}");
        }
        // Every byte at every place, against the plain rule.
        for byte in 0..=u8::MAX {
            for place in 0..12 {
                let mut bytes = [b'x'; 14];
                bytes[13] = b'"';
                bytes[place] = byte;
                let expected = match byte {
                    b'"' => Some(place),
                    b'\\' | 0..0x20 | 0x80.. => None,
                    _ => Some(13),
                };
                assert_eq!(string(&bytes, b'"').map(str::len), expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn scalars() {
        for (text, expected) in [
            ("true,", Some((Token::Bool(true), 4))),
            ("truex", None),
            ("true", None),
            ("null]", Some((Token::Null, 4))),
            ("0}", Some((Token::Int(0), 1))),
            ("-0 ", Some((Token::Int(0), 2))),
            ("-12 ", Some((Token::Int(-12), 3))),
            ("01 ", None),
            ("1.5 ", None),
            ("1e5 ", None),
            ("- ", None),
            (
                "999999999999999999 ",
                Some((Token::Int(999_999_999_999_999_999), 18)),
            ),
            ("9999999999999999999 ", None),
        ] {
            assert_eq!(scalar(text.as_bytes()), expected, "{text}");
        }
    }
}
