//! A node: a driver with a name, children, parents, bitmaps and rules that hold for every driver.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::Graph;
use super::blockers::{Blockers, OpBlockGuard, OpKind};
use super::child::{Child, Parent};
use super::perm::{ChildRole, Perm};
use crate::bitmap::BitmapSet;
use crate::driver::{BlockStatus, Driver, Limits, Preallocation, WriteFlags, WriteMapping, ZeroFlags};
use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{BackingRef, DetectZeroes, DriverOptions, NodeOptions, NodeRef};
use crate::sync::lock;
use crate::types::{MAX_LENGTH_BYTES, NodeName, SECTOR_BYTES};

/// A node of the graph.
pub struct Node {
    name: NodeName,
    /// The name was made up by the graph.
    generated_name: bool,
    /// When it got its name, among all nodes of the graph.
    order: u64,
    graph: Weak<Graph>,
    driver: Arc<dyn Driver>,
    options: Mutex<NodeOptions>,
    read_only: AtomicBool,
    detect_zeroes: Mutex<DetectZeroes>,
    /// Either `detect-zeroes` or a bitmap is set: one load tells the write path whether it is plain.
    detects: AtomicBool,
    discard_unmap: AtomicBool,
    /// Owned by the monitor: made by `blockdev-add`, ended by `blockdev-del` only.
    monitor_owned: AtomicBool,
    closed: AtomicBool,
    children: Mutex<Vec<Arc<Child>>>,
    parents: Mutex<Vec<ParentLink>>,
    bitmaps: BitmapSet,
    pub(super) blockers: Blockers,
    stats: NodeStats,
    /// Written to since the last flush.
    written: AtomicBool,
    write_threshold: AtomicU64,
    /// Offset and length of requests must be multiples of this; at least 1.
    alignment: AtomicU64,
    /// `cache.no-flush` on a node that holds data itself: nothing is made durable. A format still writes back what it
    /// has in memory, to children that do the same as it by default.
    skips_flush: AtomicBool,
    /// Longer transfers are done in pieces.
    max_transfer: AtomicUsize,
    /// Unaligned writes read, change and write back: they exclude all other writes of an aligned node meanwhile.
    unaligned: tokio::sync::RwLock<()>,
}

struct ParentLink {
    address: *const Child,
    child: Weak<Child>,
}

// SAFETY: the address is an identity to compare with; it is never dereferenced.
unsafe impl Send for ParentLink {}
// SAFETY: as above.
unsafe impl Sync for ParentLink {}

/// Counters of a node.
#[derive(Debug, Default)]
pub struct NodeStats {
    highest_write: AtomicU64,
}

impl NodeStats {
    /// The end of the highest write so far, in bytes.
    pub fn highest_write(&self) -> u64 {
        self.highest_write.load(Ordering::Relaxed)
    }
}

impl Node {
    pub(super) fn new(
        name: NodeName,
        generated_name: bool,
        order: u64,
        graph: Weak<Graph>,
        options: NodeOptions,
        driver: Arc<dyn Driver>,
        children: Vec<Arc<Child>>,
    ) -> Arc<Self> {
        let node = Arc::new(Self {
            name,
            generated_name,
            order,
            graph,
            read_only: AtomicBool::new(options.read_only.unwrap_or(false)),
            detect_zeroes: Mutex::new(options.detect_zeroes),
            detects: AtomicBool::new(options.detect_zeroes != DetectZeroes::Off),
            discard_unmap: AtomicBool::new(options.discard_unmap.unwrap_or(false)),
            skips_flush: AtomicBool::new(children.is_empty() && options.cache.no_flush == Some(true)),
            options: Mutex::new(options),
            monitor_owned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            children: Mutex::new(children),
            parents: Mutex::default(),
            bitmaps: BitmapSet::default(),
            blockers: Blockers::default(),
            stats: NodeStats::default(),
            written: AtomicBool::new(false),
            write_threshold: AtomicU64::new(0),
            max_transfer: AtomicUsize::new(max_transfer(&*driver)),
            alignment: AtomicU64::new(u64::from(driver.limits().request_alignment.max(1))),
            unaligned: tokio::sync::RwLock::new(()),
            driver,
        });
        for child in lock(&node.children).iter() {
            child.set_parent(super::child::Parent::Node(Arc::downgrade(&node)));
        }
        node
    }

