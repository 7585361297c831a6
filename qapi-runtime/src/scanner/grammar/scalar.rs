//! Keywords and integers of few digits, which nearly all values that are no strings are.

use crate::document::Token;

/// Reads an integer of few digits or a keyword, if something follows it that cannot belong to it; how many bytes it has.
#[inline(always)]
pub(super) fn scalar(bytes: &[u8], at: usize, first: u8, token: &mut Token) -> Option<usize> {
    let len = beginning(bytes, at, first, token)?;
    match bytes.get(at + len)? {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => None,
        _ => Some(len),
    }
}

/// The same whatever follows it.
#[inline(always)]
pub(super) fn beginning(bytes: &[u8], at: usize, first: u8, token: &mut Token) -> Option<usize> {
    let len = match first {
        b'0'..=b'9' => {
            let digit = i64::from(first - b'0');
            match bytes.get(at + 1)? {
                b'0'..=b'9' if digit == 0 => return None,
                b'0'..=b'9' => {
                    let (value, len) = digits(bytes.get(at..)?)?;
                    *token = Token::Int(value);
                    len
                }
                _ => {
                    *token = Token::Int(digit);
                    1
                }
            }
        }
        b't' if bytes.get(at..)?.starts_with(b"true") => {
            *token = Token::Bool(true);
            4
        }
        b'f' if bytes.get(at..)?.starts_with(b"false") => {
            *token = Token::Bool(false);
            5
        }
        b'n' if bytes.get(at..)?.starts_with(b"null") => {
            *token = Token::Null;
            4
        }
        b'-' => {
            let (value, len) = digits(bytes.get(at + 1..)?)?;
            *token = Token::Int(-value);
            len + 1
        }
        _ => return None,
    };
    Some(len)
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

    fn read(bytes: &[u8]) -> Option<(Token, usize)> {
        let mut token = Token::Null;
        scalar(bytes, 0, bytes[0], &mut token).map(|len| (token, len))
    }

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
            assert_eq!(read(text.as_bytes()), expected, "{text}");
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
                    assert_eq!(read(&bytes), expected, "{number}");
                    bytes.extend_from_slice(b"12345678901234567890");
                    assert_eq!(read(&bytes), expected, "{number}");
                }
            }
        }
    }
}
