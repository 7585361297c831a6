//! The older commands for block jobs: as those for all jobs, but an unknown job has another error class.

use block_core::job::JobInfo;
use qapi_runtime::{Error, ErrorClass};

use crate::convert::error::generic;
use crate::convert::jobs;
use crate::daemon::Daemon;

pub(super) fn query(daemon: &Daemon) -> Vec<schema::BlockJobInfo> {
    daemon.jobs.list().into_iter().filter_map(jobs::block_job_info).collect()
}

/// The block job of that id. Jobs of other kinds do not count.
fn find(daemon: &Daemon, id: &str) -> Result<JobInfo, Error> {
    daemon
        .jobs
        .info(id)
        .filter(|job| job.block.is_some())
        .ok_or_else(|| Error::new(ErrorClass::DeviceNotActive, format!("Block job '{id}' not found")))
}

pub(super) fn set_speed(daemon: &Daemon, args: &schema::BlockJobSetSpeed) -> Result<(), Error> {
    find(daemon, &args.device)?;
    let Ok(speed) = u64::try_from(args.speed) else {
        return Err(Error::generic("Parameter 'speed' expects a non-negative value"));
    };
    daemon.jobs.set_speed(&args.device, speed).map_err(generic)
}

pub(super) fn cancel(daemon: &Daemon, args: &schema::BlockJobCancel) -> Result<(), Error> {
    let job = find(daemon, &args.device)?;
    let paused = job.block.is_some_and(|block| block.user_paused);
    if paused && !args.force.unwrap_or(false) {
        return Err(Error::generic(format!("The block job for device '{}' is currently paused", args.device)));
    }
    daemon.jobs.cancel(&args.device, jobs::deadline(args.deadline_ms)).map_err(generic)
}

pub(super) fn pause(daemon: &Daemon, id: &str) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.pause(id).map_err(generic)
}

pub(super) fn resume(daemon: &Daemon, id: &str) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.resume(id).map_err(generic)
}

pub(super) fn complete(daemon: &Daemon, id: &str) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.complete(id).map_err(generic)
}

pub(super) fn dismiss(daemon: &Daemon, id: &str) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.dismiss(id).map_err(generic)
}

pub(super) fn finalize(daemon: &Daemon, id: &str) -> Result<(), Error> {
    find(daemon, id)?;
    daemon.jobs.finalize(id).map_err(generic)
}

pub(super) fn change(daemon: &Daemon, args: &schema::BlockJobChangeOptions) -> Result<(), Error> {
    let job = find(daemon, &args.id)?;
    daemon.jobs.check_change(job.id.as_str()).map_err(generic)?;
    if args.kind() != jobs::job_type(job.kind) {
        return Err(Error::generic(format!(
            "Job '{}' is not a '{}' job",
            args.id,
            args.kind().as_str()
        )));
    }
    // Only mirrors have something to change, and there are none yet.
    Err(Error::generic("Job type does not support change"))
}
