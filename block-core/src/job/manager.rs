//! Owns the table of jobs, runs their workers and does what the table decides.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::table::{
    Effect, Input, IoStatus, JobRecord, JobSerial, JobSpec, Progress, Table, Verb, cancelled,
};
use crate::driver::IoFuture;
use crate::error::{BlockError, ErrorKind, Result};
use crate::event::{AutoMode, ErrorAction, Event, JobKind, JobStatus};
use crate::graph::Graph;
use crate::sync::lock;
use crate::types::JobId;

/// How long a verb waits for the worker to take note, so that a quick answer is also a current one.
const ACKNOWLEDGE: Duration = Duration::from_millis(100);
/// How long a `finalize` waits for its group to take effect: all of it has happened when a client has its answer,
/// unless something is stuck.
const TAKE_EFFECT: Duration = Duration::from_secs(5);

/// What only the kind of job knows of itself.
#[derive(Debug, Clone, Default)]
pub struct JobDetails {
    /// The sync mode that `sync: auto` took, and why.
    pub auto: Option<(AutoMode, String)>,
    /// The longest time in nanoseconds that the job has held back a guest's write.
    pub guest_delay_max_ns: Option<u64>,
}

/// One kind of job: its work, and what its end means.
pub trait JobDriver: Send + Sync + 'static {
    /// The work. It returns soon after [`JobContext::check`] says so. The future is dropped when a cancel's deadline
    /// passes.
    fn run<'a>(&'a self, context: &'a JobContext) -> IoFuture<'a>;

    /// Whatever may still fail before the group takes effect.
    fn prepare(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Puts the results in place.
    fn commit(&self);

    /// Takes back what was begun. Also called for a job that never started.
    fn abort(&self);

    /// Releases what the job held; follows `commit` or `abort`.
    fn clean(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The deadline of a cancel has passed: whatever waits for this job's requests must not wait any longer.
    fn give_up(&self) {}

    /// What queries show beside the common part.
    fn details(&self) -> JobDetails {
        JobDetails::default()
    }
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    cancelled: bool,
    paused: bool,
    complete: bool,
    speed: u64,
    deadline: Option<Instant>,
}

/// A worker's view of its job.
pub struct JobContext {
    manager: Arc<JobManager>,
    serial: JobSerial,
    progress: Arc<Progress>,
    orders: watch::Receiver<Orders>,
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

impl JobContext {
    /// How far the job is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether the job was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.orders.borrow().cancelled
    }

    /// Whether the worker must stop starting requests and come to [`check`](Self::check).
    pub fn wants_attention(&self) -> bool {
        let orders = self.orders.borrow();
        orders.cancelled || orders.paused
    }

    /// Whether a job that is ready shall end.
    pub fn should_complete(&self) -> bool {
        self.orders.borrow().complete
    }

    /// The speed limit in bytes a second; 0 is none.
    pub fn speed(&self) -> u64 {
        self.orders.borrow().speed
    }

    /// Resolves when the orders change from what they are at the call.
    pub async fn changed(&self) {
        let mut orders = self.orders.clone();
        orders.mark_unchanged();
        // The sender lives as long as the job.
        let _ = orders.changed().await;
    }

    /// Waits while the job is paused; fails once it is cancelled. Nothing of the job may be in flight.
    pub async fn check(&self) -> Result<()> {
        let mut orders = self.orders.clone();
        loop {
            let now = *orders.borrow_and_update();
            if now.cancelled {
                return Err(cancelled());
            }
            if !now.paused {
                return Ok(());
            }
            self.manager.apply(Input::Parked(self.serial));
            if orders.changed().await.is_err() {
                return Err(cancelled());
            }
        }
    }

    /// Sleeps, but not through a change of orders.
    pub async fn sleep(&self, duration: Duration) {
        let _ = tokio::time::timeout(duration, self.changed()).await;
    }

    /// The target is in step with the source.
    pub fn ready(&self) {
        self.manager.apply(Input::Ready(self.serial));
    }

    /// Tells of an error and of what is done about it.
    pub fn report_error(&self, is_read: bool, action: ErrorAction, error: &BlockError) {
        let no_space = error.errno() == 28;
        self.manager.apply(Input::Failed {
            job: self.serial,
            is_read,
            action,
            no_space,
        });
    }
}

/// What queries show of a job.
#[derive(Debug, Clone)]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// Its status.
    pub status: JobStatus,
    /// Work done.
    pub current: u64,
    /// All of the work.
    pub total: u64,
    /// What went wrong.
    pub error: Option<String>,
    /// Known to the `block-job-*` commands.
    pub is_block_job: bool,
    /// How its I/O fared.
    pub io_status: IoStatus,
    /// It was told to stand still or to give up, and still works.
    pub busy: bool,
    /// Someone holds it.
    pub paused: bool,
    /// A client (or an error policy) holds it.
    pub user_paused: bool,
    /// Ready to be completed.
    pub ready: bool,
    /// Speed limit in bytes a second; 0 is none.
    pub speed: u64,
    /// Takes effect by itself.
    pub auto_finalize: bool,
    /// Is forgotten by itself.
    pub auto_dismiss: bool,
    /// What only its kind knows.
    pub details: JobDetails,
}

