//! How much of everything a schema may have. Each limit is far beyond any schema in use and far
//! below what would hurt the machine; each one has a diagnostic.

/// Longest file in bytes: spans are 32 bits wide.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// All files of one schema together, in bytes.
pub const MAX_TOTAL_BYTES: u64 = 1 << 30;

/// Files of one schema.
pub const MAX_FILES: usize = 10_000;

/// Levels of brackets. A recursive reader needs an end; real schemas stay below ten.
pub const MAX_NESTING: usize = 400;

/// Distinct features of one schema, the two special ones included: they are kept in a 64-bit set.
pub const MAX_FEATURES: usize = 64;

/// Levels of branches within branches.
pub const MAX_TYPE_DEPTH: usize = 200;

/// Diagnostics of one run; what comes after them is counted only.
pub const MAX_DIAGNOSTICS: usize = 500;

/// Includes within includes.
pub const MAX_INCLUDE_DEPTH: usize = 150;
