//! Splits the arguments into options, by the rules of the C library's `getopt_long`: values attached with `=`
//! or in the next argument, and long names abbreviated as long as they are clear.

use super::CliError;

/// An option by its long name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `--blockdev`
    Blockdev,
    /// `--chardev`
    Chardev,
    /// `--daemonize`
    Daemonize,
    /// `--export`
    Export,
    /// `--help`, `-h`
    Help,
    /// `--monitor`
    Monitor,
    /// `--nbd-server`
    NbdServer,
    /// `--object`
    Object,
    /// `--pidfile`
    Pidfile,
    /// `--trace`, `-T`
    Trace,
    /// `--version`, `-V`
    Version,
    /// `--audit`
    Audit,
    /// `--compat`
    Compat,
    /// `--log`
    Log,
    /// An argument that is none
    Stray,
}

impl Name {
    /// Whether it asks about the program, which does nothing else then.
    pub fn is_question(self) -> bool {
        matches!(self, Name::Help | Name::Version)
    }
}

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Which one.
    pub name: Name,
    /// Its value; empty for an option without one.
    pub value: String,
    /// The arguments that it was given by, for error texts.
    pub location: String,
}

/// The options of QEMU's storage daemon: an abbreviation is looked up among these first, so that an option of
/// ours never makes one of theirs ambiguous.
const THEIRS: &[(&str, Name, bool)] = &[
    ("blockdev", Name::Blockdev, true),
    ("chardev", Name::Chardev, true),
    ("daemonize", Name::Daemonize, false),
    ("export", Name::Export, true),
    ("help", Name::Help, false),
    ("monitor", Name::Monitor, true),
    ("nbd-server", Name::NbdServer, true),
    ("object", Name::Object, true),
    ("pidfile", Name::Pidfile, true),
    ("trace", Name::Trace, true),
    ("version", Name::Version, false),
];

const OURS: &[(&str, Name, bool)] = &[
    ("audit", Name::Audit, true),
    ("compat", Name::Compat, true),
    ("log", Name::Log, true),
];

/// Splits `arguments` (without the program's name).
pub fn parse(arguments: &[String]) -> Result<Vec<Given>, CliError> {
    let mut given = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            // What follows is no option, and the reference does not look at it either.
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            let (typed, attached) = match long.split_once('=') {
                Some((typed, value)) => (typed, Some(value)),
                None => (long, None),
            };
            let (full, name, takes_value) = find(typed)?;
            let option = match (takes_value, attached) {
                (true, Some(value)) => Given {
                    name,
                    value: value.to_owned(),
                    location: argument.clone(),
                },
                (true, None) => match rest.next() {
                    Some(value) => Given {
                        name,
                        value: value.clone(),
                        location: format!("{argument} {value}"),
                    },
                    None => return Err(CliError::new(format!("option '--{full}' requires an argument"))),
                },
                (false, Some(_)) => {
                    return Err(CliError::new(format!(
                        "option '--{full}' doesn't allow an argument"
                    )));
                }
                (false, None) => Given {
                    name,
                    value: String::new(),
                    location: argument.clone(),
                },
            };
            given.push(option);
        } else if let Some(short) = argument.strip_prefix('-').filter(|short| !short.is_empty()) {
            shorts(argument, short, &mut rest, &mut given)?;
        } else {
            // Refused in its turn: a mistake in an option before it is the first thing to tell.
            given.push(Given {
                name: Name::Stray,
                value: String::new(),
                location: argument.clone(),
            });
        }
        // Who asks for help gets it, whatever follows.
        if given.last().is_some_and(|last| last.name.is_question()) {
            break;
        }
    }
    Ok(given)
}

