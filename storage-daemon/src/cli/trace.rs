//! `--trace`: the option of the reference, for what can be said of it here.
//!
//! The reference's trace events are places in its own code, so none of them exists here; the log (`--log`) tells
//! what goes on. Command lines with the option go on working, and a name that could have been meant is answered.

use super::CliError;

/// What the option asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Trace {
    /// Print what there is and end.
    List,
    /// Names of events, some with wildcards.
    Enable(Vec<String>),
}

/// The log's targets: what takes the place of trace events.
pub const TARGETS: &str = "qmp::session\nqmp::command\nqmp::event\nqmp::server\nqmp::audit\n";

/// Reads the value of `--trace`.
pub fn parse(text: &str) -> Result<Trace, CliError> {
    let mut names = Vec::new();
    for (at, item) in text.split(',').enumerate() {
        match item.split_once('=') {
            None if matches!(item, "help" | "?") => return Ok(Trace::List),
            None if at == 0 => names.push(item.to_owned()),
            None => return Err(CliError::new(format!("Invalid parameter '{item}'"))),
            Some(("enable", "help" | "?")) => return Ok(Trace::List),
            Some(("enable", name)) => names.push(name.to_owned()),
            Some(("events", path)) => {
                let list = std::fs::read_to_string(path)
                    .map_err(|error| CliError::new(format!("{path}: {}", crate::process::os_text(&error))))?;
                names.extend(
                    list.lines()
                        .map(str::trim)
                        .filter(|line| !line.is_empty() && !line.starts_with('#'))
                        .map(str::to_owned),
                );
            }
            // Nothing would ever be written to it.
            Some(("file", _)) => {}
            Some((key, _)) => return Err(CliError::new(format!("Invalid parameter '{key}'"))),
        }
    }
    names.retain(|name| !name.is_empty());
    Ok(Trace::Enable(names))
}

/// What to say of names that are no events. A pattern that fits nothing is no mistake, nor is what is switched off.
pub fn unknown(names: &[String]) -> impl Iterator<Item = String> {
    names
        .iter()
        .filter(|name| !name.contains(['*', '?']) && !name.starts_with('-'))
        .map(|name| format!("warning: trace event '{name}' does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        assert_eq!(parse("help").unwrap(), Trace::List);
        assert_eq!(parse("enable=help").unwrap(), Trace::List);
        let names = |text| match parse(text).unwrap() {
            Trace::Enable(names) => names,
            Trace::List => panic!("{text} is no list"),
        };
        assert_eq!(names("qmp*"), ["qmp*"]);
        assert_eq!(names("enable=a,enable=b,file=/x"), ["a", "b"]);
        assert_eq!(unknown(&names("enable=a,enable=b*")).count(), 1);
        assert_eq!(parse("warp=1").unwrap_err().0, "Invalid parameter 'warp'");
    }
}
