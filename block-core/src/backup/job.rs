//! The backup job: its checks, its setting up, its work, its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::copy::{self, BlockCopy, CopyError};
use super::plan::{self, OnError, Plan, SyncMode};
use crate::bitmap::{BitmapHandle, BitmapMode};
use crate::driver::IoFuture;
use crate::drivers::copy_before_write::CopyBeforeWrite;
use crate::error::{BlockError, ErrorKind, Result};
use crate::event::JobKind;
use crate::graph::{Backend, BackendUser, DrainGuard, Graph, Node, OpBlockGuard, OpKind, Perm};
use crate::job::rate::RateLimit;
use crate::job::{
    ErrorAction, HeldJob, JobContext, JobDetails, JobDriver, JobGroup, JobHandle, JobManager, JobSpec,
};
use crate::options::{CopyBeforeWriteOptions, DriverOptions, NodeOptions, NodeRef, OnCbwError};
use crate::sync::lock;

/// One request of a speed-limited or buffered copy.
const CHUNK_BYTES: u64 = 1 << 20;
/// One request that the kernel copies by itself.
const OFFLOAD_CHUNK_BYTES: u64 = 4 << 20;
/// Copiers in flight at most, whatever `max-workers` allows: each holds a buffer.
const MOST_WORKERS: u64 = 16;
/// How much of its last request's debt a limited member of a group pays before it ends.
const LAST_PAYMENT: Duration = Duration::from_millis(25);
/// How long to wait before what failed and is to be ignored is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// `x-perf`.
#[derive(Debug, Clone, Copy)]
pub struct BackupPerf {
    /// Let the kernel copy where it can; `None` is yes.
    pub use_copy_range: Option<bool>,
    /// Requests in flight at most.
    pub max_workers: i64,
    /// Longest request in bytes; 0 is no limit.
    pub max_chunk: i64,
    /// Copy unit of at least this many bytes.
    pub min_cluster_size: Option<u64>,
}

impl Default for BackupPerf {
    fn default() -> Self {
        Self {
            use_copy_range: None,
            max_workers: 64,
            max_chunk: 0,
            min_cluster_size: None,
        }
    }
}

/// A backup to prepare.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The job's id.
    pub job_id: Option<String>,
    /// The source.
    pub device: Arc<Node>,
    /// The target.
    pub target: Arc<Node>,
    /// What to copy.
    pub sync: SyncMode,
    /// Name of a bitmap of the source.
    pub bitmap: Option<String>,
    /// What becomes of it.
    pub bitmap_mode: Option<BitmapMode>,
    /// Write compressed clusters.
    pub compress: bool,
    /// What to do when the source cannot be read.
    pub on_source_error: OnError,
    /// What to do when the target cannot be written.
    pub on_target_error: OnError,
    /// What to do when old data cannot be saved before a guest overwrites it.
    pub on_cbw_error: OnCbwError,
    /// Longest time in seconds that a guest's write waits for that; 0 is no limit, `None` the default of the policy.
    pub cbw_timeout: Option<u32>,
    /// Speed limit in bytes a second; 0 is none.
    pub speed: i64,
    /// Takes effect by itself.
    pub auto_finalize: bool,
    /// Is forgotten by itself.
    pub auto_dismiss: bool,
    /// Name of the node that saves old data.
    pub filter_node_name: Option<String>,
    /// Discard what was copied from the source.
    pub discard_source: bool,
    /// Tuning.
    pub perf: BackupPerf,
    /// The target was opened for this job only.
    pub close_target: bool,
}

impl BackupOptions {
    /// A backup with every option at its default.
    pub fn new(device: &Arc<Node>, target: &Arc<Node>, sync: SyncMode) -> Self {
        Self {
            job_id: None,
            device: Arc::clone(device),
            target: Arc::clone(target),
            sync,
            bitmap: None,
            bitmap_mode: None,
            compress: false,
            on_source_error: OnError::Report,
            on_target_error: OnError::Report,
            on_cbw_error: OnCbwError::BreakGuestWrite,
            cbw_timeout: None,
            speed: 0,
            auto_finalize: true,
            auto_dismiss: true,
            filter_node_name: None,
            discard_source: false,
            perf: BackupPerf::default(),
            close_target: false,
        }
    }
}

