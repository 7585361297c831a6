//! What the block layer tells the outside without being asked.

use crate::types::{ExportId, JobId, NodeName};

/// Where events go. Called synchronously in the order in which things happen; must not block.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// What a backup with `sync: auto` copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoMode {
    /// What the bitmap says.
    Incremental,
    /// Everything.
    Full,
}

/// An event; names and members follow the QMP event of the same name.
#[derive(Debug, Clone)]
pub enum Event {
    /// JOB_STATUS_CHANGE.
    JobStatusChange {
        /// The job.
        id: JobId,
        /// Its new status.
        status: JobStatus,
    },
    /// BLOCK_JOB_COMPLETED.
    BlockJobCompleted {
        /// The job and how far it came.
        job: BlockJobPoint,
        /// What went wrong, if it did.
        error: Option<String>,
        /// The sync mode that `sync: auto` took and why.
        auto: Option<(AutoMode, String)>,
    },
    /// BLOCK_JOB_CANCELLED.
    BlockJobCancelled {
        /// The job and how far it came.
        job: BlockJobPoint,
    },
    /// BLOCK_JOB_READY.
    BlockJobReady {
        /// The job and how far it came.
        job: BlockJobPoint,
    },
    /// BLOCK_JOB_PENDING.
    BlockJobPending {
        /// The job.
        id: JobId,
        /// Its kind.
        kind: JobKind,
    },
    /// BLOCK_JOB_ERROR.
    BlockJobError {
        /// The job.
        id: JobId,
        /// The request was a read, else a write.
        is_read: bool,
        /// What the job does about it.
        action: ErrorAction,
    },
    /// BLOCK_EXPORT_DELETED.
    BlockExportDeleted {
        /// The export.
        id: ExportId,
    },
    /// BLOCK_IMAGE_CORRUPTED.
    BlockImageCorrupted {
        /// The node.
        node: NodeName,
        /// What was found.
        message: String,
        /// Where, if known, as offset and size in bytes.
        place: Option<(u64, u64)>,
        /// The image cannot be used any more.
        fatal: bool,
    },
    /// BLOCK_WRITE_THRESHOLD.
    BlockWriteThreshold {
        /// The node.
        node: NodeName,
        /// The threshold in bytes.
        threshold: u64,
        /// By how many bytes it was passed.
        exceeded: u64,
    },
}

/// How far a block job came.
#[derive(Debug, Clone)]
pub struct BlockJobPoint {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// All of the work, in bytes.
    pub len: u64,
    /// Work done, in bytes.
    pub offset: u64,
    /// Speed limit in bytes a second; 0 is none.
    pub speed: u64,
}

/// What a job does about an error of its I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorAction {
    /// Fail.
    Report,
    /// Try again.
    Ignore,
    /// Pause until a client resumes it.
    Stop,
}

/// The kinds of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobKind {
    /// Backup.
    Backup,
    /// Image creation.
    Create,
    /// Mirror (not offered yet).
    Mirror,
    /// Commit (not offered yet).
    Commit,
    /// Stream (not offered yet).
    Stream,
}

/// Status of a job, as QEMU names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Never seen outside.
    Undefined,
    /// Made, not started.
    Created,
    /// At work.
    Running,
    /// Stopped by user, drain or error policy.
    Paused,
    /// Synchronous and waiting for `complete`.
    Ready,
    /// Paused while ready.
    Standby,
    /// Done, waiting for the rest of its group.
    Waiting,
    /// Waiting for `finalize`.
    Pending,
    /// On its way out after an error or cancel.
    Aborting,
    /// Over, kept for its result.
    Concluded,
    /// Gone.
    Null,
}
