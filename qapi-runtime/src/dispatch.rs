//! From a command's name to the code that decodes its arguments and runs it.

use crate::call::Call;
use crate::document::Cursor;
use crate::error::Error;
use bytes::Bytes;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

/// What a command gives back, as JSON text.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Encoded for this call.
    Encoded(Vec<u8>),
    /// Made beforehand.
    Shared(Bytes),
}

/// A command that has been started.
pub type Pending = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// What a row's command allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It may be run out of band.
    pub allow_oob: bool,
    /// It may be run before the machine is set up.
    pub allow_preconfig: bool,
    /// It answers when it succeeds.
    pub success_response: bool,
    /// It is marked deprecated.
    pub deprecated: bool,
    /// It is marked unstable.
    pub unstable: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            allow_oob: false,
            allow_preconfig: false,
            success_response: true,
            deprecated: false,
            unstable: false,
        }
    }
}

/// One command: its name, what it allows, and how it is decoded and run.
pub struct Row<H> {
    /// The command's name.
    pub name: &'static str,
    /// What it allows.
    pub flags: Flags,
    /// Decodes the `arguments` object (nothing when the request has none) and starts the command.
    pub call: fn(&Arc<H>, Call, Option<Cursor<'_>>) -> Result<Pending, Error>,
}

impl<H> Clone for Row<H> {
    fn clone(&self) -> Self {
        Row {
            name: self.name,
            flags: self.flags,
            call: self.call,
        }
    }
}

/// All commands of a handler.
pub struct CommandTable<H> {
    rows: Vec<Row<H>>,
    by_name: HashMap<&'static str, usize>,
}

impl<H> Default for CommandTable<H> {
    fn default() -> Self {
        CommandTable {
            rows: Vec::new(),
            by_name: HashMap::new(),
        }
    }
}

impl<H> CommandTable<H> {
    /// A table without commands.
    pub fn new() -> Self {
        CommandTable::default()
    }

    /// Adds commands; one that is there already is replaced.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Row<H>>) {
        for row in rows {
            match self.by_name.get(row.name).and_then(|&at| self.rows.get_mut(at)) {
                Some(earlier) => *earlier = row,
                None => {
                    self.by_name.insert(row.name, self.rows.len());
                    self.rows.push(row);
                }
            }
        }
    }

    /// The place of a command in [`CommandTable::rows`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The command of that name.
    pub fn find(&self, name: &str) -> Option<&Row<H>> {
        self.rows.get(self.position(name)?)
    }

    /// All commands, in the order in which they were added.
    pub fn rows(&self) -> &[Row<H>] {
        &self.rows
    }
}
