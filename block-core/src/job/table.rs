//! The rules of jobs: states, verbs, groups and the order of events, as one synchronous step function.
//!
//! [`Table::apply`] takes one [`Input`] and gives the [`Effect`]s in the order in which they must happen. It does no
//! I/O, waits for nothing and holds no handle of a job's work, so that every order of inputs can be tested.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{BlockError, ErrorKind, Result};
use crate::event::{BlockJobPoint, ErrorAction, Event, JobKind, JobStatus};
use crate::types::JobId;

/// A job's number; unlike its id never used again.
pub type JobSerial = u64;

/// What a client can ask of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Stop, and fail with it.
    Cancel {
        /// A job that is ready or done shall not end softly.
        force: bool,
    },
    /// Stop working for a while.
    Pause,
    /// Work again.
    Resume,
    /// Change the speed limit, in bytes a second.
    SetSpeed(i64),
    /// End a job that is ready.
    Complete,
    /// Let the job's group take effect.
    Finalize,
    /// Forget a job that has ended.
    Dismiss,
    /// Change other parameters.
    Change,
}

impl Verb {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::SetSpeed(_) => "set-speed",
            Self::Complete => "complete",
            Self::Finalize => "finalize",
            Self::Dismiss => "dismiss",
            Self::Change => "change",
        }
    }

    fn allowed_in(self, status: JobStatus) -> bool {
        use JobStatus::{Concluded, Created, Paused, Pending, Ready, Running, Standby, Waiting};
        match self {
            Self::Cancel { .. } => {
                matches!(
                    status,
                    Created | Running | Paused | Ready | Standby | Waiting | Pending
                )
            }
            Self::Pause | Self::Resume | Self::SetSpeed(_) | Self::Change => {
                matches!(status, Created | Running | Paused | Ready | Standby)
            }
            Self::Complete => matches!(status, Ready | Standby),
            Self::Finalize => status == Pending,
            Self::Dismiss => status == Concluded,
        }
    }
}

/// The name of a status in messages.
pub fn status_name(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Undefined => "undefined",
        JobStatus::Created => "created",
        JobStatus::Running => "running",
        JobStatus::Paused => "paused",
        JobStatus::Ready => "ready",
        JobStatus::Standby => "standby",
        JobStatus::Waiting => "waiting",
        JobStatus::Pending => "pending",
        JobStatus::Aborting => "aborting",
        JobStatus::Concluded => "concluded",
        JobStatus::Null => "null",
    }
}

/// Whether a job may go from one status to another.
fn may_follow(from: JobStatus, to: JobStatus) -> bool {
    use JobStatus::{
        Aborting, Concluded, Created, Null, Paused, Pending, Ready, Running, Standby, Undefined, Waiting,
    };
    match from {
        Undefined => to == Created,
        Created => matches!(to, Running | Aborting | Null),
        Running => matches!(to, Paused | Ready | Waiting | Aborting),
        Paused => to == Running,
        Ready => matches!(to, Standby | Waiting | Aborting),
        Standby => to == Ready,
        Waiting => matches!(to, Pending | Aborting),
        Pending => matches!(to, Aborting | Concluded),
        Aborting => matches!(to, Aborting | Concluded),
        Concluded => to == Null,
        Null => false,
    }
}

/// How a block job's I/O fared last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoStatus {
    /// Well.
    #[default]
    Ok,
    /// It stopped on an error.
    Failed,
    /// It stopped because space ran out.
    NoSpace,
}

/// How far a job is, shared with its worker.
#[derive(Debug, Default)]
pub struct Progress {
    current: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Work done.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// All of the work.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    /// Counts work as done.
    pub fn advance(&self, by: u64) {
        self.current.fetch_add(by, Ordering::AcqRel);
    }

    /// Sets how much work is left beside what is done.
    pub fn set_remaining(&self, remaining: u64) {
        self.total
            .store(self.current().saturating_add(remaining), Ordering::Release);
    }

    /// More work was found.
    pub fn add_work(&self, by: u64) {
        self.total.fetch_add(by, Ordering::AcqRel);
    }
}

