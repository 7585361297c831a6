//! From a command's name to the method that runs it.
//!
//! Generated code makes one [`Row`] a command; a [`CommandTable`] finds it by name. Negotiation, `id`,
//! queues and replies are the session's.

use crate::call::Call;
use crate::decode::{Decode, Object};
use crate::document::Cursor;
use crate::encode::{Encode, Writer};
use crate::error::{DecodeError, Error};
use crate::policy::Special;
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// What a command answers: JSON.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Made for this reply.
    Encoded(Vec<u8>),
    /// Made beforehand.
    Shared(Bytes),
}

impl Reply {
    /// The JSON.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Reply::Encoded(bytes) => bytes,
            Reply::Shared(bytes) => bytes,
        }
    }
}

/// A command that has begun. It owns all that it needs.
pub type Pending = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// How a row decodes the arguments and calls the handler.
pub type CallFn<H> = fn(&Arc<H>, Call, Option<Cursor<'_>>) -> Result<Pending, Error>;

/// What a session needs to know of a command before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// May be sent out of band.
    pub allow_oob: bool,
    /// May be sent before the machine is configured.
    pub allow_preconfig: bool,
    /// Answers when it succeeds (nearly all do).
    pub success_response: bool,
    /// The schema says that it may wait; every handler here may.
    pub coroutine: bool,
    /// It is marked deprecated.
    pub deprecated: bool,
    /// It is marked unstable.
    pub unstable: bool,
}

impl Flags {
    const PLAIN: Flags = Flags {
        allow_oob: false,
        allow_preconfig: false,
        success_response: true,
        coroutine: false,
        deprecated: false,
        unstable: false,
    };

    /// The two features with a meaning to the runtime.
    pub fn special(self) -> Special {
        let deprecated = if self.deprecated {
            Special::DEPRECATED
        } else {
            Special::NONE
        };
        let unstable = if self.unstable {
            Special::UNSTABLE
        } else {
            Special::NONE
        };
        deprecated.and(unstable)
    }
}

impl Default for Flags {
    fn default() -> Self {
        Flags::PLAIN
    }
}

/// One command of a handler `H`.
pub struct Row<H> {
    /// The name on the wire.
    pub name: &'static str,
    /// What a session needs to know before it runs it.
    pub flags: Flags,
    /// All features, these two included.
    pub features: &'static [&'static str],
    /// Decodes the arguments and calls the handler. Use [`Row::start`], which looks at the policy first.
    pub call: CallFn<H>,
}

impl<H> Row<H> {
    /// A command without flags or features.
    pub const fn new(name: &'static str, call: CallFn<H>) -> Self {
        Row {
            name,
            flags: Flags::PLAIN,
            features: &[],
            call,
        }
    }

    /// The same command, but it may be sent out of band.
    #[must_use]
    pub const fn allow_oob(mut self) -> Self {
        self.flags.allow_oob = true;
        self
    }

    /// The same command, but it may be sent before the machine is configured.
    #[must_use]
    pub const fn allow_preconfig(mut self) -> Self {
        self.flags.allow_preconfig = true;
        self
    }

    /// The same command, but it does not answer when it succeeds.
    #[must_use]
    pub const fn no_success_response(mut self) -> Self {
        self.flags.success_response = false;
        self
    }

    /// The same command, marked as one that may wait.
    #[must_use]
    pub const fn coroutine(mut self) -> Self {
        self.flags.coroutine = true;
        self
    }

    /// The same command with features; `deprecated` and `unstable` are flags as well.
    #[must_use]
    pub fn features(mut self, features: &'static [&'static str]) -> Self {
        self.features = features;
        self.flags.deprecated = features.contains(&"deprecated");
        self.flags.unstable = features.contains(&"unstable");
        self
    }

    /// Begins the command: looks at the policy, decodes the arguments, calls the handler.
    ///
    /// # Errors
    /// When the policy refuses the command or the arguments are wrong.
    pub fn start(
        &self,
        handler: &Arc<H>,
        call: Call,
        arguments: Option<Cursor<'_>>,
    ) -> Result<Pending, Error> {
        call.policy.check_command(self.name, self.flags.special())?;
        let arguments = arguments.map(|cursor| cursor.with_policy(call.policy));
        (self.call)(handler, call, arguments)
    }
}

// Not derived: a derive would ask the same of the handler.
impl<H> Clone for Row<H> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H> Copy for Row<H> {}

impl<H> fmt::Debug for Row<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            name,
            flags,
            features,
            call: _,
        } = self;
        f.debug_struct("Row")
            .field("name", name)
            .field("flags", flags)
            .field("features", features)
            .finish_non_exhaustive()
    }
}

/// All commands of a handler, by name.
pub struct CommandTable<H> {
    rows: Vec<Row<H>>,
    by_name: HashMap<&'static str, usize>,
}

impl<H> CommandTable<H> {
    /// An empty table.
    pub fn new() -> Self {
        CommandTable {
            rows: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Adds commands; of two with one name, the later counts.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Row<H>>) {
        for row in rows {
            match self.by_name.get(row.name).and_then(|&at| self.rows.get_mut(at)) {
                Some(old) => *old = row,
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

impl<H> Default for CommandTable<H> {
    fn default() -> Self {
        CommandTable::new()
    }
}

impl<H> fmt::Debug for CommandTable<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rows).finish()
    }
}

impl<H> FromIterator<Row<H>> for CommandTable<H> {
    fn from_iter<I: IntoIterator<Item = Row<H>>>(rows: I) -> Self {
        let mut table = CommandTable::new();
        table.extend(rows);
        table
    }
}

/// Decodes the arguments and calls a method that takes them.
///
/// # Errors
/// When the arguments are wrong.
pub fn with_arguments<H, A, R, F>(
    handler: &Arc<H>,
    call: Call,
    arguments: Option<Cursor<'_>>,
    method: impl FnOnce(Arc<H>, Call, A) -> F,
) -> Result<Pending, Error>
where
    A: Decode,
    R: Encode,
    F: Future<Output = Result<R, Error>> + Send + 'static,
{
    let empty;
    let arguments = match arguments {
        Some(arguments) => arguments,
        None => {
            // No arguments are the same as an empty object, so that a missing member is named.
            empty = crate::document::Document::empty_object();
            empty.root().ok_or_else(|| Error::generic("no arguments"))?
        }
    };
    let arguments = A::decode(arguments)?;
    let policy = call.policy;
    let future = method(Arc::clone(handler), call, arguments);
    Ok(Box::pin(async move { reply(&future.await?, policy) }))
}

/// Calls a method that takes no arguments.
///
/// # Errors
/// When there are arguments.
pub fn without_arguments<H, R, F>(
    handler: &Arc<H>,
    call: Call,
    arguments: Option<Cursor<'_>>,
    method: impl FnOnce(Arc<H>, Call) -> F,
) -> Result<Pending, Error>
where
    R: Encode,
    F: Future<Output = Result<R, Error>> + Send + 'static,
{
    no_members(arguments)?;
    let policy = call.policy;
    let future = method(Arc::clone(handler), call);
    Ok(Box::pin(async move { reply(&future.await?, policy) }))
}

fn no_members(arguments: Option<Cursor<'_>>) -> Result<(), DecodeError> {
    arguments.map_or(Ok(()), |arguments| Object::open(arguments)?.finish())
}

fn reply(value: &impl Encode, policy: crate::policy::Policy) -> Result<Reply, Error> {
    let mut out = Writer::new(policy);
    value.encode(&mut out);
    Ok(Reply::Encoded(out.into_bytes()))
}
