//! Identities and units.

use std::fmt;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name of a node in the graph (`#blockN` when the graph made it up).
    NodeName
}
name_type! {
    /// The id of a job.
    JobId
}
name_type! {
    /// The name of a dirty bitmap, unique on its node.
    BitmapName
}
name_type! {
    /// The id of an export.
    ExportId
}

/// The unit in which QEMU's interfaces speak of sectors: 512 bytes.
pub const SECTOR_BYTES: u64 = 512;

/// The largest size and offset of a node, in bytes: what a signed 64-bit offset holds, less the largest alignment.
pub const MAX_LENGTH_BYTES: u64 = (i64::MAX as u64) & !((1 << 30) - 1);
