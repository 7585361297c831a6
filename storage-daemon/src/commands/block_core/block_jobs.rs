//! The older commands for block jobs: as those for all jobs, but an unknown job has another error class.

use block_core::job::{JobInfo, Verb};
use qapi_runtime::{Error, ErrorClass};

use crate::convert::error::generic;
use crate::convert::jobs;
use crate::daemon::Daemon;

pub(super) fn query(daemon: &Daemon) -> Vec<schema::BlockJobInfo> {
    daemon
        .jobs
        .infos()
        .into_iter()
        .filter_map(jobs::block_job_info)
        .collect()
}

/// The block job of that id. Jobs of other kinds do not count.
fn find(daemon: &Daemon, id: &str) -> Result<JobInfo, Error> {
    daemon
        .jobs
        .info(id)
        .filter(|job| job.is_block_job)
        .ok_or_else(|| Error::new(ErrorClass::DeviceNotActive, format!("Block job '{id}' not found")))
}

/// Asks something of a block job.
pub(super) async fn verb(daemon: &Daemon, id: &str, verb: Verb) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.verb(id, verb).await.map_err(generic)
}

pub(super) async fn cancel(daemon: &Daemon, args: &schema::BlockJobCancel) -> Result<(), Error> {
    let job = find(daemon, &args.device)?;
    let force = args.force.unwrap_or(false);
    if job.user_paused && !force {
        return Err(Error::generic(format!(
            "The block job for device '{}' is currently paused",
            args.device
        )));
    }
    daemon
        .jobs
        .cancel(&args.device, force, jobs::deadline(args.deadline_ms))
        .await
        .map_err(generic)
}

pub(super) async fn change(daemon: &Daemon, args: &schema::BlockJobChangeOptions) -> Result<(), Error> {
    find(daemon, &args.id)?;
    // Only mirrors have something to change, and there are none yet: the job refuses.
    daemon.jobs.verb(&args.id, Verb::Change).await.map_err(generic)
}