/// Jobs that live and die together.
#[derive(Debug, Clone)]
pub struct JobGroup {
    inner: Arc<GroupInner>,
}

#[derive(Debug)]
struct GroupInner {
    manager: Weak<JobManager>,
    id: u64,
}

impl Drop for GroupInner {
    fn drop(&mut self) {
        if let Some(manager) = self.manager.upgrade() {
            lock(&manager.state).table.drop_group(self.id);
        }
    }
}

impl JobGroup {
    /// The number that [`JobSpec::group`] takes.
    pub fn id(&self) -> u64 {
        self.inner.id
    }
}

/// A job that its creator has not let go yet.
#[derive(Debug, Clone)]
pub struct JobHandle {
    manager: Arc<JobManager>,
    serial: JobSerial,
}

impl JobHandle {
    /// Lets the job begin.
    pub fn start(&self) {
        self.manager.apply(Input::Start(self.serial));
    }

    /// Lets the job begin while its nodes are drained: it is paused until the returned guard is dropped.
    pub fn start_held(self) -> HeldJob {
        self.manager.apply(Input::StartHeld(self.serial));
        HeldJob(self)
    }

    /// Cancels it; does not wait.
    pub fn cancel(&self) {
        let _ = self
            .manager
            .try_apply(Input::Verb(self.serial, Verb::Cancel { force: true }));
    }

    /// Resolves when the job has ended: it is gone or only waits to be dismissed.
    pub async fn ended(&self) {
        let mut changes = self.manager.changes.subscribe();
        loop {
            let status = lock(&self.manager.state)
                .table
                .get(self.serial)
                .map(|job| job.status);
            if matches!(status, None | Some(JobStatus::Concluded | JobStatus::Null)) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The job's progress, for its driver to set before the start.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        lock(&self.manager.state)
            .table
            .get(self.serial)
            .map(|job| Arc::clone(&job.progress))
    }
}

/// A job that was started under a drain; dropping this lets it work.
#[must_use = "the job works from the drop of this on"]
#[derive(Debug)]
pub struct HeldJob(JobHandle);

impl Drop for HeldJob {
    fn drop(&mut self) {
        self.0.manager.apply(Input::Release(self.0.serial));
    }
}

struct Entry {
    driver: Arc<dyn JobDriver>,
    orders: watch::Sender<Orders>,
}

#[derive(Default)]
struct State {
    table: Table,
    entries: HashMap<JobSerial, Entry>,
}

/// All jobs of a daemon.
pub struct JobManager {
    graph: Arc<Graph>,
    state: Mutex<State>,
    /// Counts steps, for those who wait for a job.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for JobManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobManager").finish_non_exhaustive()
    }
}

