//! The errors of the wire: what a command answers when it fails, and what was wrong with its arguments.
//!
//! Texts are those that QMP clients match on. The path to a member is put together only when there is
//! an error: each level adds its step while the error unwinds, so good input pays nothing for it.

use std::borrow::Cow;
use std::fmt;

/// The class of an error, as clients tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Everything that has no class of its own.
    #[default]
    GenericError,
    /// The command does not exist, or not now.
    CommandNotFound,
    /// The device (or block job) is not active.
    DeviceNotActive,
    /// The device does not exist.
    DeviceNotFound,
    /// A capability of KVM is missing.
    KVMMissingCap,
}

impl ErrorClass {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::GenericError => "GenericError",
            ErrorClass::CommandNotFound => "CommandNotFound",
            ErrorClass::DeviceNotActive => "DeviceNotActive",
            ErrorClass::DeviceNotFound => "DeviceNotFound",
            ErrorClass::KVMMissingCap => "KVMMissingCap",
        }
    }

    /// The class of that name; a client takes an unknown one as `GenericError`.
    pub fn from_name(name: &str) -> Option<ErrorClass> {
        [
            ErrorClass::GenericError,
            ErrorClass::CommandNotFound,
            ErrorClass::DeviceNotActive,
            ErrorClass::DeviceNotFound,
            ErrorClass::KVMMissingCap,
        ]
        .into_iter()
        .find(|class| class.as_str() == name)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a command answers when it fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{desc}")]
pub struct Error {
    /// The class.
    pub class: ErrorClass,
    /// The sentence for people.
    pub desc: String,
}

impl Error {
    /// An error of a class.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Error {
            class,
            desc: desc.into(),
        }
    }

    /// An error of class `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        Error::new(ErrorClass::GenericError, desc)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Error::generic(error.to_string())
    }
}

/// Why a value does not fit its type, and where it stands.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
// Boxed: a `Result` of a small value must not grow by an error's size.
pub struct DecodeError(Box<Inner>);