/// A new job.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// Takes effect by itself.
    pub auto_finalize: bool,
    /// Is forgotten by itself.
    pub auto_dismiss: bool,
    /// Speed limit in bytes a second; 0 is none.
    pub speed: i64,
    /// The group that it lives and dies with; `None` is one of its own.
    pub group: Option<u64>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A created job begins to work.
    Start(JobSerial),
    /// The job starts while its nodes are drained: it counts as paused until they are released.
    StartHeld(JobSerial),
    /// The drain under which the job was started is over.
    Release(JobSerial),
    /// A client asks something of a job.
    Verb(JobSerial, Verb),
    /// The worker stands still, as asked.
    Parked(JobSerial),
    /// The worker's target is in step with its source.
    Ready(JobSerial),
    /// The worker met an error and decided what to do.
    Failed {
        /// The job.
        job: JobSerial,
        /// Reading the source failed, not writing the target.
        is_read: bool,
        /// What it does.
        action: ErrorAction,
        /// The error is lack of space.
        no_space: bool,
    },
    /// The worker has ended.
    Done(JobSerial, Result<()>),
    /// All jobs of a group were asked to prepare; the first failure, if any.
    Prepared(u64, Option<(JobSerial, BlockError)>),
    /// A job's results are in place or taken back, and what it held is released.
    Finalized(JobSerial),
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    /// Send an event of a job.
    Emit(JobSerial, Event),
    /// Begin the work.
    Run(JobSerial),
    /// The worker must look at its orders anew.
    Wake(JobSerial),
    /// Ask every job of a group to prepare, in this order, then tell [`Input::Prepared`].
    Prepare(u64, Vec<JobSerial>),
    /// Put results in place or take them back, release what the job held, then tell [`Input::Finalized`].
    Finalize(JobSerial, bool),
    /// Take back a job that never started, at once, then tell [`Input::Finalized`].
    Discard(JobSerial),
    /// The job is gone.
    Forget(JobSerial),
}

/// What the table knows of a job.
#[derive(Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// Its status.
    pub status: JobStatus,
    /// How many reasons there are to stand still.
    pub pause_count: u32,
    /// One of them is a client's (or an error's) wish.
    pub user_paused: bool,
    /// It was cancelled.
    pub cancelled: bool,
    /// A soft end was asked for.
    pub complete_asked: bool,
    /// Takes effect by itself.
    pub auto_finalize: bool,
    /// Is forgotten by itself.
    pub auto_dismiss: bool,
    /// Speed limit in bytes a second; 0 is none.
    pub speed: u64,
    /// How its I/O fared.
    pub io_status: IoStatus,
    /// How its work ended.
    pub result: Option<Result<()>>,
    /// How far it is.
    pub progress: Arc<Progress>,
    started: bool,
    /// The worker will not do anything any more (or never began).
    done: bool,
    finalizing: bool,
    group: u64,
}

impl JobRecord {
    /// It works on block nodes, so that the `block-job-*` commands know it.
    pub fn is_block_job(&self) -> bool {
        self.kind != JobKind::Create
    }

    /// It was told to stand still or to give up, and still works.
    pub fn is_busy(&self) -> bool {
        let working = matches!(self.status, JobStatus::Running | JobStatus::Ready) && !self.done;
        working && (self.pause_count > 0 || self.cancelled)
    }

    /// What went wrong, if it did.
    pub fn error(&self) -> Option<&BlockError> {
        match &self.result {
            Some(Err(error)) => Some(error),
            _ => None,
        }
    }

