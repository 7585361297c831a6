//! JSON text as QMP monitors write it: ASCII only, doubles with seventeen digits.

use crate::document::{Cursor, Token};
use std::io::Write as _;

/// Bytes that a string can hold as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7F {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

/// Appends a string with its quotes; everything beyond printable ASCII is escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_escaped(out, text);
    }
    out.push(b'"');
}

#[cold]
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while !rest.is_empty() {
        let plain = plain_bytes(rest.as_bytes());
        // A byte that is not plain ASCII starts a character, so this is a character boundary.
        let (run, special) = rest.split_at_checked(plain).unwrap_or((rest, ""));
        out.extend_from_slice(run.as_bytes());
        let mut characters = special.chars();
        if let Some(character) = characters.next() {
            write_special(out, character);
        }
        rest = characters.as_str();
    }
}

/// Whether all bytes can be written as they are. Most texts are short: their first and their last bytes, which may
/// overlap, are all of them.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    if let (Some(_), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk()) {
        let (blocks, _) = bytes.as_chunks();
        !blocks.iter().any(block_has_special) && !block_has_special(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        !has_special(u64::from_le_bytes(*first)) && !has_special(u64::from_le_bytes(*last))
    } else {
        bytes.iter().all(|&byte| PLAIN[usize::from(byte)])
    }
}

/// Whether one of sixteen bytes cannot be written as it is. Without branches, so that it is done for all at once.
#[inline]
fn block_has_special(block: &[u8; 16]) -> bool {
    let special = |byte: u8| {
        u8::from(byte < 0x20) | u8::from(byte >= 0x7F) | u8::from(byte == b'"') | u8::from(byte == b'\\')
    };
    block.iter().fold(0, |all, &byte| all | special(byte)) != 0
}

/// How many bytes at the start can be written as they are.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if has_special(u64::from_le_bytes(*eight)) {
            break;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let run = rest.iter().position(|&byte| !PLAIN[usize::from(byte)]);
    at + run.unwrap_or(rest.len())
}

/// Whether one of eight bytes cannot be written as it is.
#[inline]
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let quotes = is_zero(word ^ (ONES * u64::from(b'"')));
    let escapes = is_zero(word ^ (ONES * u64::from(b'\\')));
    let deletes = is_zero(word ^ (ONES * 0x7F));
    (control | quotes | escapes | deletes | word & HIGH) != 0
}

fn write_special(out: &mut Vec<u8>, character: char) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a vector cannot fail.
                let _ = write!(out, "\\u{unit:04X}");
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an integer.
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_uint(out, value.unsigned_abs());
}

/// Appends an integer without a sign.
pub fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    // Two at a time, as division takes long.
    while value >= 10 {
        let pair = value % 100;
        value /= 100;
        at -= 2;
        if let Some(room) = digits.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *room = [digit(pair / 10), digit(pair % 10)];
        }
    }
    if value > 0 || at == digits.len() {
        at -= 1;
        if let Some(room) = digits.get_mut(at) {
            *room = digit(value);
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// The digit of a number below ten.
#[inline]
fn digit(value: u64) -> u8 {
    b'0' + value.to_le_bytes()[0]
}

/// Appends a double with as many of seventeen digits as it needs, the way C's `%.17g` does.
///
/// JSON has no infinities and no NaN: they become `null`.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..17).contains(&exponent) {
        let decimals = usize::try_from(16 - exponent).unwrap_or(0);
        let fixed = format!("{value:.decimals$}");
        out.extend_from_slice(without_trailing_zeros(&fixed).as_bytes());
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let mantissa = without_trailing_zeros(mantissa);
        // Writing to a vector cannot fail.
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// Appends a scanned value.
///
/// The scanner bounds how deep values nest, and so how deep this recurses.
pub fn write_value(out: &mut Vec<u8>, value: Cursor<'_>) {
    match value.token() {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Bool(true) => out.extend_from_slice(b"true"),
        Token::Bool(false) => out.extend_from_slice(b"false"),
        Token::Int(value) => write_int(out, value),
        Token::UInt(value) => write_uint(out, value),
        Token::Double(value) => write_double(out, value),
        Token::String { .. } => write_string(out, value.as_str().unwrap_or_default()),
        Token::Array { .. } => {
            out.push(b'[');
            for (at, element) in value.elements().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                write_value(out, element);
            }
            out.push(b']');
        }
        Token::Object { .. } => {
            out.push(b'{');
            for (at, (key, member)) in value.members().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                write_string(out, key);
                out.extend_from_slice(b": ");
                write_value(out, member);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_ascii() {
        let text = written(|out| write_string(out, "a\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}é😀/'"));
        assert_eq!(text, r#""a\"\\\b\f\n\r\t\u0001\u007F\u00E9\uD83D\uDE00/'""#);
    }

    #[test]
    fn strings_of_every_length_with_a_special_byte_anywhere() {
        for len in 0..70 {
            let plain = "a".repeat(len);
            assert_eq!(written(|out| write_string(out, &plain)), format!("\"{plain}\""));
            for at in 0..len {
                for (special, escaped) in [
                    ('"', "\\\""),
                    ('\\', "\\\\"),
                    ('\u{1f}', "\\u001F"),
                    ('\u{7f}', "\\u007F"),
                    ('\u{80}', "\\u0080"),
                    (' ', " "),
                    ('~', "~"),
                ] {
                    let text: String = (0..len)
                        .map(|now| if now == at { special } else { 'a' })
                        .collect();
                    let expected = format!("\"{}\"", text.replace(special, escaped));
                    assert_eq!(written(|out| write_string(out, &text)), expected);
                }
            }
        }
    }

    /// Texts that `qemu-storage-daemon` gave for these values.
    #[test]
    fn doubles() {
        let cases = [
            (0.1, "0.10000000000000001"),
            (1e2, "100"),
            (-2.5e-7, "-2.4999999999999999e-07"),
            (1e21, "1e+21"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789.123, "123456789.123"),
            (1.844_674_407_370_955_2e19, "1.8446744073709552e+19"),
            (3.0e-5, "3.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0"),
            (0.0, "0"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
            (5e-324, "4.9406564584124654e-324"),
        ];
        for (value, expected) in cases {
            assert_eq!(written(|out| write_double(out, value)), expected);
        }
        assert_eq!(written(|out| write_double(out, f64::INFINITY)), "null");
    }

    #[test]
    fn integers() {
        let powers = (0..19).map(|power| 10_i64.pow(power));
        let around = powers.flat_map(|power| [power - 1, power, power + 1, -power, power.wrapping_mul(7)]);
        for value in around.chain([0, i64::MAX, i64::MIN]) {
            assert_eq!(written(|out| write_int(out, value)), value.to_string());
        }
        assert_eq!(written(|out| write_uint(out, u64::MAX)), u64::MAX.to_string());
    }
}
