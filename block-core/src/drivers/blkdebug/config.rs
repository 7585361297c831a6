//! Files with rules for `blkdebug`: sections `[inject-error]` and `[set-state]` with lines `name = "value"`.
//!
//! It reads text into the rules of [`options`](crate::options) and knows nothing of how they work.

use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{InjectError, SetState};

/// A file of rules is written by hand: longer ones are no such files.
const MAX_BYTES: u64 = 1 << 20;

/// Rules of a file.
#[derive(Debug, Default)]
pub struct Rules {
    /// Its fault rules.
    pub inject_error: Vec<InjectError>,
    /// Its state rules.
    pub set_state: Vec<SetState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InjectError,
    SetState,
}

fn invalid(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

/// Reads a file.
pub fn read(path: &str) -> Result<Rules> {
    use std::io::Read;
    let failed =
        |error: std::io::Error| BlockError::from(error).context("Could not read blkdebug config file");
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| BlockError::from(error).context("Cannot read config file"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid("parse error"));
    }
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> Result<Rules> {
    let mut rules = Rules::default();
    let mut section: Option<(Kind, Vec<(&str, &str)>)> = None;
    // With the ends of lines: what is not closed goes up to and with them.
    for line in text.split_inclusive('\n') {
        if line == "\n" || line.starts_with('#') {
            continue;
        }
        if let Some(name) = section_name(line) {
            finish(section.take(), &mut rules)?;
            let kind = match name {
                "inject-error" => Kind::InjectError,
                "set-state" => Kind::SetState,
                other => return Err(invalid(format!("There is no option group '{other}'"))),
            };
            section = Some((kind, Vec::new()));
            continue;
        }
        let member = member(line).ok_or_else(|| invalid("parse error"))?;
        match &mut section {
            Some((_, members)) => members.push(member),
            None => return Err(invalid("no group defined")),
        }
    }
    finish(section, &mut rules)?;
    Ok(rules)
}

/// The name in brackets; with an id in quotes behind it, the id does not matter.
fn section_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('[')?;
    if let Some((name, id)) = rest.split_once(char::is_whitespace)
        && let Some(id) = id.trim_start().strip_prefix('"')
        && !id.is_empty()
        && !id.starts_with('"')
    {
        return Some(name);
    }
    let name = rest.split(']').next().unwrap_or(rest);
    (!name.is_empty()).then_some(name)
}

/// Name and value of a line `name = "value"`. Files are read leniently, as they always were: the name goes up to the
/// next blank, and what is no value behind it is none.
fn member(line: &str) -> Option<(&str, &str)> {
    // A line ends at a zero byte, as texts of C do.
    let line = line.split('\0').next()?.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let value = rest
        .trim_start()
        .strip_prefix('=')
        .and_then(|rest| rest.trim_start().strip_prefix('"'))
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default();
    Some((name, value))
}

/// Makes a rule of a section's lines.
fn finish(section: Option<(Kind, Vec<(&str, &str)>)>, rules: &mut Rules) -> Result<()> {
    let Some((kind, members)) = section else {
        return Ok(());
    };
    let known: &[&str] = match kind {
        Kind::InjectError => &[
            "event",
            "state",
            "iotype",
            "errno",
            "sector",
            "once",
            "immediately",
        ],
        Kind::SetState => &["event", "state", "new_state"],
    };
    if let Some((name, _)) = members.iter().find(|(name, _)| !known.contains(name)) {
        return Err(invalid(format!("Invalid parameter '{name}'")));
    }
    // The last line of a name counts.
    let text = |wanted: &str| {
        members
            .iter()
            .rev()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| *value)
    };
    let number = |name: &str, default: i64| match text(name) {
        None => Ok(default),
        Some(value) => number(name, value),
    };
    let switch = |name: &str| match text(name) {
        None | Some("off" | "no" | "false" | "n") => Ok(false),
        Some("on" | "yes" | "true" | "y") => Ok(true),
        Some(_) => Err(invalid(format!("Parameter '{name}' expects 'on' or 'off'"))),
    };
    let event = match text("event") {
        None => return Err(invalid("Missing event name for rule")),
        Some(event) if super::EVENTS.contains(&event) => event.to_owned(),
        Some(event) => return Err(invalid(format!("invalid parameter value: {event}"))),
    };
    let state = number("state", 0)?.cast_unsigned();
    match kind {
        Kind::InjectError => rules.inject_error.push(InjectError {
            event,
            state,
            iotype: text("iotype").map(str::to_owned),
            errno: i32::try_from(number("errno", 5)?)
                .map_err(|_| invalid("Parameter 'errno' expects a number"))?,
            // -1 stands for any sector.
            sector: u64::try_from(number("sector", -1)?).ok(),
            once: switch("once")?,
            immediately: switch("immediately")?,
        }),
        Kind::SetState => rules.set_state.push(SetState {
            event,
            state,
            new_state: number("new_state", 0)?.cast_unsigned(),
        }),
    }
    Ok(())
}

/// A number as C reads it: decimal, `0x...` or `0...`, of 64 bits with or without a sign.
fn number(name: &str, value: &str) -> Result<i64> {
    let no_number = || invalid(format!("Parameter '{name}' expects a number"));
    let text = value.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(no_number());
    }
    let number = u64::from_str_radix(digits, radix)
        .map_err(|_| invalid(format!("Value '{value}' is too large for parameter '{name}'")))?
        .cast_signed();
    Ok(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_become_rules() {
        let rules = parse(
            "# two rules\n[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\nonce = \"on\"\n\n\
             [set-state]\nstate = \"1\"\nevent = \"write_aio\"\nnew_state = \"2\"\n",
        )
        .unwrap();
        assert_eq!(rules.inject_error.len(), 1);
        assert_eq!(rules.inject_error[0].errno, 28);
        assert!(rules.inject_error[0].once);
        assert_eq!(rules.set_state[0].new_state, 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("[inject-error]\nerrno = \"5\"\n", "Missing event name for rule"),
            ("[inject-error]\nevent = \"zz\"\n", "invalid parameter value: zz"),
            ("[warp]\n", "There is no option group 'warp'"),
            (
                "[inject-error]\nevent = \"read_aio\"\nfoo = \"1\"\n",
                "Invalid parameter 'foo'",
            ),
            ("event = \"read_aio\"\n", "no group defined"),
            ("\0\0", "parse error"),
            ("\u{11}\u{11}", "no group defined"),
            ("[inject-error]\n  \n", "parse error"),
            (
                "[inject-error]\nevent=\"read_aio\"\n",
                "Invalid parameter 'event=\"read_aio\"'",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
