//! What single tokens mean: strings with their escapes, and numbers.

use super::SyntaxError;
use crate::document::Token;

/// Error texts quote at most so much of what the client sent.
const QUOTED_BYTES: usize = 1024;

/// A token as error messages quote it: up to a NUL, bad bytes replaced, shortened.
pub(super) fn for_message(token: &[u8]) -> String {
    let token = token.get(..QUOTED_BYTES).unwrap_or(token);
    let end = token.iter().position(|&byte| byte == 0).unwrap_or(token.len());
    String::from_utf8_lossy(token.get(..end).unwrap_or_default()).into_owned()
}

/// The value of a number token that the scanner has accepted.
///
/// Integers are tried with a sign, then without, then as a double.
pub(super) fn number(token: &[u8], integral: bool) -> Result<Token, SyntaxError> {
    // Up to 18 digits cannot overflow.
    if integral && token.len() <= 18 {
        let (negative, digits) = match token {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let value = digits.iter().fold(0i64, |value, digit| {
            value * 10 + i64::from(digit.wrapping_sub(b'0'))
        });
        return Ok(Token::Int(if negative { -value } else { value }));
    }
    let text = std::str::from_utf8(token).unwrap_or_default();
    if integral {
        if let Ok(value) = text.parse() {
            return Ok(Token::Int(value));
        }
        if let Ok(value) = text.parse() {
            return Ok(Token::UInt(value));
        }
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Token::Double(value)),
        // An infinity cannot be said in JSON, so it cannot be echoed either.
        _ => Err(SyntaxError::NumberRange(for_message(token))),
    }
}

/// Appends the text of a string token (with its quotes) to `text`.
pub(super) fn string(token: &[u8], plain: bool, text: &mut String) -> Result<(), SyntaxError> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if plain {
        // ASCII without escapes, as the scanner saw; checked all the same, it is cheap.
        text.push_str(std::str::from_utf8(inner).map_err(|_| SyntaxError::Utf8)?);
        return Ok(());
    }
    let mut rest = inner;
    while !rest.is_empty() {
        let run = rest.iter().position(|&byte| byte == b'\\').unwrap_or(rest.len());
        let (raw, escape) = rest.split_at(run);
        utf8(raw, text)?;
        rest = match escape {
            [] => escape,
            [_, b'u', hex @ ..] => unicode(hex, token, text)?,
            [_, letter, after @ ..] => {
                text.push(match letter {
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'"' | b'\'' | b'\\' | b'/' => char::from(*letter),
                    _ => return Err(SyntaxError::Escape),
                });
                after
            }
            [_] => return Err(SyntaxError::Escape),
        };
    }
    Ok(())
}

/// Appends raw bytes; they have to be UTF-8 without noncharacters, but the two-byte form of NUL is taken too.
fn utf8(raw: &[u8], text: &mut String) -> Result<(), SyntaxError> {
    let mut rest = raw;
    while !rest.is_empty() {
        let (good, bad) = match std::str::from_utf8(rest) {
            Ok(good) => (good, &rest[rest.len()..]),
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                (std::str::from_utf8(good).unwrap_or_default(), bad)
            }
        };
        if good.chars().any(is_noncharacter) {
            return Err(SyntaxError::Utf8);
        }
        text.push_str(good);
        rest = match bad {
            [] => bad,
            [0xC0, 0x80, after @ ..] => {
                text.push('\0');
                after
            }
            _ => return Err(SyntaxError::Utf8),
        };
    }
    Ok(())
}

/// Appends the character of a `\u` escape, or of a pair of them; `hex` is what follows the `u`.
fn unicode<'a>(hex: &'a [u8], token: &[u8], text: &mut String) -> Result<&'a [u8], SyntaxError> {
    let error = || {
        // The quote that ends the string shows when the digits ran out.
        let start = token.len().saturating_sub(1 + hex.len());
        let shown = token.get(start..).unwrap_or_default();
        SyntaxError::Unicode(for_message(shown.get(..4).unwrap_or(shown)))
    };
    let (first, rest) = four_digits(hex).ok_or_else(error)?;
    let (code, rest) = match (first, rest) {
        (0xD800..=0xDBFF, [b'\\', b'u', low @ ..]) => match four_digits(low) {
            Some((second @ 0xDC00..=0xDFFF, rest)) => {
                (0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), rest)
            }
            _ => return Err(error()),
        },
        _ => (first, rest),
    };
    match char::from_u32(code) {
        Some(character) if !is_noncharacter(character) => text.push(character),
        _ => return Err(error()),
    }
    Ok(rest)
}

fn four_digits(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(4)?;
    let mut value = 0;
    for &digit in digits {
        value = value * 16 + char::from(digit).to_digit(16)?;
    }
    Some((value, rest))
}

/// Code points that Unicode promises never to assign.
fn is_noncharacter(character: char) -> bool {
    let code = u32::from(character);
    (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}
