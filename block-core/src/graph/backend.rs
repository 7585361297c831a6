//! A root user of a node: an export or a job.
//!
//! This is where requests enter the graph, so this is where they are counted and where a drain holds them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::child::Child;
use super::perm::Perm;
use super::{Graph, Node};
use crate::driver::{BlockStatus, Limits, Preallocation, WriteFlags, WriteMapping, ZeroFlags};
use crate::error::{BlockError, Result};
use crate::sync::lock;

/// Told when a drain of a backend begins and ends: a job pauses, an export keeps its requests back.
pub trait DrainHandler: Send + Sync {
    /// A drain begins. The returned future resolves when the user starts no requests any more (those in flight are
    /// waited for by the drain itself).
    fn begin(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The drain is over.
    fn end(&self);
}

/// Who uses a backend, in the words of messages (`block device`, `job 'backup0'`).
#[derive(Debug, Clone)]
pub struct BackendUser {
    /// What stands in permission conflicts: `a block device`, `block job 'ID'`...
    pub description: String,
    /// The job's id; empty for a user that has no name of its own.
    pub name: String,
    /// The name of its edge: `root` for exports, `source`, `target` or `main node` for jobs.
    pub edge: String,
}

impl BackendUser {
    /// An export, or any other user that has no name of its own.
    pub fn unnamed() -> Self {
        Self {
            description: "an unnamed block device".to_owned(),
            name: String::new(),
            edge: "root".to_owned(),
        }
    }
}

/// Counters of requests from one user.
#[derive(Debug, Default)]
pub struct IoStats {
    reads: OpStats,
    writes: OpStats,
    flushes: OpStats,
    unmaps: OpStats,
}

/// Counters of one kind of request.
#[derive(Debug, Default)]
pub struct OpStats {
    /// Bytes asked for in completed requests.
    pub bytes: AtomicU64,
    /// Completed requests.
    pub operations: AtomicU64,
    /// Failed requests.
    pub failed: AtomicU64,
}

impl OpStats {
    fn count<T>(&self, len: u64, result: &Result<T>) {
        if result.is_ok() {
            self.bytes.fetch_add(len, Ordering::Relaxed);
            self.operations.fetch_add(1, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl IoStats {
    /// Reads.
    pub fn reads(&self) -> &OpStats {
        &self.reads
    }

    /// Writes, zero writes included.
    pub fn writes(&self) -> &OpStats {
        &self.writes
    }

    /// Flushes.
    pub fn flushes(&self) -> &OpStats {
        &self.flushes
    }

    /// Discards.
    pub fn unmaps(&self) -> &OpStats {
        &self.unmaps
    }
}

/// A root user of a node.
pub struct Backend {
    graph: Arc<Graph>,
    user: BackendUser,
    child: Arc<Child>,
    in_flight: AtomicUsize,
    /// How many drains hold this backend.
    quiesced: AtomicUsize,
    /// Woken when `in_flight` falls to zero under a drain.
    idle: Notify,
    /// Woken when the last drain ends.
    resumed: Notify,
    handler: Mutex<Option<Arc<dyn DrainHandler>>>,
    detached: AtomicBool,
    stats: IoStats,
}

/// One request that is counted as in flight while this lives.
#[derive(Debug)]
pub struct InFlight<'a> {
    backend: &'a Backend,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.backend.leave();
    }
}

/// As [`InFlight`], for a task of its own.
#[derive(Debug)]
pub struct OwnedInFlight {
    backend: Arc<Backend>,
}

impl Drop for OwnedInFlight {
    fn drop(&mut self) {
        self.backend.leave();
    }
}

impl Backend {
    /// Attaches a user to a node. Refused when what it needs conflicts with what others share, or the reverse.
    pub fn new(
        graph: &Arc<Graph>,
        node: &Arc<Node>,
        user: BackendUser,
        perm: Perm,
        shared: Perm,
    ) -> Result<Arc<Self>> {
        let edge = user.edge.clone();
        graph.attach_root(node, &edge, perm, shared, |child| {
            Arc::new(Self {
                graph: Arc::clone(graph),
                user,
                child,
                in_flight: AtomicUsize::new(0),
                quiesced: AtomicUsize::new(0),
                idle: Notify::new(),
                resumed: Notify::new(),
                handler: Mutex::new(None),
                detached: AtomicBool::new(false),
                stats: IoStats::default(),
            })
        })
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The node at the top, which filters and snapshots may exchange.
    pub fn node(&self) -> Arc<Node> {
        self.child.node()
    }

    /// The edge to the node.
    pub fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// Who this is.
    pub fn user(&self) -> &BackendUser {
        &self.user
    }

    /// The counters.
    pub fn stats(&self) -> &IoStats {
        &self.stats
    }

    /// Changes what the user needs and shares.
    pub fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        self.graph.set_root_permissions(&self.child, perm, shared)
    }

    /// Sets who is told of drains.
    pub fn set_drain_handler(&self, handler: Option<Arc<dyn DrainHandler>>) {
        *lock(&self.handler) = handler;
    }

    /// Gives the node up and, when nobody else wants it, closes it. Requests must have ended.
    pub async fn detach(&self) {
        if !self.detached.swap(true, Ordering::SeqCst) {
            let node = self.graph.detach_root(&self.child);
            self.graph.close_if_unused(node).await;
        }
    }

    /// The edge was never attached or is gone already.
    pub(super) fn mark_detached(&self) {
        self.detached.store(true, Ordering::SeqCst);
    }

    /// Whether a drain holds the user's requests now.
    pub fn is_quiesced(&self) -> bool {
        self.quiesced.load(Ordering::SeqCst) != 0
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts a request (or a batch of them) in, unless a drain holds it.
    pub fn try_enter(&self) -> Option<InFlight<'_>> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        // Made before the test, so that its drop takes the count back in either case.
        let guard = InFlight { backend: self };
        if self.quiesced.load(Ordering::SeqCst) == 0 {
            Some(guard)
        } else {
            None
        }
    }

    /// Counts a request in, after the drains that hold it.
    pub async fn enter(&self) -> InFlight<'_> {
        loop {
            if let Some(guard) = self.try_enter() {
                return guard;
            }
            let mut wake = std::pin::pin!(self.resumed.notified());
            wake.as_mut().enable();
            if self.is_quiesced() {
                wake.await;
            }
        }
    }

    /// As [`enter`](Self::enter), with a guard that a task can take along.
    pub async fn enter_owned(self: &Arc<Self>) -> OwnedInFlight {
        std::mem::forget(self.enter().await);
        OwnedInFlight {
            backend: Arc::clone(self),
        }
    }

    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.quiesced.load(Ordering::SeqCst) != 0 {
            self.idle.notify_waiters();
        }
    }