/// A backup that is set up: its point in time is now, its copying begins with [`start`](Self::start).
#[derive(Debug)]
pub struct PreparedJob {
    handle: Option<JobHandle>,
    cleaned: watch::Receiver<bool>,
}

impl PreparedJob {
    /// Lets it begin.
    pub fn start(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.start();
        }
    }

    /// Lets it begin while its nodes are drained: it is paused until what is returned is dropped.
    pub fn start_held(mut self) -> Option<HeldJob> {
        self.handle.take().map(JobHandle::start_held)
    }

    /// Takes everything back: the job is over and its bitmap free when this returns; the future resolves when the
    /// nodes are as they were, too.
    pub fn abort(self) -> impl Future<Output = ()> + Send + 'static {
        let ending = self.begin_abort();
        async move {
            if let Some(ending) = ending {
                ending.ended().await;
            }
        }
    }

    /// As [`abort`](Self::abort), with the end to be waited for as a value.
    pub fn begin_abort(mut self) -> Option<Ending> {
        self.handle.take()?.cancel();
        Some(Ending {
            cleaned: self.cleaned.clone(),
        })
    }
}

/// The end of a backup that was taken back.
#[derive(Debug)]
pub struct Ending {
    cleaned: watch::Receiver<bool>,
}

impl Ending {
    /// Resolves when the nodes are as they were.
    pub async fn ended(mut self) {
        // The sender goes away only with a job that is cleaned up.
        let _ = self.cleaned.wait_for(|cleaned| *cleaned).await;
    }
}

impl Drop for PreparedJob {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.cancel();
        }
    }
}

