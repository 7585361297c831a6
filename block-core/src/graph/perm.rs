//! Permissions: what a parent needs of a node, and what it lets the node's other parents do.
//!
//! Every edge carries two sets, `perm` (needed) and `shared` (tolerated). Two edges of one node conflict when one
//! needs what the other does not tolerate. A node's own needs towards its children follow from what its parents
//! need of it; [`Driver::child_permissions`](crate::driver::Driver::child_permissions) translates.

use std::fmt;
use std::ops::{BitAnd, BitOr, Not};

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Perm(u8);

impl Perm {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reads see what the guest sees.
    pub const CONSISTENT_READ: Self = Self(1);
    /// Writes that change the content.
    pub const WRITE: Self = Self(2);
    /// Writes that leave the visible content as it is.
    pub const WRITE_UNCHANGED: Self = Self(4);
    /// Changes of the length.
    pub const RESIZE: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);

    /// Every permission with its name in messages, in the order of its bit (which is also its lock byte's order).
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::CONSISTENT_READ, "consistent read"),
        (Self::WRITE, "write"),
        (Self::WRITE_UNCHANGED, "write unchanged"),
        (Self::RESIZE, "resize"),
    ];

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set and the other, for constants.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other, for constants.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Perm {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Perm {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Perm {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (bit, name) in Self::NAMES {
            if self.contains(bit) {
                if !first {
                    f.write_str(", ")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Perm({self})")
    }
}

/// What a child is to its parent; decides its default permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildRole {
    /// Holds a format's data and metadata: nobody else may write it.
    Storage,
    /// Shown through as it is (filters, `raw`).
    Filtered,
    /// Holds guest data at fixed places (a window of `raw`): others may write, not resize.
    Data,
    /// Gives the content that an overlay does not hold.
    Backing,
    /// Receives copies (copy-before-write).
    Target,
    /// The edge of a [`Backend`](super::Backend).
    Root,
}

/// What a driver must know to say what it needs of a child.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The node takes writes (it is not read-only).
    pub writable: bool,
    /// The node has a parent.
    pub has_parents: bool,
    /// What its parents need together.
    pub perm: Perm,
    /// What all of its parents tolerate.
    pub shared: Perm,
}

/// Permissions that a node asks of a child, given what its parents ask of it.
pub fn default_child_permissions(role: ChildRole, needs: &Needs) -> (Perm, Perm) {
    let Needs {
        writable,
        perm,
        shared,
        ..
    } = *needs;
    match role {
        // What the parents want is wanted below; writing unchanged data harms no one.
        ChildRole::Filtered | ChildRole::Root => (perm, shared | Perm::WRITE_UNCHANGED),
        ChildRole::Data => (perm, shared.without(Perm::RESIZE) | Perm::WRITE_UNCHANGED),
        ChildRole::Storage => {
            let mut needed = perm | Perm::CONSISTENT_READ;
            if writable {
                needed = needed | Perm::WRITE | Perm::RESIZE;
            }
            (
                needed,
                shared.without(Perm::WRITE).without(Perm::RESIZE) | Perm::WRITE_UNCHANGED,
            )
        }
        ChildRole::Backing => {
            // An overlay over a backing file that changes shows garbage; with a reader above it must hold still.
            let needed = perm & Perm::CONSISTENT_READ;
            let keep = if shared.contains(Perm::WRITE) {
                Perm::WRITE | Perm::RESIZE
            } else {
                Perm::NONE
            };
            (needed, Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED | keep)
        }
        ChildRole::Target => (Perm::WRITE, Perm::ALL.without(Perm::RESIZE)),
    }
}