    pub(super) fn begin_drain(&self) {
        self.quiesced.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) async fn wait_drained(&self) {
        let handler = lock(&self.handler).clone();
        if let Some(handler) = handler {
            handler.begin().await;
        }
        loop {
            let mut wake = std::pin::pin!(self.idle.notified());
            wake.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            wake.await;
        }
    }

    pub(super) fn end_drain(&self) {
        let last = self.quiesced.fetch_sub(1, Ordering::SeqCst) == 1;
        let handler = lock(&self.handler).clone();
        if last {
            self.resumed.notify_waiters();
        }
        if let Some(handler) = handler {
            handler.end();
        }
    }

    /// The length in bytes.
    pub fn length(&self) -> u64 {
        self.child.length()
    }

    /// Sizes that requests should keep to.
    pub fn limits(&self) -> Limits {
        self.child.limits()
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.length() => Ok(()),
            _ => Err(BlockError::from_errno(5, "Input/output error")),
        }
    }

    /// Fills `buf` from `offset`. The range must be inside the length.
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let _guard = self.enter().await;
        self.read_entered(offset, buf).await
    }

    /// As [`read`](Self::read), for a caller that has entered by itself.
    pub async fn read_entered(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let result = match self.check(offset, buf.len() as u64) {
            Ok(()) => self.child.read(offset, buf).await,
            Err(error) => Err(error),
        };
        self.stats.reads.count(buf.len() as u64, &result);
        result
    }

    /// Reads at once if no waiting is needed; the caller has entered.
    pub fn try_read_entered(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        let result = match self.check(offset, buf.len() as u64) {
            Ok(()) => self.child.try_read(offset, buf)?,
            Err(error) => Err(error),
        };
        self.stats.reads.count(buf.len() as u64, &result);
        Some(result)
    }

    /// Writes `buf` at `offset`. The range must be inside the length.
    pub async fn write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        let _guard = self.enter().await;
        self.write_entered(offset, buf, flags).await
    }

    /// As [`write`](Self::write), for a caller that has entered by itself.
    pub async fn write_entered(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        let result = match self.check(offset, buf.len() as u64) {
            Ok(()) => self.child.write(offset, buf, flags).await,
            Err(error) => Err(error),
        };
        self.stats.writes.count(buf.len() as u64, &result);
        result
    }

    /// Writes at once if no waiting is needed; the caller has entered.
    pub fn try_write_entered(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        let result = match self.check(offset, buf.len() as u64) {
            Ok(()) => self.child.try_write(offset, buf, flags)?,
            Err(error) => Err(error),
        };
        self.stats.writes.count(buf.len() as u64, &result);
        Some(result)
    }

    /// Makes the range read as zeroes. The range must be inside the length.
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let _guard = self.enter().await;
        self.check(offset, len)?;
        let result = self.child.write_zeroes(offset, len, flags).await;
        self.stats.writes.count(len, &result);
        result
    }

    /// Tells that the range is not needed any more. The range must be inside the length.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _guard = self.enter().await;
        self.check(offset, len)?;
        let result = self.child.discard(offset, len).await;
        self.stats.unmaps.count(len, &result);
        result
    }

    /// Makes every completed write durable.
    pub async fn flush(&self) -> Result<()> {
        let _guard = self.enter().await;
        let result = self.child.flush().await;
        self.stats.flushes.count(0, &result);
        result
    }

    /// What lies at `offset`.
    pub async fn block_status(&self, offset: u64, len: u64, want_host: bool) -> Result<BlockStatus> {
        let _guard = self.enter().await;
        self.child.block_status(offset, len, want_host).await
    }

    /// Changes the length.
    pub async fn truncate(&self, length: u64, preallocation: Preallocation) -> Result<()> {
        let _guard = self.enter().await;
        self.child.truncate(length, preallocation).await
    }

    /// See [`Node::map_for_write`].
    pub async fn map_for_write(&self, offset: u64, len: u64) -> Result<Option<WriteMapping>> {
        let _guard = self.enter().await;
        self.check(offset, len)?;
        self.child.map_for_write(offset, len).await
    }

    /// See [`Node::commit_write`].
    pub async fn commit_write(&self, offset: u64, mapping: WriteMapping) -> Result<()> {
        let _guard = self.enter().await;
        self.child.commit_write(offset, mapping).await
    }

    /// See [`Node::abandon_write`].
    pub fn abandon_write(&self, mapping: WriteMapping) {
        self.child.abandon_write(mapping);
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("user", &self.user)
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.detached.swap(true, Ordering::SeqCst) {
            let node = self.graph.detach_root(&self.child);
            let graph = Arc::clone(&self.graph);
            self.graph
                .handle()
                .spawn(async move { graph.close_if_unused(node).await });
        }
    }
}
