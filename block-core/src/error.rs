//! Errors of the block layer: a small kind to match on, with a text for people.

use std::fmt;
use std::io;

/// The result of a block layer operation.
pub type Result<T, E = BlockError> = std::result::Result<T, E>;

/// What kind of failure it was: callers match on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A node, job, bitmap, export or group of that name does not exist.
    NotFound,
    /// The name is taken.
    Exists,
    /// It is in use by something that forbids the operation (op blocker, busy bitmap, image lock).
    Busy,
    /// A parent needs what another parent does not share.
    Permission,
    /// The node or bitmap is read-only.
    ReadOnly,
    /// An argument does not fit.
    Invalid,
    /// Known to the language, not supported by this node, format or build.
    Unsupported,
    /// The image contradicts its own format.
    Corrupt,
    /// The operating system or a remote peer failed the operation; see [`BlockError::errno`].
    Io,
    /// It was cancelled.
    Cancelled,
}

/// An error of the block layer.
///
/// `Display` gives exactly the text that QMP clients see in `desc`.
#[derive(Debug, Clone)]
pub struct BlockError {
    kind: ErrorKind,
    message: String,
    errno: i32,
    hint: Option<Box<str>>,
}

impl BlockError {
    /// An error with the text that clients see.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let errno = match kind {
            ErrorKind::NotFound => 2,
            ErrorKind::Exists => 17,
            ErrorKind::Busy => 16,
            ErrorKind::Permission => 1,
            ErrorKind::ReadOnly => 30,
            ErrorKind::Invalid => 22,
            ErrorKind::Unsupported => 95,
            ErrorKind::Corrupt | ErrorKind::Io => 5,
            ErrorKind::Cancelled => 125,
        };
        Self {
            kind,
            message: message.into(),
            errno,
            hint: None,
        }
    }

    /// An I/O failure with its errno (a positive number of Linux) and a text of its own.
    pub fn from_errno(errno: i32, message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Io,
            message: message.into(),
            errno,
            hint: None,
        }
    }

    /// The same failure, seen from further out: `context: what it said`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// With a second line for people at a terminal; QMP does not carry it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into_boxed_str());
        self
    }

    /// The second line, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The positive Linux errno that stands for it (NBD replies, `werror` policies: ENOSPC is 28).
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BlockError {}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::from_errno(errno, os_text(errno)),
            None => Self::from_errno(5, error.to_string()),
        }
    }
}

impl From<rustix::io::Errno> for BlockError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::from_errno(errno.raw_os_error(), os_text(errno.raw_os_error()))
    }
}

/// The C library's text for an errno, without the `(os error N)` that Rust adds: clients compare with `strerror`.
fn os_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
