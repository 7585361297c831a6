//! Scalars of `key=value` options: strings, read as the type at hand wants them.

use crate::error::{DecodeError, DecodeErrorKind};

fn expects(what: &'static str) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Expects(what)).with_dots(true)
}

pub(super) fn boolean(text: &str) -> Result<bool, DecodeError> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(expects("'on' or 'off'")),
    }
}

pub(super) fn signed(text: &str) -> Result<i64, DecodeError> {
    integer(text)
        .and_then(|(negative, value)| {
            let value = i128::from(value);
            i64::try_from(if negative { -value } else { value }).ok()
        })
        .ok_or_else(|| expects("integer"))
}

/// A negative number is its two's complement, as C's `strtoull` has it.
pub(super) fn unsigned(text: &str) -> Result<u64, DecodeError> {
    integer(text)
        .map(|(negative, value)| if negative { value.wrapping_neg() } else { value })
        .ok_or_else(|| expects("integer"))
}

pub(super) fn number(text: &str) -> Result<f64, DecodeError> {
    match text.trim_start().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(expects("number")),
    }
}

/// The sign and the magnitude of an integer, in C's notation: `0x` is hexadecimal, a leading 0 octal.
fn integer(text: &str) -> Option<(bool, u64)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    // `from_str_radix` takes a sign, and one was taken already.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, radix)
        .ok()
        .map(|value| (negative, value))
}

/// A size: a number with a unit, where only a unit above bytes may have a fraction.
pub(super) fn size(text: &str) -> Result<u64, DecodeError> {
    parse_size(text).ok_or_else(|| expects("size"))
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // A hexadecimal number has no unit: `0x1B` is 27, not one byte.
        return if hex.starts_with(['+', '-']) {
            None
        } else {
            u64::from_str_radix(hex, 16).ok()
        };
    }
    let (number, shift) = match text.char_indices().next_back()? {
        (at, unit) if unit.is_ascii_alphabetic() => {
            let power = "BKMGTPE".find(unit.to_ascii_uppercase())?;
            (text.get(..at)?, u32::try_from(power).ok()? * 10)
        }
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    if shift == 0 && number.contains('.') && fraction.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    // Twelve digits are more than the 60 bits of the largest unit can tell apart in practice.
    let kept = fraction.get(..fraction.len().min(18)).unwrap_or_default();
    let scale = 10_u128.pow(u32::try_from(kept.len()).ok()?);
    let numerator = if kept.is_empty() {
        0
    } else {
        kept.parse::<u128>().ok()?
    };
    let part = (numerator << shift) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_c_notation() {
        for (text, value) in [
            ("10", 10),
            ("-1", -1),
            ("+7", 7),
            ("0x1f", 31),
            ("010", 8),
            (" 5", 5),
            ("0", 0),
        ] {
            assert_eq!(signed(text), Ok(value), "{text}");
        }
        for text in ["", "1M", "5 ", "0x", "--1", "0x-1", "9223372036854775808", "1.0"] {
            assert!(signed(text).is_err(), "{text}");
        }
        assert_eq!(unsigned("-1"), Ok(u64::MAX));
        assert_eq!(unsigned("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn sizes_with_units() {
        for (text, value) in [
            ("64k", 65536),
            ("1.5k", 1536),
            ("1G", 1 << 30),
            ("7", 7),
            ("7B", 7),
            ("0x10", 16),
            ("0.5M", 1 << 19),
        ] {
            assert_eq!(size(text), Ok(value), "{text}");
        }
        for text in ["", "k", "1.5", "-1", "1x", "16E", "1kk", "é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
