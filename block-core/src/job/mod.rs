//! Jobs: long operations with a state that clients steer, alone or in groups that live and die together.
//!
//! [`table`] has the rules as one synchronous function; [`JobManager`] owns the table, runs the workers and performs what
//! the table decides. A kind of job is a [`JobDriver`]; this module does not know what any of them copies.

mod create;
mod manager;
pub mod rate;
pub mod table;
#[cfg(test)]
mod tests;

pub use crate::event::ErrorAction;
pub use manager::{HeldJob, JobContext, JobDetails, JobDriver, JobGroup, JobHandle, JobInfo, JobManager};
pub use table::{IoStatus, JobSpec, Progress, Verb, status_name};
