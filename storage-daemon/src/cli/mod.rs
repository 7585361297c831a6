//! The command line: options, their `key=value` values, and what is printed about them.
//!
//! Knows the syntax only; what an option does is `startup`'s affair.

pub mod chardev;
pub mod help;
pub mod keyval;
pub mod options;
pub mod policy;
pub mod trace;

/// What is wrong with the command line: one line, without the program's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CliError(pub String);

impl CliError {
    /// An error from anything that has a text.
    pub fn new(text: impl std::fmt::Display) -> Self {
        Self(text.to_string())
    }

    /// The same, with the option that it is about in front.
    #[must_use]
    pub fn at(self, location: &str) -> Self {
        Self(format!("{location}: {}", self.0))
    }
}
