//! Jobs and bitmaps as queries show them, and the words of jobs.

use std::sync::Arc;
use std::time::Duration;

use block_core::event::{AutoMode, JobKind, JobStatus};
use block_core::graph::Node;
use block_core::job::{IoStatus, JobInfo};

use super::nodes::signed;

/// A job as `query-jobs` shows it; the guest's delay only for those who ask.
pub fn job_info(job: JobInfo, with_latency: bool) -> schema::JobInfo {
    let (sync_taken, sync_reason) = job.details.auto.unzip();
    schema::JobInfo {
        id: job.id.as_str().to_owned(),
        r#type: job_type(job.kind),
        status: job_status(job.status),
        current_progress: signed(job.current),
        total_progress: signed(job.total),
        error: job.error,
        sync_taken: sync_taken.map(auto_mode),
        sync_reason,
        guest_delay_max_ns: job.details.guest_delay_max_ns.filter(|_| with_latency),
    }
}

/// A job as `query-block-jobs` shows it; nothing for jobs of other kinds.
pub fn block_job_info(job: JobInfo) -> Option<schema::BlockJobInfo> {
    if !job.is_block_job {
        return None;
    }
    let (sync_taken, sync_reason) = job.details.auto.unzip();
    Some(schema::BlockJobInfo {
        device: job.id.as_str().to_owned(),
        len: signed(job.total),
        offset: signed(job.current),
        busy: job.busy,
        paused: job.paused,
        speed: signed(job.speed),
        io_status: match job.io_status {
            IoStatus::Ok => schema::BlockDeviceIoStatus::Ok,
            IoStatus::Failed => schema::BlockDeviceIoStatus::Failed,
            IoStatus::NoSpace => schema::BlockDeviceIoStatus::Nospace,
        },
        ready: job.ready,
        status: job_status(job.status),
        auto_finalize: job.auto_finalize,
        auto_dismiss: job.auto_dismiss,
        error: job.error,
        sync_taken: sync_taken.map(auto_mode),
        sync_reason,
        branch: match job.kind {
            JobKind::Commit => schema::BlockJobInfoBranch::Commit,
            JobKind::Stream => schema::BlockJobInfoBranch::Stream,
            JobKind::Mirror => schema::BlockJobInfoBranch::Mirror(schema::BlockJobInfoMirror {
                actively_synced: false,
            }),
            JobKind::Create => schema::BlockJobInfoBranch::Create,
            _ => schema::BlockJobInfoBranch::Backup,
        },
    })
}

/// The kind of a job.
pub fn job_type(kind: JobKind) -> schema::JobType {
    match kind {
        JobKind::Create => schema::JobType::Create,
        JobKind::Mirror => schema::JobType::Mirror,
        JobKind::Commit => schema::JobType::Commit,
        JobKind::Stream => schema::JobType::Stream,
        _ => schema::JobType::Backup,
    }
}

/// Where a job is in its life.
pub fn job_status(status: JobStatus) -> schema::JobStatus {
    match status {
        JobStatus::Undefined => schema::JobStatus::Undefined,
        JobStatus::Created => schema::JobStatus::Created,
        JobStatus::Running => schema::JobStatus::Running,
        JobStatus::Paused => schema::JobStatus::Paused,
        JobStatus::Ready => schema::JobStatus::Ready,
        JobStatus::Standby => schema::JobStatus::Standby,
        JobStatus::Waiting => schema::JobStatus::Waiting,
        JobStatus::Pending => schema::JobStatus::Pending,
        JobStatus::Aborting => schema::JobStatus::Aborting,
        JobStatus::Concluded => schema::JobStatus::Concluded,
        JobStatus::Null => schema::JobStatus::Null,
    }
}

/// The mode that `sync: auto` took.
pub fn auto_mode(mode: AutoMode) -> schema::MirrorSyncMode {
    match mode {
        AutoMode::Incremental => schema::MirrorSyncMode::Incremental,
        AutoMode::Full => schema::MirrorSyncMode::Full,
    }
}

/// How long a cancelled job may wait for its requests.
pub fn deadline(milliseconds: Option<u32>) -> Option<Duration> {
    milliseconds.map(|milliseconds| Duration::from_millis(u64::from(milliseconds)))
}

/// A node's bitmaps, newest first; those of its driver are as old as the node itself.
pub fn dirty_bitmaps(node: &Arc<Node>) -> Vec<schema::BlockDirtyInfo> {
    let own = node.driver().own_bitmaps();
    node.bitmaps()
        .infos()
        .into_iter()
        .chain(own)
        .map(|bitmap| schema::BlockDirtyInfo {
            name: bitmap.name.map(|name| name.as_str().to_owned()),
            count: signed(bitmap.dirty_bytes),
            granularity: bitmap.granularity_bytes,
            recording: bitmap.recording,
            busy: bitmap.busy,
            persistent: bitmap.persistent,
            inconsistent: bitmap.inconsistent.then_some(true),
        })
        .collect()
}