    fn point(&self) -> BlockJobPoint {
        BlockJobPoint {
            id: self.id.clone(),
            kind: self.kind,
            len: self.progress.total(),
            offset: self.progress.current(),
            speed: self.speed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Preparing,
    Succeeding,
    Aborting,
}

#[derive(Debug)]
struct Group {
    /// By age.
    jobs: Vec<JobSerial>,
    phase: Phase,
    /// Somebody may still add jobs.
    open_handle: bool,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Table {
    jobs: BTreeMap<JobSerial, JobRecord>,
    ids: HashMap<JobId, JobSerial>,
    groups: HashMap<u64, Group>,
    next_serial: JobSerial,
    next_group: u64,
}

/// Whether an id has the form that ids need.
fn well_formed(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || matches!(each, '-' | '.' | '_'))
}

/// The error of a job that was cancelled.
pub fn cancelled() -> BlockError {
    BlockError::new(ErrorKind::Cancelled, "Operation canceled")
}

impl Table {
    /// Makes room for a group, until [`drop_group`](Self::drop_group).
    pub fn new_group(&mut self) -> u64 {
        self.add_group(true)
    }

    fn add_group(&mut self, open_handle: bool) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        let group = Group {
            jobs: Vec::new(),
            phase: Phase::Open,
            open_handle,
        };
        self.groups.insert(id, group);
        id
    }

    /// Nobody adds jobs to a group any more; it goes with its last job.
    pub fn drop_group(&mut self, group: u64) {
        if let Some(state) = self.groups.get_mut(&group) {
            state.open_handle = false;
            if state.jobs.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Whether an id has the form that ids need.
    pub fn check_id_form(id: &str) -> Result<()> {
        if well_formed(id) {
            Ok(())
        } else {
            Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Invalid job ID '{id}'"),
            ))
        }
    }

    /// Whether a job can have this id.
    pub fn check_id(&self, id: &str) -> Result<()> {
        Self::check_id_form(id)?;
        if self.ids.contains_key(id) {
            return Err(BlockError::new(
                ErrorKind::Exists,
                format!("Job ID '{id}' already in use"),
            ));
        }
        Ok(())
    }

    /// Adds a job in status `created`.
    pub fn create(&mut self, spec: &JobSpec, effects: &mut Vec<Effect>) -> Result<JobSerial> {
        self.check_id(spec.id.as_str())?;
        let group = match spec.group {
            Some(group) => group,
            None => self.add_group(false),
        };
        let Some(members) = self
            .groups
            .get_mut(&group)
            .filter(|group| group.phase == Phase::Open)
        else {
            return Err(BlockError::new(
                ErrorKind::Cancelled,
                "The group of the job was cancelled",
            ));
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        members.jobs.push(serial);
        self.ids.insert(spec.id.clone(), serial);
        let record = JobRecord {
            id: spec.id.clone(),
            kind: spec.kind,
            status: JobStatus::Undefined,
            pause_count: 0,
            user_paused: false,
            cancelled: false,
            complete_asked: false,
            auto_finalize: spec.auto_finalize,
            auto_dismiss: spec.auto_dismiss,
            speed: u64::try_from(spec.speed).unwrap_or(0),
            io_status: IoStatus::Ok,
            result: None,
            progress: Arc::default(),
            started: false,
            done: false,
            finalizing: false,
            group,
        };
        self.jobs.insert(serial, record);
        self.enter(serial, JobStatus::Created, effects);
        if spec.speed < 0 {
            // The job exists before its speed is looked at; clients see it come and go.
            self.withdraw(serial, effects);
            return Err(negative_speed());
        }
        Ok(serial)
    }

    /// A job that was created is not to be, for a reason that is not its own.
    pub fn withdraw(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        self.enter(serial, JobStatus::Null, effects);
        self.forget(serial, effects);
    }

    /// The job of this id.
    pub fn find(&self, id: &str) -> Option<JobSerial> {
        self.ids.get(id).copied()
    }

    /// The jobs of a job's group, itself included.
    pub fn members_of(&self, serial: JobSerial) -> Vec<JobSerial> {
        self.jobs
            .get(&serial)
            .map(|job| self.members_newest_first(job.group))
            .unwrap_or_default()
    }

    /// What is known of a job.
    pub fn get(&self, serial: JobSerial) -> Option<&JobRecord> {
        self.jobs.get(&serial)
    }

    /// All jobs, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (JobSerial, &JobRecord)> {
        self.jobs.iter().rev().map(|(serial, job)| (*serial, job))
    }

    fn enter(&mut self, serial: JobSerial, status: JobStatus, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&serial) else {
            return;
        };
        debug_assert!(
            may_follow(job.status, status),
            "{:?}: {:?} to {status:?}",
            job.id,
            job.status
        );
        job.status = status;
        effects.push(Effect::Emit(
            serial,
            Event::JobStatusChange {
                id: job.id.clone(),
                status,
            },
        ));
    }

    fn forget(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.remove(&serial) {
            self.ids.remove(&job.id);
            if let Some(group) = self.groups.get_mut(&job.group) {
                group.jobs.retain(|member| *member != serial);
                if group.jobs.is_empty() && !group.open_handle {
                    self.groups.remove(&job.group);
                }
            }
        }
        effects.push(Effect::Forget(serial));
    }

