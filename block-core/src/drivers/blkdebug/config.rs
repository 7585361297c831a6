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
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            finish(section.take(), &mut rules)?;
            let kind = match name.trim() {
                "inject-error" => Kind::InjectError,
                "set-state" => Kind::SetState,
                other => return Err(invalid(format!("There is no option group '{other}'"))),
            };
            section = Some((kind, Vec::new()));
            continue;
        }
        let Some((_, members)) = &mut section else {
            return Err(invalid("no group defined"));
        };
        let (name, value) = line
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .ok_or_else(|| invalid("parse error"))?;
        let value = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| invalid("parse error"))?;
        members.push((name, value));
    }
    finish(section, &mut rules)?;
    Ok(rules)
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
        Some(value) => value
            .parse()
            .map_err(|_| invalid(format!("Parameter '{name}' expects a number"))),
    };
    let switch = |name: &str| match text(name) {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
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
            ("\0\0", "no group defined"),
            ("[inject-error]\n\0\0", "parse error"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