#[derive(Debug, Clone, PartialEq)]
struct Inner {
    kind: DecodeErrorKind,
    /// Innermost step first.
    steps: Vec<Step>,
    /// List indices are written `list.0`, as in `key=value` options, not `list[0]`.
    dotted: bool,
}

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(Cow<'static, str>),
    Index(usize),
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A member that must be there is not.
    Missing,
    /// A member that the type does not have.
    Unexpected,
    /// Several members `NAME.*` that the type does not have (`key=value` options only).
    UnexpectedGroup,
    /// The value has another JSON type than the one named here.
    Type(&'static str),
    /// No branch of the alternate named here takes such a value.
    Alternate(&'static str),
    /// The text or number is no value of the type named here.
    Expects(&'static str),
    /// The number is out of the range of the type named here.
    Range(&'static str),
    /// The enumeration has no such value.
    Value(String),
    /// The policy refuses a deprecated or unstable member; the text says which of the two.
    RefusedMember(&'static str),
    /// The policy refuses a deprecated or unstable enumeration value.
    RefusedValue(&'static str, String),
    /// A value that no member holds, with a text of its own.
    Other(String),
}

impl DecodeError {
    /// An error of the value at hand.
    #[cold]
    pub fn new(kind: DecodeErrorKind) -> Self {
        DecodeError(Box::new(Inner {
            kind,
            steps: Vec::new(),
            dotted: false,
        }))
    }

    /// An error whose text was made elsewhere.
    #[cold]
    pub fn other(text: impl Into<String>) -> Self {
        DecodeError::new(DecodeErrorKind::Other(text.into()))
    }

    /// The value has another JSON type than `expected`.
    #[cold]
    pub fn expected(expected: &'static str) -> Self {
        DecodeError::new(DecodeErrorKind::Type(expected))
    }

    /// The enumeration has no such value.
    #[cold]
    pub fn value(value: &str) -> Self {
        DecodeError::new(DecodeErrorKind::Value(value.to_owned()))
    }

    /// No branch of the alternate `name` takes such a value.
    #[cold]
    pub fn alternate(name: &'static str) -> Self {
        DecodeError::new(DecodeErrorKind::Alternate(name))
    }

    /// The value that is wrong is the member `name` of the value at hand.
    #[cold]
    #[must_use]
    pub fn in_member(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.steps.push(Step::Member(name.into()));
        self
    }

    /// The value that is wrong is an element of the list at hand.
    #[cold]
    #[must_use]
    pub fn in_element(mut self, index: usize) -> Self {
        self.0.steps.push(Step::Index(index));
        self
    }

    #[cold]
    #[must_use]
    pub(crate) fn with_dots(mut self, dotted: bool) -> Self {
        self.0.dotted |= dotted;
        self
    }

    /// What is wrong.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// The way to the value, as in `actions[1].data.sync`; empty for the outermost value.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.steps.iter().rev() {
            match step {
                Step::Member(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Index(index) if self.0.dotted => path.push_str(&format!(".{index}")),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// The innermost name; the elements of a list have none and are called `null`.
    fn leaf(&self) -> &str {
        match self.0.steps.first() {
            Some(Step::Member(name)) => name,
            _ => "null",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            DecodeErrorKind::Missing => write!(f, "Parameter '{}' is missing", self.path()),
            DecodeErrorKind::Unexpected => write!(f, "Parameter '{}' is unexpected", self.path()),
            DecodeErrorKind::UnexpectedGroup => write!(f, "Parameters '{}.*' are unexpected", self.path()),
            DecodeErrorKind::Type(expected) => {
                write!(
                    f,
                    "Invalid parameter type for '{}', expected: {expected}",
                    self.path()
                )
            }
            DecodeErrorKind::Alternate(name) => {
                write!(
                    f,
                    "Invalid parameter type for '{}', expected: {name}",
                    self.leaf()
                )
            }
            DecodeErrorKind::Expects(what) => write!(f, "Parameter '{}' expects {what}", self.path()),
            DecodeErrorKind::Range(what) => write!(f, "Parameter '{}' expects {what}", self.leaf()),
            DecodeErrorKind::Value(value) => {
                write!(f, "Parameter '{}' does not accept value '{value}'", self.leaf())
            }
            DecodeErrorKind::RefusedMember(why) => {
                write!(f, "{why} parameter {} disabled by policy", self.leaf())
            }
            DecodeErrorKind::RefusedValue(why, value) => write!(f, "{why} value {value} disabled by policy"),
            DecodeErrorKind::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reads_from_outside_in() {
        let error = DecodeError::expected("string")
            .in_member("sync")
            .in_member("data")
            .in_element(1)
            .in_member("actions");
        assert_eq!(
            error.to_string(),
            "Invalid parameter type for 'actions[1].data.sync', expected: string"
        );
        assert_eq!(error.with_dots(true).path(), "actions.1.data.sync");
    }

    #[test]
    fn enumeration_values_and_alternates_name_the_leaf_only() {
        let error = DecodeError::new(DecodeErrorKind::Value("y".into()))
            .in_member("sync")
            .in_member("data");
        assert_eq!(error.to_string(), "Parameter 'sync' does not accept value 'y'");
        let error = DecodeError::alternate("BlockDirtyBitmapOrStr")
            .in_element(0)
            .in_member("bitmaps");
        assert_eq!(
            error.to_string(),
            "Invalid parameter type for 'null', expected: BlockDirtyBitmapOrStr"
        );
    }

    #[test]
    fn class_names_go_both_ways() {
        assert_eq!(
            ErrorClass::from_name("DeviceNotActive"),
            Some(ErrorClass::DeviceNotActive)
        );
        assert_eq!(ErrorClass::from_name("Nope"), None);
    }
}