impl JobManager {
    /// No jobs yet. Workers run where the graph's I/O runs, events go where the graph's go.
    pub fn new(graph: &Arc<Graph>) -> Arc<Self> {
        Arc::new(Self {
            graph: Arc::clone(graph),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    /// A new group.
    pub fn new_group(self: &Arc<Self>) -> JobGroup {
        let id = lock(&self.state).table.new_group();
        JobGroup {
            inner: Arc::new(GroupInner {
                manager: Arc::downgrade(self),
                id,
            }),
        }
    }

    /// How many groups there are, those of lone jobs included.
    pub fn group_count(&self) -> usize {
        lock(&self.state).table.group_count()
    }

    /// Whether an id has the form that ids need.
    pub fn check_id_form(&self, id: &str) -> Result<()> {
        Table::check_id_form(id)
    }

    /// Whether a job can have this id.
    pub fn check_id(&self, id: &str) -> Result<()> {
        lock(&self.state).table.check_id(id)
    }

    /// Creates a job that waits for its [`start`](JobHandle::start).
    pub fn create(self: &Arc<Self>, spec: &JobSpec, driver: Arc<dyn JobDriver>) -> Result<JobHandle> {
        let mut state = lock(&self.state);
        let mut effects = Vec::new();
        let result = state.table.create(spec, &mut effects);
        if let Ok(serial) = result {
            let orders = Orders {
                cancelled: false,
                paused: false,
                complete: false,
                speed: u64::try_from(spec.speed).unwrap_or(0),
                deadline: None,
            };
            state.entries.insert(
                serial,
                Entry {
                    driver,
                    orders: watch::Sender::new(orders),
                },
            );
        }
        self.perform(&mut state, effects);
        result.map(|serial| JobHandle {
            manager: Arc::clone(self),
            serial,
        })
    }

    /// Tells of a job that came and went: its nodes refused it. Fails where the job would have been refused before.
    pub fn create_refused(self: &Arc<Self>, spec: &JobSpec) -> Result<()> {
        let mut state = lock(&self.state);
        let mut effects = Vec::new();
        let result = state
            .table
            .create(spec, &mut effects)
            .map(|serial| state.table.withdraw(serial, &mut effects));
        self.perform(&mut state, effects);
        result
    }

    fn apply(self: &Arc<Self>, input: Input) {
        if let Err(error) = self.try_apply(input) {
            tracing::warn!(%error, "a step of a job was refused");
        }
    }

    fn try_apply(self: &Arc<Self>, input: Input) -> Result<()> {
        let mut state = lock(&self.state);
        let mut effects = Vec::new();
        let result = state.table.apply(input, &mut effects);
        self.perform(&mut state, effects);
        result
    }

    /// Does what the table decided. Events go out under the lock, so that their order is the order of the steps.
    fn perform(self: &Arc<Self>, state: &mut State, effects: Vec<Effect>) {
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Emit(serial, mut event) => {
                    if let Event::BlockJobCompleted { auto, .. } = &mut event {
                        *auto = state
                            .entries
                            .get(&serial)
                            .and_then(|entry| entry.driver.details().auto);
                    }
                    self.graph.emit(event);
                }
                Effect::Run(serial) => self.spawn_worker(state, serial),
                Effect::Wake(serial) => Self::give_orders(state, serial),
                Effect::Prepare(group, members) => self.spawn_prepare(state, group, members),
                Effect::Finalize(serial, success) => self.spawn_finalize(state, serial, success),
                Effect::Discard(serial) => {
                    // A job that never started holds no data on its way: it can be over at once, so that whoever takes
                    // back the steps of a transaction finds its bitmap free.
                    if let Some(entry) = state.entries.get(&serial) {
                        let driver = Arc::clone(&entry.driver);
                        driver.abort();
                        self.graph.handle().spawn(async move { driver.clean().await });
                    }
                    let mut more = Vec::new();
                    if let Err(error) = state.table.apply(Input::Finalized(serial), &mut more) {
                        tracing::warn!(%error, "a job could not be discarded");
                    }
                    for effect in more.into_iter().rev() {
                        todo.push_front(effect);
                    }
                }
                Effect::Forget(serial) => {
                    state.entries.remove(&serial);
                }
            }
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn give_orders(state: &State, serial: JobSerial) {
        if let (Some(job), Some(entry)) = (state.table.get(serial), state.entries.get(&serial)) {
            entry.orders.send_if_modified(|orders| {
                let new = Orders {
                    cancelled: job.cancelled,
                    paused: job.pause_count > 0,
                    complete: job.complete_asked,
                    speed: job.speed,
                    deadline: orders.deadline,
                };
                std::mem::replace(orders, new) != new
            });
        }
    }

    fn spawn_worker(self: &Arc<Self>, state: &State, serial: JobSerial) {
        let (Some(job), Some(entry)) = (state.table.get(serial), state.entries.get(&serial)) else {
            return;
        };
        let context = JobContext {
            manager: Arc::clone(self),
            serial,
            progress: Arc::clone(&job.progress),
            orders: entry.orders.subscribe(),
        };
        let driver = Arc::clone(&entry.driver);
        let manager = Arc::clone(self);
        self.graph.handle().spawn(async move {
            let result = tokio::select! {
                result = driver.run(&context) => result,
                () = deadline(context.orders.clone()) => {
                    driver.give_up();
                    Err(cancelled())
                }
            };
            manager.apply(Input::Done(serial, result));
        });
    }

    fn spawn_prepare(self: &Arc<Self>, state: &State, group: u64, members: Vec<JobSerial>) {
        let drivers: Vec<_> = members
            .into_iter()
            .filter_map(|serial| {
                state
                    .entries
                    .get(&serial)
                    .map(|entry| (serial, Arc::clone(&entry.driver)))
            })
            .collect();
        let manager = Arc::clone(self);
        self.graph.handle().spawn(async move {
            let mut failure = None;
            for (serial, driver) in drivers {
                if let Err(error) = driver.prepare().await {
                    failure = Some((serial, error));
                    break;
                }
            }
            manager.apply(Input::Prepared(group, failure));
        });
    }

    fn spawn_finalize(self: &Arc<Self>, state: &State, serial: JobSerial, success: bool) {
        let Some(entry) = state.entries.get(&serial) else {
            return;
        };
        let driver = Arc::clone(&entry.driver);
        let orders = entry.orders.subscribe();
        let manager = Arc::clone(self);
        self.graph.handle().spawn(async move {
            if success {
                driver.commit();
            } else {
                driver.abort();
            }
            let mut clean = driver.clean();
            tokio::select! {
                () = &mut clean => {}
                () = deadline(orders) => {
                    // Releases whatever the clean-up waits for.
                    driver.give_up();
                    clean.as_mut().await;
                }
            }
            drop(clean);
            manager.apply(Input::Finalized(serial));
        });
    }

    fn serial(state: &State, id: &str) -> Result<JobSerial> {
        state
            .table
            .find(id)
            .ok_or_else(|| BlockError::new(ErrorKind::NotFound, "Job not found"))
    }

    /// Whether a block job of this id exists.
    pub fn is_block_job(&self, id: &str) -> bool {
        let state = lock(&self.state);
        state
            .table
            .find(id)
            .and_then(|serial| state.table.get(serial))
            .is_some_and(JobRecord::is_block_job)
    }

    /// Asks something of a job. A pause is waited for shortly; what takes longer goes on by itself.
    pub async fn verb(self: &Arc<Self>, id: &str, verb: Verb) -> Result<()> {
        let (serial, members) = {
            let state = lock(&self.state);
            let serial = Self::serial(&state, id)?;
            // The group takes effect as one.
            let members = match verb {
                Verb::Finalize => state.table.members_of(serial),
                _ => vec![serial],
            };
            (serial, members)
        };
        self.try_apply(Input::Verb(serial, verb))?;
        let settled = |status: Option<JobStatus>| match verb {
            Verb::Pause => status != Some(JobStatus::Running) && status != Some(JobStatus::Ready),
            Verb::Finalize | Verb::Cancel { .. } => matches!(status, None | Some(JobStatus::Concluded)),
            _ => true,
        };
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                let all = {
                    let state = lock(&self.state);
                    let status = |serial: &JobSerial| state.table.get(*serial).map(|job| job.status);
                    members.iter().all(|serial| settled(status(serial)))
                };
                if all || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let within = if verb == Verb::Finalize {
            TAKE_EFFECT
        } else {
            ACKNOWLEDGE
        };
        let _ = tokio::time::timeout(within, wait).await;
        Ok(())
    }

    /// Cancels a job. Requests of it that are still in flight when the deadline passes are given up.
    pub async fn cancel(self: &Arc<Self>, id: &str, force: bool, within: Option<Duration>) -> Result<()> {
        if let Some(within) = within {
            let state = lock(&self.state);
            let serial = Self::serial(&state, id)?;
            // All members of the group are cancelled with it, so all of them keep to the deadline.
            let due = Instant::now() + within;
            for member in state.table.members_of(serial) {
                if let Some(entry) = state.entries.get(&member) {
                    entry.orders.send_modify(|orders| orders.deadline = Some(due));
                }
            }
        }
        self.verb(id, Verb::Cancel { force }).await
    }

    /// One job.
    pub fn info(&self, id: &str) -> Option<JobInfo> {
        let state = lock(&self.state);
        let serial = state.table.find(id)?;
        Some(Self::describe(&state, serial, state.table.get(serial)?))
    }

    /// All jobs, newest first.
    pub fn infos(&self) -> Vec<JobInfo> {
        let state = lock(&self.state);
        state
            .table
            .iter()
            .map(|(serial, job)| Self::describe(&state, serial, job))
            .collect()
    }

    fn describe(state: &State, serial: JobSerial, job: &JobRecord) -> JobInfo {
        JobInfo {
            id: job.id.clone(),
            kind: job.kind,
            status: job.status,
            current: job.progress.current(),
            total: job.progress.total(),
            error: job.error().map(ToString::to_string),
            is_block_job: job.is_block_job(),
            io_status: job.io_status,
            busy: job.is_busy(),
            paused: job.pause_count > 0,
            user_paused: job.user_paused,
            ready: job.status == JobStatus::Ready,
            speed: job.speed,
            auto_finalize: job.auto_finalize,
            auto_dismiss: job.auto_dismiss,
            details: state
                .entries
                .get(&serial)
                .map(|entry| entry.driver.details())
                .unwrap_or_default(),
        }
    }

    /// Runs a future as a job of kind `create`: its progress is one step, its result waits to be dismissed.
    pub fn create_image(
        self: &Arc<Self>,
        id: &str,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let driver = super::create::CreateJob::new(Box::pin(work));
        let spec = JobSpec {
            id: id.into(),
            kind: JobKind::Create,
            auto_finalize: true,
            auto_dismiss: false,
            speed: 0,
            group: None,
        };
        let job = self.create(&spec, driver)?;
        if let Some(progress) = job.progress() {
            progress.set_remaining(1);
        }
        job.start();
        Ok(())
    }

    /// Ends all jobs at the end of the program: requests that are in flight after ten seconds are given up.
    pub async fn shutdown(self: &Arc<Self>) {
        self.cancel_all(Duration::from_secs(10)).await;
    }

    /// Cancels one job after the other, newest first and each to its end, and forgets those that only wait to be
    /// dismissed: the end of the program. Nothing hangs beyond `within`, which is for all of them together.
    pub async fn cancel_all(self: &Arc<Self>, within: Duration) {
        let due = Instant::now() + within;
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let newest = {
                let state = lock(&self.state);
                let newest = state
                    .table
                    .iter()
                    .next()
                    .map(|(serial, job)| (serial, job.status, job.cancelled));
                if let Some((serial, ..)) = newest {
                    // The job's group goes with it.
                    for member in state.table.members_of(serial) {
                        if let Some(entry) = state.entries.get(&member) {
                            entry.orders.send_if_modified(|orders| {
                                let earlier = orders.deadline.replace(due);
                                earlier != Some(due)
                            });
                        }
                    }
                }
                newest
            };
            let step = match newest {
                None => return,
                Some((serial, JobStatus::Concluded, _)) => Input::Verb(serial, Verb::Dismiss),
                Some((serial, _, false)) => Input::Verb(serial, Verb::Cancel { force: true }),
                Some((_, _, true)) => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            // Refused where the job is about to end by itself.
            if self.try_apply(step).is_err() && changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves when no job of this id is left that has not ended.
    pub async fn wait_ended(self: &Arc<Self>, id: &str) {
        let Some(serial) = lock(&self.state).table.find(id) else {
            return;
        };
        JobHandle {
            manager: Arc::clone(self),
            serial,
        }
        .ended()
        .await;
    }
}

/// Resolves when the deadline of a cancel has passed; never without one.
async fn deadline(mut orders: watch::Receiver<Orders>) {
    loop {
        let due = {
            let now = orders.borrow_and_update();
            if now.cancelled { now.deadline } else { None }
        };
        match due {
            Some(due) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => return,
                    changed = orders.changed() => if changed.is_err() {
                        std::future::pending::<()>().await;
                    },
                }
            }
            None => {
                if orders.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