fn invalid(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

fn can_compress(node: &Node) -> bool {
    match node.driver().name() {
        "qcow2" => true,
        "throttle" => node
            .child("file")
            .is_some_and(|child| can_compress(&child.node())),
        _ => false,
    }
}

/// Whether an image is whole by itself: a full copy whose header names no backing file.
fn stands_alone(target: &Node) -> bool {
    target.driver().name() == "qcow2" && target.driver().info().backing_file.is_none()
}

fn check(options: &BackupOptions) -> Result<()> {
    if Arc::ptr_eq(&options.device, &options.target) {
        return Err(invalid("Source and target cannot be the same"));
    }
    if options.compress && !can_compress(&options.target) {
        // The text ends with the device's name, which nodes do not have.
        return Err(BlockError::new(
            ErrorKind::Unsupported,
            "Compression is not supported for this drive ",
        ));
    }
    options.device.check_op(OpKind::BackupSource)?;
    options.target.check_op(OpKind::BackupTarget)?;
    let perf = &options.perf;
    if !(1..=i64::from(i32::MAX)).contains(&perf.max_workers) {
        return Err(invalid(format!("max-workers must be between 1 and {}", i32::MAX)));
    }
    if perf.max_chunk < 0 {
        return Err(invalid(
            "max-chunk must be zero (which means no limit) or positive",
        ));
    }
    Ok(())
}

/// Sets a backup up: after this the point in time is fixed and old data is saved.
///
/// Writes of the source's users are held meanwhile.
pub async fn prepare(
    jobs: &Arc<JobManager>,
    graph: &Arc<Graph>,
    options: BackupOptions,
    group: Option<&JobGroup>,
) -> Result<PreparedJob> {
    let drained = graph.drain(std::slice::from_ref(&options.device)).await;
    let result = set_up(jobs, graph, &options, group, &drained).await;
    drop(drained);
    if result.is_err() && options.close_target {
        graph.close_if_unused(Arc::clone(&options.target)).await;
    }
    result
}

async fn set_up(
    jobs: &Arc<JobManager>,
    graph: &Arc<Graph>,
    options: &BackupOptions,
    group: Option<&JobGroup>,
    _drained: &DrainGuard,
) -> Result<PreparedJob> {
    let plan = plan::decide(
        &options.device,
        options.sync,
        options.bitmap.as_deref(),
        options.bitmap_mode,
    )?;
    check(options)?;
    if options.device.length() != options.target.length() {
        return Err(invalid("Source and target image have different sizes"));
    }
    if let Some(bytes) = options.perf.min_cluster_size {
        copy::check_min_cluster(bytes)?;
    }
    let filter_options = NodeOptions {
        node_name: options.filter_node_name.as_deref().map(Into::into),
        // Guests' discards do not pass, as clients know it: what they give up may still have to be copied.
        discard_unmap: Some(false),
        driver: DriverOptions::CopyBeforeWrite(CopyBeforeWriteOptions {
            file: NodeRef::Name(options.device.name().clone()),
            target: NodeRef::Name(options.target.name().clone()),
            bitmap: None,
            on_cbw_error: options.on_cbw_error,
            cbw_timeout: options.cbw_timeout,
            min_cluster_size: options.perf.min_cluster_size,
            discard_source: options.discard_source,
        }),
        ..NodeOptions::default()
    };
    let filter = graph.insert_filter(&options.device, filter_options).await?;
    let mut setup = Setup {
        graph: Arc::clone(graph),
        filter: Some(filter),
        target: None,
    };
    let result = attach(jobs, graph, options, group, plan, &mut setup);
    if result.is_err() {
        setup.undo().await;
    }
    result
}

/// What a set-up that fails half-way must take back.
struct Setup {
    graph: Arc<Graph>,
    filter: Option<Arc<Node>>,
    target: Option<Arc<Backend>>,
}

impl Setup {
    async fn undo(self) {
        if let Some(target) = self.target {
            target.detach().await;
        }
        if let Some(filter) = self.filter {
            let _ = self.graph.remove_filter(&filter).await;
        }
    }
}

fn attach(
    jobs: &Arc<JobManager>,
    graph: &Arc<Graph>,
    options: &BackupOptions,
    group: Option<&JobGroup>,
    plan: Plan,
    setup: &mut Setup,
) -> Result<PreparedJob> {
    let Some(filter) = setup.filter.clone() else {
        return Err(invalid("The filter is gone"));
    };
    let Some(keeper) = filter.driver().as_any().downcast_ref::<CopyBeforeWrite>() else {
        return Err(invalid("The filter does not copy before writes"));
    };
    let copy = Arc::clone(keeper.copy());
    let max_chunk = u64::try_from(options.perf.max_chunk).unwrap_or(0);
    if max_chunk > 0 && max_chunk < copy.cluster_bytes() {
        return Err(invalid(format!(
            "Required max-chunk ({max_chunk}) is less than backup cluster size ({})",
            copy.cluster_bytes()
        )));
    }
    // Nodes have no device name to take an id from.
    let id = options.job_id.clone().unwrap_or_default();
    jobs.check_id(&id)?;
    copy.set_compress(options.compress);
    copy.set_offload(options.perf.use_copy_range != Some(false));
    // The job copies the rest; without one the target holds whole clusters, as clients know it.
    if plan.sync != SyncMode::None && !options.compress && !options.discard_source {
        copy.allow_blocks();
    }
    if plan.sync == SyncMode::Full && stands_alone(&options.target) {
        copy.set_stands_alone();
    }
    let user = |edge: &str| BackendUser {
        description: format!("block job '{id}'"),
        name: id.to_string(),
        edge: edge.to_owned(),
    };
    let spec = JobSpec {
        id: id.as_str().into(),
        kind: JobKind::Backup,
        auto_finalize: options.auto_finalize,
        auto_dismiss: options.auto_dismiss,
        speed: options.speed,
        group: group.map(JobGroup::id),
    };
    // The job is there before its nodes are asked.
    let refused = |error: BlockError| jobs.create_refused(&spec).err().unwrap_or(error);
    let target =
        Backend::new(graph, &options.target, user("target"), Perm::NONE, Perm::ALL).map_err(refused)?;
    setup.target = Some(Arc::clone(&target));
    let backend = Backend::new(graph, &filter, user("main node"), Perm::NONE, Perm::ALL).map_err(refused)?;

    match plan.sync {
        SyncMode::Bitmap | SyncMode::Incremental => {
            if let Some((bitmap, _)) = &plan.bitmap {
                copy.restrict_to(bitmap.dirty_ranges());
            }
        }
        SyncMode::Full | SyncMode::Top | SyncMode::None | SyncMode::Auto => {}
    }
    if let Some((bitmap, mode)) = &plan.bitmap {
        bitmap.freeze(*mode)?;
    }
    let reason = "block device is in use by block job: backup";
    let blocks = vec![filter.block_op(reason), options.target.block_op(reason)];
    let thaw = plan.bitmap.clone();
    let driver = Arc::new(BackupJob {
        graph: Arc::clone(graph),
        copy: Arc::clone(&copy),
        plan,
        options: options.clone(),
        max_chunk,
        grouped: group.is_some(),
        rate: RateLimit::new(u64::try_from(options.speed).unwrap_or(0)),
        thawed: AtomicBool::new(false),
        cleaned: watch::Sender::new(false),
        held: Mutex::new(Some(Held {
            filter: Arc::clone(&filter),
            backend: Arc::clone(&backend),
            target,
            blocks,
        })),
    });
    match jobs.create(&spec, driver.clone()) {
        Ok(handle) => {
            if let Some(progress) = handle.progress() {
                copy.set_progress(&progress);
            }
            // From here on the job's own end takes everything back.
            setup.filter = None;
            setup.target = None;
            Ok(PreparedJob {
                handle: Some(handle),
                cleaned: driver.cleaned.subscribe(),
            })
        }
        Err(error) => {
            if let Some((bitmap, mode)) = thaw {
                bitmap.thaw(mode, false, copy.uncopied());
            }
            // Its parts are taken back by the set-up; the edge goes with the last handle.
            drop(driver);
            drop(backend);
            Err(error)
        }
    }
}

/// What a backup holds until it is over.
struct Held {
    filter: Arc<Node>,
    backend: Arc<Backend>,
    target: Arc<Backend>,
    blocks: Vec<OpBlockGuard>,
}

struct BackupJob {
    graph: Arc<Graph>,
    copy: Arc<BlockCopy>,
    plan: Plan,
    options: BackupOptions,
    max_chunk: u64,
    /// Others live and die with it.
    grouped: bool,
    rate: RateLimit,
    thawed: AtomicBool,
    held: Mutex<Option<Held>>,
    /// Whether everything that the job held is given back.
    cleaned: watch::Sender<bool>,
}

impl BackupJob {
    fn backend(&self) -> Option<Arc<Backend>> {
        lock(&self.held).as_ref().map(|held| Arc::clone(&held.backend))
    }

    fn chunk(&self, speed: u64) -> u64 {
        let chunk = if speed > 0 || self.options.perf.use_copy_range == Some(false) {
            CHUNK_BYTES
        } else {
            OFFLOAD_CHUNK_BYTES
        };
        let chunk = self.rate.request_bytes(chunk);
        if self.max_chunk > 0 {
            chunk.min(self.max_chunk)
        } else {
            chunk
        }
    }

    /// Copies all that is left, until it is done, something fails or the job must stand still.
    async fn copy_rest(&self, context: &JobContext) -> Result<Finish, CopyError> {
        let Some(backend) = self.backend() else {
            return Ok(Finish::Complete);
        };
        let workers = u64::try_from(self.options.perf.max_workers)
            .unwrap_or(1)
            .clamp(1, MOST_WORKERS);
        let mut copiers: JoinSet<Result<(), CopyError>> = JoinSet::new();
        let pool: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let mut failure: Option<CopyError> = None;
        let mut finish = Finish::Complete;
        let mut paid = false;
        loop {
            if let Some(error) = self.copy.broken() {
                failure.get_or_insert(CopyError {
                    is_read: false,
                    error,
                });
            }
            if failure.is_some() {
                break;
            }
            if context.wants_attention() {
                finish = Finish::Attention;
                break;
            }
            let speed = context.speed();
            self.rate.set_speed(speed);
            // The last request's debt is nobody's.
            if let Some(delay) = self.rate.delay().filter(|_| self.copy.is_untaken()) {
                tokio::select! {
                    () = context.sleep(delay) => {}
                    () = self.copy.lost() => {}
                    Some(joined) = copiers.join_next() => note(joined, &mut failure),
                }
                continue;
            }
            if copiers.len() as u64 >= workers {
                tokio::select! {
                    () = context.changed() => {}
                    () = self.copy.lost() => {}
                    Some(joined) = copiers.join_next() => note(joined, &mut failure),
                }
                continue;
            }
            // Counted in before anything is taken, so that a drain finds nothing taken and not in flight.
            let entered = tokio::select! {
                entered = backend.enter_owned() => entered,
                () = context.changed() => continue,
            };
            let claim = match self.copy.next_claim(self.chunk(speed), speed > 0).await {
                Some(claim) => claim,
                None => {
                    drop(entered);
                    if !copiers.is_empty() {
                        tokio::select! {
                            () = self.copy.lost() => {}
                            Some(joined) = copiers.join_next() => note(joined, &mut failure),
                        }
                        continue;
                    }
                    if self.copy.is_in_flight() {
                        // A guest's write carries the rest.
                        tokio::select! {
                            () = self.copy.changed() => {}
                            () = context.changed() => {}
                        }
                        continue;
                    }
                    if self.copy.remaining_bytes() > 0 {
                        continue;
                    }
                    // Of the last request's debt a little is paid: a limited member of a group must not
                    // be done before another one, started with it, has had the time to fail.
                    if self.grouped
                        && !paid
                        && let Some(delay) = self.rate.delay()
                    {
                        paid = true;
                        context.sleep(delay.min(LAST_PAYMENT)).await;
                        continue;
                    }
                    break;
                }
            };
            self.rate.take(claim.range().1);
            let (copy, pool) = (Arc::clone(&self.copy), Arc::clone(&pool));
            copiers.spawn(async move {
                let mut buffer = lock(&pool).pop().unwrap_or_default();
                let result = copy.transfer(claim, &mut buffer).await;
                lock(&pool).push(buffer);
                // Until here a drain waits: a guest's write may wait for this very claim.
                drop(entered);
                result
            });
        }
        // A copy of a lost point in time is nobody's, and what is stuck with the target would not end.
        if self.copy.broken().is_some() {
            copiers.abort_all();
        }
        // What is in flight ends by itself; an abort by deadline drops the set and with it what is in flight.
        while let Some(joined) = copiers.join_next().await {
            note(joined, &mut failure);
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(finish),
        }
    }

    async fn work(&self, context: &JobContext) -> Result<()> {
        context.check().await?;
        if self.plan.sync == SyncMode::Top {
            self.skip_unallocated(context).await?;
        }
        if self.plan.sync == SyncMode::None {
            return self.wait_for_cancel(context).await;
        }
        loop {
            match self.copy_rest(context).await {
                Ok(Finish::Complete) => return Ok(()),
                Ok(Finish::Attention) => {}
                Err(failure) => self.handle(context, &failure).await?,
            }
            context.check().await?;
        }
    }

    /// Follows the error policy: fails, or returns for another try.
    async fn handle(&self, context: &JobContext, failure: &CopyError) -> Result<()> {
        if context.is_cancelled() {
            return Ok(());
        }
        if self.copy.broken().is_some() {
            return Err(plain(&failure.error));
        }
        let policy = if failure.is_read {
            self.options.on_source_error
        } else {
            self.options.on_target_error
        };
        let action = policy.action(&failure.error);
        context.report_error(failure.is_read, action, &failure.error);
        match action {
            ErrorAction::Report => Err(plain(&failure.error)),
            ErrorAction::Ignore => {
                context.sleep(RETRY).await;
                Ok(())
            }
            ErrorAction::Stop => Ok(()),
        }
    }

    async fn skip_unallocated(&self, context: &JobContext) -> Result<()> {
        let Some(backend) = self.backend() else {
            return Ok(());
        };
        loop {
            let entered = backend.enter().await;
            let result = self.copy.skip_unallocated(|| context.wants_attention()).await;
            drop(entered);
            // Error policies are about reading and writing; this has done neither.
            result.map_err(|failure| plain(&failure.error))?;
            if context.wants_attention() {
                context.check().await?;
                continue;
            }
            return Ok(());
        }
    }

    async fn wait_for_cancel(&self, context: &JobContext) -> Result<()> {
        loop {
            context.check().await?;
            if let Some(error) = self.copy.broken() {
                return Err(plain(&error));
            }
            // A guest's write may break the snapshot; nobody wakes the job for that.
            context.sleep(Duration::from_millis(200)).await;
        }
    }

    fn thaw(&self, success: bool) {
        if let Some((bitmap, mode)) = &self.plan.bitmap
            && !self.thawed.swap(true, Ordering::SeqCst)
        {
            self.thaw_bitmap(bitmap, *mode, success);
        }
    }

    fn thaw_bitmap(&self, bitmap: &BitmapHandle, mode: BitmapMode, success: bool) {
        // What is not needed any more is not computed: a full disk's worth of areas can be long.
        let uncopied = if success || mode != BitmapMode::Always {
            Vec::new()
        } else {
            self.copy.uncopied()
        };
        bitmap.thaw(mode, success, uncopied);
    }
}

/// Why copying stopped.
enum Finish {
    Complete,
    Attention,
}

fn note(joined: Result<Result<(), CopyError>, tokio::task::JoinError>, failure: &mut Option<CopyError>) {
    let result = joined.unwrap_or_else(|_| {
        Err(CopyError {
            is_read: false,
            error: BlockError::from_errno(125, "Operation canceled"),
        })
    });
    if let Err(error) = result {
        failure.get_or_insert(error);
    }
}

/// The error as clients see it at the end of a job: the system's text for its number.
fn plain(error: &BlockError) -> BlockError {
    BlockError::from(std::io::Error::from_raw_os_error(error.errno()))
}

impl JobDriver for BackupJob {
    fn run<'a>(&'a self, context: &'a JobContext) -> IoFuture<'a> {
        Box::pin(self.work(context))
    }

    fn commit(&self) {
        self.thaw(true);
    }

    fn abort(&self) {
        // Nobody needs the point in time any more; guest writes shall not wait for it.
        self.copy.retire();
        self.thaw(false);
    }

    fn clean(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Some(held) = lock(&self.held).take() else {
                return;
            };
            self.copy.retire();
            drop(held.blocks);
            // The filter goes first, while the job's own edge keeps it from closing with guests above it.
            let _ = self.graph.remove_filter(&held.filter).await;
            held.backend.detach().await;
            held.target.detach().await;
            if self.options.close_target {
                self.graph.close_if_unused(Arc::clone(&self.options.target)).await;
            }
            self.cleaned.send_replace(true);
        })
    }

    fn give_up(&self) {
        self.copy.retire();
    }

    fn details(&self) -> JobDetails {
        JobDetails {
            auto: self.plan.auto.clone(),
            guest_delay_max_ns: Some(self.copy.guest_delay_max_ns()),
        }
    }
}