    /// A node without a graph around it, for tests.
    pub fn standalone(name: &str, driver: Arc<dyn Driver>) -> Arc<Self> {
        Self::new(
            name.into(),
            false,
            0,
            Weak::new(),
            NodeOptions::default(),
            driver,
            Vec::new(),
        )
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Whether the graph made the name up.
    pub fn has_generated_name(&self) -> bool {
        self.generated_name
    }

    pub(super) fn order(&self) -> u64 {
        self.order
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The graph, while it lives.
    pub fn graph(&self) -> Option<Arc<Graph>> {
        self.graph.upgrade()
    }

    /// The options that the node was opened with, as they are in force now.
    pub fn options(&self) -> NodeOptions {
        lock(&self.options).clone()
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// The header names another backing file than the one that is open now: that one counts as given from here on.
    pub(super) fn forget_implicit_backing(&self) {
        let Some(backing) = self.child("backing") else {
            return;
        };
        if let DriverOptions::Qcow2(qcow2) = &mut lock(&self.options).driver
            && matches!(qcow2.backing, BackingRef::FromImage)
        {
            qcow2.backing = BackingRef::Node(NodeRef::Name(backing.node().name().clone()));
        }
    }

    /// Whether locks are skipped: then nothing is kept from others.
    pub(super) fn forces_share(&self) -> bool {
        lock(&self.options).force_share == Some(true)
    }

    /// Puts the options in force that the node itself knows; the driver has taken its own already.
    pub(super) fn take_options(&self, options: NodeOptions) {
        self.read_only
            .store(options.read_only == Some(true), Ordering::Relaxed);
        *lock(&self.detect_zeroes) = options.detect_zeroes;
        self.detects
            .store(options.detect_zeroes != DetectZeroes::Off, Ordering::Relaxed);
        self.discard_unmap
            .store(options.discard_unmap == Some(true), Ordering::Relaxed);
        self.alignment.store(
            u64::from(self.driver.limits().request_alignment.max(1)),
            Ordering::Relaxed,
        );
        self.max_transfer
            .store(max_transfer(&*self.driver), Ordering::Relaxed);
        self.skips_flush.store(
            lock(&self.children).is_empty() && options.cache.no_flush == Some(true),
            Ordering::Relaxed,
        );
        *lock(&self.options) = options;
    }

    /// Whether `blockdev-add` made the node, so that only `blockdev-del` ends it.
    pub fn is_monitor_owned(&self) -> bool {
        self.monitor_owned.load(Ordering::Relaxed)
    }

    pub(super) fn set_monitor_owned(&self, owned: bool) {
        self.monitor_owned.store(owned, Ordering::Relaxed);
    }

    /// The length in bytes: that of the image, rounded up to whole sectors.
    pub fn length(&self) -> u64 {
        self.driver.length().next_multiple_of(SECTOR_BYTES)
    }

    /// Whether the length is a whole number of the units in which requests are made.
    pub(super) fn is_length_aligned(&self) -> bool {
        self.length().is_multiple_of(self.alignment())
    }

    fn alignment(&self) -> u64 {
        self.alignment.load(Ordering::Relaxed)
    }

    /// Sizes that requests should keep to.
    pub fn limits(&self) -> Limits {
        self.driver.limits()
    }

    /// The dirty bitmaps.
    pub fn bitmaps(&self) -> &BitmapSet {
        &self.bitmaps
    }

    /// The counters.
    pub fn stats(&self) -> &NodeStats {
        &self.stats
    }

    /// The edges to the nodes below.
    pub fn children(&self) -> Vec<Arc<Child>> {
        lock(&self.children).clone()
    }

    /// The edge of this name.
    pub fn child(&self, name: &str) -> Option<Arc<Child>> {
        lock(&self.children)
            .iter()
            .find(|child| child.name() == name)
            .cloned()
    }

    /// The edges from above, oldest first.
    pub fn parents(&self) -> Vec<Arc<Child>> {
        lock(&self.parents)
            .iter()
            .filter_map(|link| link.child.upgrade())
            .collect()
    }

    pub(super) fn add_parent(&self, child: &Arc<Child>) {
        lock(&self.parents).push(ParentLink {
            address: Arc::as_ptr(child),
            child: Arc::downgrade(child),
        });
    }

    pub(super) fn remove_parent(&self, child: &Arc<Child>) {
        self.forget_parent(Arc::as_ptr(child));
    }

    pub(super) fn forget_parent(&self, address: *const Child) {
        lock(&self.parents).retain(|link| link.address != address);
    }

    pub(super) fn set_child(&self, name: &str, child: Option<Arc<Child>>) -> Option<Arc<Child>> {
        let mut children = lock(&self.children);
        let at = children.iter().position(|child| child.name() == name);
        match (at, child) {
            (Some(at), Some(child)) => Some(std::mem::replace(&mut children[at], child)),
            (Some(at), None) => Some(children.remove(at)),
            (None, Some(child)) => {
                children.push(child);
                None
            }
            (None, None) => None,
        }
    }

    pub(super) fn take_children(&self) -> Vec<Arc<Child>> {
        std::mem::take(&mut *lock(&self.children))
    }

    /// Writes the persistent bitmaps into the image, where the node can.
    pub(super) async fn store_bitmaps(&self) -> Result<()> {
        match self.driver.image_store() {
            Some(store) if !self.is_read_only() => {
                store.store_bitmaps(self.bitmaps.to_store()).await?;
                self.bitmaps.forget_persistent();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Marks the node as closed; false when it was already.
    pub(super) fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }

    /// The node that keeps internal snapshots for this one: the node itself, or what it passes on to its only child.
    pub fn snapshot_node(self: &Arc<Self>) -> Option<Arc<Self>> {
        let mut node = Arc::clone(self);
        while node.driver().image_store().is_none() {
            let children = node.children();
            let [only] = children.as_slice() else {
                return None;
            };
            node = only.node();
        }
        Some(node)
    }

    /// What all parents need together, and what all of them tolerate.
    pub fn cumulative_permissions(&self) -> (Perm, Perm) {
        self.parents()
            .iter()
            .fold((Perm::NONE, Perm::ALL), |(perm, shared), parent| {
                (perm | parent.perm(), shared & parent.shared())
            })
    }

    /// Whether the node takes writes at all.
    pub fn is_writable(&self) -> bool {
        !self.is_read_only()
    }

    /// Refuses every operation for which `reason` gives the words, until the guard goes.
    pub fn block_op(self: &Arc<Self>, reason: &str) -> OpBlockGuard {
        self.block_op_except(reason, &[])
    }

    /// As [`block_op`](Self::block_op), but these stay allowed.
    pub fn block_op_except(self: &Arc<Self>, reason: &str, allowed: &[OpKind]) -> OpBlockGuard {
        let id = self.blockers.add(reason, allowed);
        OpBlockGuard {
            node: Arc::downgrade(self),
            id,
        }
    }

    /// Refuses `op` when something blocks it: `Node 'N' is busy: ...`.
    pub fn check_op(&self, op: OpKind) -> Result<()> {
        self.blockers.check(self.name.as_str(), op)?;
        // An overlay lives on what its backing node holds.
        let allowed = matches!(
            op,
            OpKind::CommitTarget | OpKind::Stream | OpKind::BackupSource | OpKind::BackupTarget
        );
        if allowed {
            return Ok(());
        }
        for edge in self.parents().into_iter().rev() {
            if let (ChildRole::Backing, Parent::Node(overlay)) = (edge.role(), edge.parent())
                && let Some(overlay) = overlay.upgrade()
            {
                return Err(BlockError::new(
                    ErrorKind::Busy,
                    format!(
                        "Node '{}' is busy: node is used as backing hd of '{}'",
                        self.name,
                        overlay.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether any operation is blocked.
    pub fn has_op_blockers(&self) -> bool {
        !self.blockers.is_empty()
    }

    /// The write threshold in bytes; 0 is none.
    pub fn write_threshold(&self) -> u64 {
        self.write_threshold.load(Ordering::Relaxed)
    }

    /// Sets the write threshold: an event is sent once, when a write passes it.
    pub fn set_write_threshold(&self, threshold: u64) {
        self.write_threshold.store(threshold, Ordering::Relaxed);
    }

    /// Fills `buf` from `offset`; bytes beyond the end read as zeroes.
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let most = self.max_transfer.load(Ordering::Relaxed);
        if buf.len() <= most {
            return self.read_piece(offset, buf).await;
        }
        let mut at = offset;
        for piece in buf.chunks_mut(most) {
            self.read_piece(at, piece).await?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn read_piece(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(inside) = self.clip_read(offset, buf)? else {
            return Ok(());
        };
        let buf = &mut buf[..inside];
        if self.is_aligned(offset, buf.len()) {
            return self.driver.read(offset, buf).await;
        }
        let (start, mut bounce) = self.bounce_for(offset, buf.len())?;
        self.driver.read(start, &mut bounce).await?;
        let skip = usize::try_from(offset - start).map_err(|_| too_large())?;
        buf.copy_from_slice(&bounce[skip..skip + buf.len()]);
        Ok(())
    }

    /// Reads at once if no waiting is needed; `None` otherwise.
    pub fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        match self.clip_read(offset, buf) {
            Err(error) => Some(Err(error)),
            Ok(None) => Some(Ok(())),
            Ok(Some(inside)) => {
                if self.is_aligned(offset, inside) {
                    self.driver.try_read(offset, &mut buf[..inside])
                } else {
                    None
                }
            }
        }
    }

    /// Writes `buf` at `offset`. A driver that can grow (`file`) takes writes beyond its end.
    pub async fn write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        let most = self.max_transfer.load(Ordering::Relaxed);
        if buf.len() <= most {
            return self.write_piece(offset, buf, flags).await;
        }
        self.check_write(offset, buf.len() as u64)?;
        let mut at = offset;
        for piece in buf.chunks(most) {
            self.write_piece(at, piece, flags).await?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn write_piece(&self, offset: u64, buf: &[u8], mut flags: WriteFlags) -> Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        flags.fua &= !self.skips_flush.load(Ordering::Relaxed);
        if self.detects.load(Ordering::Relaxed) && !flags.compressed && is_zero(buf) {
            let detect = *lock(&self.detect_zeroes);
            if detect != DetectZeroes::Off {
                let may_unmap = detect == DetectZeroes::Unmap && self.discard_unmap.load(Ordering::Relaxed);
                let flags = ZeroFlags {
                    fua: flags.fua,
                    may_unmap,
                    no_fallback: false,
                };
                return self.write_zeroes(offset, buf.len() as u64, flags).await;
            }
        }
        // Where faults can be injected nothing is done at once, so that only this way tells of itself.
        self.driver.debug_event("pwritev");
        let result = if self.alignment() == 1 {
            self.driver.write(offset, buf, flags).await
        } else {
            self.write_aligned(offset, buf, flags).await
        };
        self.driver.debug_event("pwritev_done");
        self.after_write(offset, buf.len() as u64, flags.unchanged);
        result
    }

    /// Writes at once if no waiting is needed; `None` otherwise.
    pub fn try_write(&self, offset: u64, buf: &[u8], mut flags: WriteFlags) -> Option<Result<()>> {
        if let Err(error) = self.check_write(offset, buf.len() as u64) {
            return Some(Err(error));
        }
        if flags.fua {
            flags.fua = !self.skips_flush.load(Ordering::Relaxed);
        }
        if self.alignment() != 1 || self.detects.load(Ordering::Relaxed) {
            return None;
        }
        let result = self.driver.try_write(offset, buf, flags)?;
        self.after_write(offset, buf.len() as u64, flags.unchanged);
        Some(result)
    }

    /// Makes the range read as zeroes.
    pub async fn write_zeroes(&self, offset: u64, len: u64, mut flags: ZeroFlags) -> Result<()> {
        self.check_write(offset, len)?;
        if !self.discard_unmap.load(Ordering::Relaxed) {
            flags.may_unmap = false;
        }
        flags.fua &= !self.skips_flush.load(Ordering::Relaxed);
        self.driver.debug_event("pwritev_zero");
        let result = if self.is_aligned_range(offset, len) {
            let _shared = if self.alignment() > 1 {
                Some(self.unaligned.read().await)
            } else {
                None
            };
            self.driver.write_zeroes(offset, len, flags).await
        } else {
            self.write_zeroes_unaligned(offset, len, flags).await
        };
        self.driver.debug_event("pwritev_done");
        self.after_write(offset, len, false);
        result
    }

    /// Tells that the range is not needed any more. Without `discard=unmap` nothing happens.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        if !self.discard_unmap.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Only whole units can go; a discard is advice, so that the rest may stay.
        let start = offset.next_multiple_of(self.alignment());
        let end = (offset + len) / self.alignment() * self.alignment();
        let result = if start < end {
            self.driver.discard(start, end - start).await
        } else {
            Ok(())
        };
        self.after_write(offset, len, false);
        result
    }

    /// Makes every completed write durable.
    pub async fn flush(&self) -> Result<()> {
        if self.skips_flush.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.driver.flush().await
    }

    /// Whether it was written to since this was last asked: whether a flush has something to do.
    pub(super) fn take_written(&self) -> bool {
        self.written.swap(false, Ordering::Relaxed)
    }

    /// What lies at `offset`; the answer covers from 1 to `len` bytes, unless `len` is 0 or `offset` is the end.
    pub async fn block_status(&self, offset: u64, len: u64, want_host: bool) -> Result<BlockStatus> {
        let length = self.length();
        let len = len.min(length.saturating_sub(offset));
        if len == 0 {
            return Ok(BlockStatus {
                zero: true,
                ..BlockStatus::default()
            });
        }
        let start = offset / self.alignment() * self.alignment();
        let span = (offset - start).checked_add(len).ok_or_else(too_large)?;
        let span = span
            .checked_next_multiple_of(self.alignment())
            .ok_or_else(too_large)?;
        let mut status = self.driver.block_status(start, span, want_host).await?;
        status.len = status.len.saturating_sub(offset - start).clamp(1, len);
        if let Some(host) = &mut status.host {
            host.offset += offset - start;
        }
        Ok(status)
    }

    /// Changes the length.
    pub async fn truncate(&self, length: u64, preallocation: Preallocation) -> Result<()> {
        if self.is_read_only() {
            return Err(BlockError::new(ErrorKind::ReadOnly, "Image is read-only"));
        }
        if length > MAX_LENGTH_BYTES {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("offset({length}) exceeds maximum({MAX_LENGTH_BYTES})"),
            ));
        }
        self.driver.truncate(length, preallocation).await?;
        self.bitmaps.resize(self.length());
        Ok(())
    }

    /// Reserves host space for a write that the caller makes by itself. See [`Driver::map_for_write`].
    pub async fn map_for_write(&self, offset: u64, len: u64) -> Result<Option<WriteMapping>> {
        self.check_write(offset, len)?;
        if self.detects.load(Ordering::Relaxed) || !self.is_aligned_range(offset, len) {
            return Ok(None);
        }
        self.driver.map_for_write(offset, len).await
    }

    /// Makes the bytes of a mapping that was made for `offset` visible.
    pub async fn commit_write(&self, offset: u64, mapping: WriteMapping) -> Result<()> {
        let len = mapping.len;
        let result = self.driver.commit_write(mapping).await;
        self.after_write(offset, len, false);
        result
    }

    /// Gives a mapping back unused.
    pub fn abandon_write(&self, mapping: WriteMapping) {
        self.driver.abandon_write(mapping);
    }

    fn is_aligned(&self, offset: u64, len: usize) -> bool {
        self.is_aligned_range(offset, len as u64)
    }

    fn is_aligned_range(&self, offset: u64, len: u64) -> bool {
        self.alignment() == 1 || (offset | len) & (self.alignment() - 1) == 0
    }

    /// Zeroes what lies beyond the end and gives the length of the part inside; `None` when nothing is.
    fn clip_read(&self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>> {
        if buf.is_empty() {
            return Ok(None);
        }
        check_range(offset, buf.len() as u64)?;
        let length = self.driver.length();
        let inside = match usize::try_from(length.saturating_sub(offset)) {
            Ok(rest) => rest.min(buf.len()),
            Err(_) => buf.len(),
        };
        buf[inside..].fill(0);
        Ok(if inside == 0 { None } else { Some(inside) })
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(BlockError::from_errno(1, "Operation not permitted"));
        }
        check_range(offset, len)
    }

    /// What every completed write does, failed ones too: part of the range may have been written.
    fn after_write(&self, offset: u64, len: u64, unchanged: bool) {
        let end = offset + len;
        self.stats.highest_write.fetch_max(end, Ordering::Relaxed);
        if !self.written.load(Ordering::Relaxed) {
            self.written.store(true, Ordering::Relaxed);
        }
        if !self.bitmaps.is_empty() && !unchanged {
            self.bitmaps.mark_dirty(offset, len);
        }
        let threshold = self.write_threshold.load(Ordering::Relaxed);
        if threshold != 0 && end > threshold {
            self.pass_threshold(threshold, end);
        }
    }

    fn pass_threshold(&self, threshold: u64, end: u64) {
        let first = self
            .write_threshold
            .compare_exchange(threshold, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if let (true, Some(graph)) = (first, self.graph.upgrade()) {
            graph.emit(crate::event::Event::BlockWriteThreshold {
                node: self.name.clone(),
                threshold,
                exceeded: end - threshold,
            });
        }
    }

    /// A buffer for the aligned range around this one, and where it starts.
    fn bounce_for(&self, offset: u64, len: usize) -> Result<(u64, Vec<u8>)> {
        let start = offset / self.alignment() * self.alignment();
        let end = (offset + len as u64).next_multiple_of(self.alignment());
        let size = usize::try_from(end - start).map_err(|_| too_large())?;
        Ok((start, vec![0; size]))
    }

    async fn write_aligned(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        if self.is_aligned(offset, buf.len()) {
            let _shared = self.unaligned.read().await;
            return self.driver.write(offset, buf, flags).await;
        }
        let _exclusive = self.unaligned.write().await;
        let (start, mut bounce) = self.bounce_for(offset, buf.len())?;
        let unit = usize::try_from(self.alignment()).map_err(|_| too_large())?;
        let last = bounce.len() - unit;
        self.read_inside(start, &mut bounce[..unit]).await?;
        if last > 0 {
            self.read_inside(start + last as u64, &mut bounce[last..]).await?;
        }
        let skip = usize::try_from(offset - start).map_err(|_| too_large())?;
        bounce[skip..skip + buf.len()].copy_from_slice(buf);
        self.driver.write(start, &bounce, flags).await
    }

    /// Reads one aligned unit that may lie beyond the end.
    async fn read_inside(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.clip_read(offset, buf)? {
            // The driver reads whole units: past a length that is not a multiple it finds zeroes.
            Some(_) => self.driver.read(offset, buf).await,
            None => Ok(()),
        }
    }

    async fn write_zeroes_unaligned(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = offset + len;
        let inner_start = offset.next_multiple_of(self.alignment());
        let inner_end = end / self.alignment() * self.alignment();
        let plain = WriteFlags {
            fua: flags.fua,
            ..WriteFlags::default()
        };
        if inner_start >= inner_end {
            let zeroes = vec![0; usize::try_from(len).map_err(|_| too_large())?];
            return self.write_aligned(offset, &zeroes, plain).await;
        }
        if offset < inner_start {
            let zeroes = vec![0; usize::try_from(inner_start - offset).map_err(|_| too_large())?];
            self.write_aligned(offset, &zeroes, plain).await?;
        }
        {
            let _shared = self.unaligned.read().await;
            self.driver
                .write_zeroes(inner_start, inner_end - inner_start, flags)
                .await?;
        }
        if inner_end < end {
            let zeroes = vec![0; usize::try_from(end - inner_end).map_err(|_| too_large())?];
            self.write_aligned(inner_end, &zeroes, plain).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

/// The longest transfer of a driver in whole units of its alignment.
fn max_transfer(driver: &dyn Driver) -> usize {
    let limits = driver.limits();
    let unit = limits.request_alignment.max(1);
    // An unaligned piece grows by up to a unit at each end.
    let margin = if unit > 1 { 2 } else { 0 };
    match usize::try_from((limits.max_transfer / unit).saturating_sub(margin) * unit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(most) => most,
    }
}

fn check_range(offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_LENGTH_BYTES => Ok(()),
        _ => Err(too_large()),
    }
}

fn too_large() -> BlockError {
    BlockError::from_errno(5, "Input/output error")
}

/// Whether the buffer holds zeroes only.
pub fn is_zero(buf: &[u8]) -> bool {
    // SAFETY: every bit pattern of `u128` is valid.
    let (head, middle, tail) = unsafe { buf.align_to::<u128>() };
    head.iter().all(|byte| *byte == 0)
        && tail.iter().all(|byte| *byte == 0)
        && middle
            .chunks(8)
            .all(|chunk| chunk.iter().fold(0, |seen, word| seen | word) == 0)
}
