//! The stable codes of all rules.

use std::fmt;

/// The code of a rule: `QAPI0102`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QAPI{:04}", self.0)
    }
}