/// A bundle of one-letter options.
fn shorts<'a>(
    argument: &str,
    letters: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    given: &mut Vec<Given>,
) -> Result<(), CliError> {
    // `-compat` and its like are QEMU's spelling of long options; getopt would take them letter by letter.
    if letters == "compat" || letters.starts_with("compat=") {
        let value = match letters.strip_prefix("compat=") {
            Some(value) => Some(value.to_owned()),
            None => rest.next().cloned(),
        };
        let Some(value) = value else {
            return Err(CliError::new("option '-compat' requires an argument"));
        };
        let location = format!("{argument} {value}");
        given.push(Given {
            name: Name::Compat,
            value,
            location,
        });
        return Ok(());
    }
    for (at, letter) in letters.char_indices() {
        let name = match letter {
            'h' => Name::Help,
            'V' => Name::Version,
            'T' => {
                let attached = letters.get(at + 1..).unwrap_or_default();
                let (value, location) = if attached.is_empty() {
                    let Some(value) = rest.next() else {
                        return Err(CliError::new("option requires an argument -- 'T'"));
                    };
                    (value.clone(), format!("{argument} {value}"))
                } else {
                    (attached.to_owned(), argument.to_owned())
                };
                given.push(Given {
                    name: Name::Trace,
                    value,
                    location,
                });
                return Ok(());
            }
            other => return Err(CliError::new(format!("invalid option -- '{other}'"))),
        };
        given.push(Given {
            name,
            value: String::new(),
            location: argument.to_owned(),
        });
    }
    Ok(())
}

fn find(typed: &str) -> Result<(&'static str, Name, bool), CliError> {
    for table in [THEIRS, OURS] {
        if let Some(&exact) = table.iter().find(|(full, ..)| *full == typed) {
            return Ok(exact);
        }
    }
    for table in [THEIRS, OURS] {
        let fitting: Vec<_> = table
            .iter()
            .filter(|(full, ..)| full.starts_with(typed))
            .collect();
        match fitting.as_slice() {
            [] => {}
            &[&only] => return Ok(only),
            several => {
                let names: Vec<_> = several.iter().map(|(full, ..)| format!("'--{full}'")).collect();
                return Err(CliError::new(format!(
                    "option '--{typed}' is ambiguous; possibilities: {}",
                    names.join(" ")
                )));
            }
        }
    }
    Err(CliError::new(format!("unrecognized option '--{typed}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(arguments: &[&str]) -> Result<Vec<Given>, String> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        parse(&arguments).map_err(|error| error.0)
    }

    #[test]
    fn values_are_attached_or_next() {
        let given = split(&["--blockdev", "null-co", "--nbd=x=y", "-Tfoo", "-T", "bar", "-hV"]).unwrap();
        let seen: Vec<_> = given
            .iter()
            .map(|one| (one.name, one.value.as_str(), one.location.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (Name::Blockdev, "null-co", "--blockdev null-co"),
                (Name::NbdServer, "x=y", "--nbd=x=y"),
                (Name::Trace, "foo", "-Tfoo"),
                (Name::Trace, "bar", "-T bar"),
                (Name::Help, "", "-hV"),
                (Name::Version, "", "-hV"),
            ]
        );
    }

    #[test]
    fn abbreviations_of_theirs_stay_clear() {
        assert_eq!(split(&["--c", "x"]).unwrap()[0].name, Name::Chardev);
        assert_eq!(split(&["--l", "x"]).unwrap()[0].name, Name::Log);
    }

    #[test]
    fn what_is_no_option_is_kept_for_its_turn_and_help_ends_the_reading() {
        let names = |arguments: &[&str]| -> Vec<_> {
            let given = split(arguments).unwrap();
            given.iter().map(|one| one.name).collect()
        };
        assert_eq!(names(&["stray", "--daemonize"]), [Name::Stray, Name::Daemonize]);
        assert_eq!(
            names(&["--export", "x", "-h", "--bogus"]),
            [Name::Export, Name::Help]
        );
    }

    #[test]
    fn mistakes() {
        for (arguments, message) in [
            (&["--bogus"][..], "unrecognized option '--bogus'"),
            (&["-x"], "invalid option -- 'x'"),
            (&["--blockdev"], "option '--blockdev' requires an argument"),
            (&["--pid"], "option '--pidfile' requires an argument"),
            (
                &["--daemonize=1"],
                "option '--daemonize' doesn't allow an argument",
            ),
        ] {
            assert_eq!(split(arguments).unwrap_err(), message);
        }
    }
}
