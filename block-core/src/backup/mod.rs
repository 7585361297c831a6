//! Backup: a copy of a node as it was at one moment, while its users go on writing.
//!
//! A copy-before-write node above the source saves old data before it is overwritten; a job copies the rest in the background;
//! both take clusters from one [`BlockCopy`]. Bitmaps say what is to be copied and what becomes of them at the end.

mod copy;
mod job;
mod offload;
mod plan;
mod scratch;
#[cfg(test)]
mod tests;

pub use copy::{BlockCopy, Claim, CopyError, CopyOptions, DEFAULT_CLUSTER_BYTES, Located, ReadGuard};
pub use job::{BackupOptions, BackupPerf, Ending, PreparedJob, prepare};
pub use plan::{OnError, SyncMode};
