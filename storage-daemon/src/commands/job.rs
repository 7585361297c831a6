//! job.json: jobs of every kind.

use block_core::job::Verb;
use qapi_runtime::{Call, Error};
use schema::{
    JobCancel, JobCommands, JobComplete, JobDismiss, JobFinalize, JobInfo, JobPause, JobResume, QueryJobs,
};

use crate::convert::error::generic;
use crate::convert::jobs;
use crate::daemon::Daemon;

impl JobCommands for Daemon {
    async fn job_pause(&self, _call: &Call, args: JobPause) -> Result<(), Error> {
        self.jobs.verb(&args.id, Verb::Pause).await.map_err(generic)
    }

    async fn job_resume(&self, _call: &Call, args: JobResume) -> Result<(), Error> {
        self.jobs.verb(&args.id, Verb::Resume).await.map_err(generic)
    }

    async fn job_cancel(&self, _call: &Call, args: JobCancel) -> Result<(), Error> {
        self.jobs
            .cancel(&args.id, true, jobs::deadline(args.deadline_ms))
            .await
            .map_err(generic)
    }

    async fn job_complete(&self, _call: &Call, args: JobComplete) -> Result<(), Error> {
        self.jobs.verb(&args.id, Verb::Complete).await.map_err(generic)
    }

    async fn job_dismiss(&self, _call: &Call, args: JobDismiss) -> Result<(), Error> {
        self.jobs.verb(&args.id, Verb::Dismiss).await.map_err(generic)
    }

    async fn job_finalize(&self, _call: &Call, args: JobFinalize) -> Result<(), Error> {
        self.jobs.verb(&args.id, Verb::Finalize).await.map_err(generic)
    }

    async fn query_jobs(&self, _call: &Call, args: QueryJobs) -> Result<Vec<JobInfo>, Error> {
        let latency = args.latency.unwrap_or(false);
        Ok(self
            .jobs
            .infos()
            .into_iter()
            .map(|job| jobs::job_info(job, latency))
            .collect())
    }
}