    /// Takes one step.
    pub fn apply(&mut self, input: Input, effects: &mut Vec<Effect>) -> Result<()> {
        match input {
            Input::Start(serial) => self.start(serial, effects),
            Input::StartHeld(serial) => self.start_held(serial, effects),
            Input::Release(serial) => self.release(serial, effects),
            Input::Verb(serial, verb) => return self.verb(serial, verb, effects),
            Input::Parked(serial) => self.parked(serial, effects),
            Input::Ready(serial) => self.ready(serial, effects),
            Input::Failed {
                job,
                is_read,
                action,
                no_space,
            } => self.failed(job, is_read, action, no_space, effects),
            Input::Done(serial, result) => self.done(serial, result, effects),
            Input::Prepared(group, failure) => self.prepared(group, failure, effects),
            Input::Finalized(serial) => self.finalized(serial, effects),
        }
        Ok(())
    }

    fn start(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self
            .jobs
            .get_mut(&serial)
            .filter(|job| job.status == JobStatus::Created)
        else {
            return;
        };
        job.started = true;
        self.enter(serial, JobStatus::Running, effects);
        effects.push(Effect::Run(serial));
    }

    /// A drain is a pause like any other: seen in events, counted, and over when it is released.
    fn start_held(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        self.start(serial, effects);
        if let Some(job) = self.jobs.get_mut(&serial).filter(|job| job.started && !job.done) {
            job.pause_count += 1;
            self.enter(serial, JobStatus::Paused, effects);
        }
    }

    fn release(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        // A cancel has taken every pause back already.
        if let Some(job) = self
            .jobs
            .get_mut(&serial)
            .filter(|job| !job.done && !job.cancelled)
        {
            job.pause_count = job.pause_count.saturating_sub(1);
            self.unpark(serial, effects);
        }
    }

