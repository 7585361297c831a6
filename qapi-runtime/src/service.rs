//! The commands of a server: those of the program's table and those that every monitor has.

use crate::call::Call;
use crate::dispatch::{CommandTable, Flags, Pending};
use crate::document::{Cursor, Token};
use crate::error::Error;
use crate::text;
use std::collections::HashMap;
use std::sync::Arc;

/// What a command's name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `qmp_capabilities`
    Capabilities,
    /// `query-commands`
    Commands,
    /// `query-qmp-schema`
    Schema,
    /// A row of the program's table.
    Row(usize),
}

/// A command that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) flags: Flags,
    pub(crate) target: Target,
}

/// Starts commands of a table; hides the handler's type.
trait Rows: Send + Sync {
    fn start(&self, row: usize, call: Call, arguments: Option<Cursor<'_>>) -> Result<Pending, Error>;
}

struct Bound<H> {
    table: CommandTable<H>,
    handler: Arc<H>,
}

impl<H: Send + Sync> Rows for Bound<H> {
    fn start(&self, row: usize, call: Call, arguments: Option<Cursor<'_>>) -> Result<Pending, Error> {
        match self.table.rows().get(row) {
            Some(row) => row.start(&self.handler, call, arguments),
            None => Err(Error::generic("no such command")),
        }
    }
}

/// All commands of a server.
pub(crate) struct Service {
    rows: Box<dyn Rows>,
    /// In the order of `query-commands`.
    commands: Vec<Command>,
    by_name: HashMap<&'static str, usize>,
}

impl Service {
    pub(crate) fn new<H: Send + Sync + 'static>(table: CommandTable<H>, handler: Arc<H>) -> Self {
        let builtin = [
            ("qmp_capabilities", Target::Capabilities),
            ("query-commands", Target::Commands),
            ("query-qmp-schema", Target::Schema),
        ];
        let mut commands: Vec<Command> = Vec::new();
        for (at, row) in table.rows().iter().enumerate() {
            let target = builtin
                .iter()
                .find(|(name, _)| *name == row.name)
                .map_or(Target::Row(at), |found| found.1);
            commands.push(Command {
                name: row.name,
                flags: row.flags,
                target,
            });
        }
        for (name, target) in builtin {
            if !commands.iter().any(|command| command.target == target) {
                commands.push(Command {
                    name,
                    flags: Flags::default(),
                    target,
                });
            }
        }
        let by_name = commands
            .iter()
            .enumerate()
            .map(|(at, command)| (command.name, at))
            .collect();
        Service {
            rows: Box::new(Bound { table, handler }),
            commands,
            by_name,
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Command> {
        self.commands.get(*self.by_name.get(name)?).copied()
    }

    pub(crate) fn start(
        &self,
        row: usize,
        call: Call,
        arguments: Option<Cursor<'_>>,
    ) -> Result<Pending, Error> {
        self.rows.start(row, call, arguments)
    }

    /// The return value of `query-commands`.
    pub(crate) fn write_names(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, command) in self.commands.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"{\"name\": " } else { b", {\"name\": " });
            text::write_string(out, command.name);
            out.push(b'}');
        }
        out.push(b']');
    }
}

/// Refuses any argument of a command that takes none.
pub(crate) fn no_arguments(arguments: Option<Cursor<'_>>) -> Result<(), Error> {
    match arguments.and_then(|arguments| arguments.members().next()) {
        Some((key, _)) => Err(Error::generic(format!("Parameter '{key}' is unexpected"))),
        None => Ok(()),
    }
}

/// What a client may ask of a session in `qmp_capabilities`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Out-of-band execution.
    pub(crate) oob: bool,
}

impl Capabilities {
    /// The arguments of `qmp_capabilities`.
    pub(crate) fn decode(arguments: Option<Cursor<'_>>) -> Result<Self, Error> {
        let mut wanted = Capabilities::default();
        let Some(arguments) = arguments else {
            return Ok(wanted);
        };
        if let Some((_, enable)) = arguments.members().find(|(key, _)| *key == "enable") {
            if !matches!(enable.token(), Token::Array { .. }) {
                return Err(Error::generic(
                    "Invalid parameter type for 'enable', expected: array",
                ));
            }
            for (at, element) in enable.elements().enumerate() {
                match element.as_str() {
                    Some("oob") => wanted.oob = true,
                    Some(other) => {
                        return Err(Error::generic(format!(
                            "Parameter 'null' does not accept value '{other}'"
                        )));
                    }
                    None => {
                        return Err(Error::generic(format!(
                            "Invalid parameter type for 'enable[{at}]', expected: string"
                        )));
                    }
                }
            }
        }
        match arguments.members().find(|(key, _)| *key != "enable") {
            Some((key, _)) => Err(Error::generic(format!("Parameter '{key}' is unexpected"))),
            None => Ok(wanted),
        }
    }
}