    fn verb(&mut self, serial: JobSerial, verb: Verb, effects: &mut Vec<Effect>) -> Result<()> {
        let Some(job) = self.jobs.get_mut(&serial) else {
            return Err(BlockError::new(ErrorKind::NotFound, "Job not found"));
        };
        if verb == Verb::Resume && !job.user_paused {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "Can't resume a job that was not paused",
            ));
        }
        let ending = self
            .groups
            .get(&job.group)
            .is_some_and(|group| group.phase == Phase::Succeeding);
        if !verb.allowed_in(job.status) || (job.status == JobStatus::Pending && ending) {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!(
                    "Job '{}' in state '{}' cannot accept command verb '{}'",
                    job.id,
                    status_name(job.status),
                    verb.name()
                ),
            ));
        }
        match verb {
            Verb::Cancel { force } => self.cancel(serial, force, effects),
            Verb::Pause => {
                if job.user_paused {
                    return Err(BlockError::new(ErrorKind::Invalid, "Job is already paused"));
                }
                job.user_paused = true;
                job.pause_count += 1;
                effects.push(Effect::Wake(serial));
            }
            Verb::Resume => {
                job.user_paused = false;
                job.io_status = IoStatus::Ok;
                job.pause_count = job.pause_count.saturating_sub(1);
                self.unpark(serial, effects);
            }
            Verb::SetSpeed(speed) => {
                job.speed = u64::try_from(speed).map_err(|_| negative_speed())?;
                effects.push(Effect::Wake(serial));
            }
            Verb::Complete => {
                if job.pause_count > 0 || job.cancelled {
                    return Err(BlockError::new(
                        ErrorKind::Invalid,
                        format!("The active block job '{}' cannot be completed", job.id),
                    ));
                }
                job.complete_asked = true;
                effects.push(Effect::Wake(serial));
            }
            Verb::Finalize => {
                let group = job.group;
                self.prepare(group, effects);
            }
            Verb::Dismiss => {
                self.enter(serial, JobStatus::Null, effects);
                self.forget(serial, effects);
            }
            Verb::Change => {
                return Err(BlockError::new(
                    ErrorKind::Unsupported,
                    "Job type does not support change",
                ));
            }
        }
        Ok(())
    }

    /// Lets a parked worker go on when nothing holds it any more.
    fn unpark(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&serial) else { return };
        if job.pause_count == 0 || job.cancelled {
            match job.status {
                JobStatus::Paused => self.enter(serial, JobStatus::Running, effects),
                JobStatus::Standby => self.enter(serial, JobStatus::Ready, effects),
                _ => {}
            }
        }
        effects.push(Effect::Wake(serial));
    }

    fn cancel(&mut self, serial: JobSerial, force: bool, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&serial) else {
            return;
        };
        if !job.started {
            job.cancelled = true;
            self.done(serial, Err(cancelled()), effects);
        } else if job.done {
            let soft = !force && job.kind == JobKind::Mirror;
            if !soft {
                job.cancelled = true;
                let group = job.group;
                self.abort_group(group, effects);
            }
        } else {
            self.interrupt(serial, effects);
        }
    }

    /// Tells a worker to give up.
    fn interrupt(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&serial) else {
            return;
        };
        job.cancelled = true;
        job.user_paused = false;
        job.io_status = IoStatus::Ok;
        job.pause_count = 0;
        self.unpark(serial, effects);
    }

    fn parked(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&serial) else { return };
        if job.pause_count > 0 && !job.cancelled {
            match job.status {
                JobStatus::Running => self.enter(serial, JobStatus::Paused, effects),
                JobStatus::Ready => self.enter(serial, JobStatus::Standby, effects),
                _ => {}
            }
        } else {
            // The reason went away while the worker was on its way.
            effects.push(Effect::Wake(serial));
        }
    }

    fn ready(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self
            .jobs
            .get(&serial)
            .filter(|job| job.status == JobStatus::Running)
        else {
            return;
        };
        let point = job.point();
        self.enter(serial, JobStatus::Ready, effects);
        effects.push(Effect::Emit(serial, Event::BlockJobReady { job: point }));
    }

    fn failed(
        &mut self,
        serial: JobSerial,
        is_read: bool,
        action: ErrorAction,
        no_space: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&serial).filter(|job| !job.cancelled) else {
            return;
        };
        let event = Event::BlockJobError {
            id: job.id.clone(),
            is_read,
            action,
        };
        effects.push(Effect::Emit(serial, event));
        if action == ErrorAction::Stop {
            if !job.user_paused {
                job.user_paused = true;
                job.pause_count += 1;
            }
            if job.io_status == IoStatus::Ok {
                job.io_status = if no_space {
                    IoStatus::NoSpace
                } else {
                    IoStatus::Failed
                };
            }
            effects.push(Effect::Wake(serial));
        }
    }

    fn done(&mut self, serial: JobSerial, result: Result<()>, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&serial).filter(|job| !job.done) else {
            return;
        };
        job.done = true;
        let result = if job.cancelled { Err(cancelled()) } else { result };
        let failed = result.is_err();
        job.result = Some(result);
        let group = job.group;
        if failed {
            self.leave_pause(serial, effects);
            self.enter(serial, JobStatus::Aborting, effects);
            self.abort_group(group, effects);
        } else {
            self.leave_pause(serial, effects);
            self.enter(serial, JobStatus::Waiting, effects);
            self.all_waiting(group, effects);
        }
    }

    /// A worker that ends while it counts as paused (its last request failed) runs first.
    fn leave_pause(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        match self.jobs.get(&serial).map(|job| job.status) {
            Some(JobStatus::Paused) => self.enter(serial, JobStatus::Running, effects),
            Some(JobStatus::Standby) => self.enter(serial, JobStatus::Ready, effects),
            _ => {}
        }
    }

    fn members_newest_first(&self, group: u64) -> Vec<JobSerial> {
        self.groups
            .get(&group)
            .map(|group| group.jobs.iter().rev().copied().collect())
            .unwrap_or_default()
    }

    fn all_waiting(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let members = self.members_newest_first(group);
        let status = |serial: &JobSerial| self.jobs.get(serial).map(|job| job.status);
        if members
            .iter()
            .any(|serial| status(serial) != Some(JobStatus::Waiting))
        {
            return;
        }
        let mut by_hand = false;
        for serial in &members {
            self.enter(*serial, JobStatus::Pending, effects);
            if let Some(job) = self.jobs.get(serial).filter(|job| !job.auto_finalize) {
                by_hand = true;
                if job.is_block_job() {
                    let event = Event::BlockJobPending {
                        id: job.id.clone(),
                        kind: job.kind,
                    };
                    effects.push(Effect::Emit(*serial, event));
                }
            }
        }
        if !by_hand {
            self.prepare(group, effects);
        }
    }

    fn prepare(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let members = self.members_newest_first(group);
        if let Some(state) = self
            .groups
            .get_mut(&group)
            .filter(|state| state.phase == Phase::Open)
        {
            state.phase = Phase::Preparing;
            effects.push(Effect::Prepare(group, members));
        }
    }

    fn prepared(&mut self, group: u64, failure: Option<(JobSerial, BlockError)>, effects: &mut Vec<Effect>) {
        let Some(state) = self
            .groups
            .get_mut(&group)
            .filter(|state| state.phase == Phase::Preparing)
        else {
            // A cancel was quicker; the abort is under way.
            return;
        };
        match failure {
            None => {
                state.phase = Phase::Succeeding;
                self.finalize_next(group, effects);
            }
            Some((serial, error)) => {
                if let Some(job) = self.jobs.get_mut(&serial) {
                    job.result = Some(Err(error));
                }
                self.abort_group(group, effects);
            }
        }
    }

    /// A member failed or was cancelled: all others are cancelled with it.
    fn abort_group(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let members = self.members_newest_first(group);
        let Some(state) = self.groups.get_mut(&group) else {
            return;
        };
        match state.phase {
            Phase::Open | Phase::Preparing => {
                state.phase = Phase::Aborting;
                for serial in &members {
                    let Some(job) = self.jobs.get_mut(serial) else {
                        continue;
                    };
                    if job.error().is_some() {
                        continue;
                    }
                    job.cancelled = true;
                    if job.done {
                        job.result = Some(Err(cancelled()));
                    } else if job.started {
                        self.interrupt(*serial, effects);
                    } else {
                        job.done = true;
                        job.result = Some(Err(cancelled()));
                    }
                }
            }
            Phase::Aborting => {}
            // Results are being put in place: too late to fail.
            Phase::Succeeding => return,
        }
        self.finalize_next(group, effects);
    }

    /// Ends the members one after the other, newest first; each waits for its worker.
    fn finalize_next(&mut self, group: u64, effects: &mut Vec<Effect>) {
        let success = self
            .groups
            .get(&group)
            .is_some_and(|group| group.phase == Phase::Succeeding);
        let members = self.members_newest_first(group);
        let concluded = |job: &JobRecord| job.status == JobStatus::Concluded;
        let next = members
            .into_iter()
            .find(|serial| self.jobs.get(serial).is_some_and(|job| !concluded(job)));
        let Some(serial) = next else { return };
        let Some(job) = self
            .jobs
            .get_mut(&serial)
            .filter(|job| job.done && !job.finalizing)
        else {
            return;
        };
        job.finalizing = true;
        if !success && job.status != JobStatus::Aborting {
            self.enter(serial, JobStatus::Aborting, effects);
        }
        let started = self.jobs.get(&serial).is_some_and(|job| job.started);
        effects.push(if started {
            Effect::Finalize(serial, success)
        } else {
            Effect::Discard(serial)
        });
    }

    fn finalized(&mut self, serial: JobSerial, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&serial).filter(|job| job.finalizing) else {
            return;
        };
        let group = job.group;
        if job.started && job.is_block_job() {
            let event = if job.cancelled {
                Event::BlockJobCancelled { job: job.point() }
            } else {
                // Whoever performs the effect adds what the job itself knows of its sync mode.
                let error = job.error().map(ToString::to_string);
                Event::BlockJobCompleted {
                    job: job.point(),
                    error,
                    auto: None,
                }
            };
            effects.push(Effect::Emit(serial, event));
        }
        let dismiss = job.auto_dismiss || !job.started;
        self.enter(serial, JobStatus::Concluded, effects);
        if dismiss {
            self.enter(serial, JobStatus::Null, effects);
            self.forget(serial, effects);
        }
        self.finalize_next(group, effects);
    }
}

fn negative_speed() -> BlockError {
    BlockError::new(
        ErrorKind::Invalid,
        "Parameter 'speed' expects a non-negative value",
    )
}
