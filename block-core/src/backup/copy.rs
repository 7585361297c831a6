//! The copy engine below a backup: which clusters still have to be copied, and copying them once each.
//!
//! The background job and every guest write that is about to overwrite old data take clusters from one set: whoever takes a
//! cluster copies it, everybody else waits for it. A cluster that failed, or whose copier was dropped, goes back into
//! the set. So a cluster is either still to be copied (and then the source has its old content), on its way, or
//! copied. This module knows neither jobs nor policies.
//!
//! Where somebody copies the rest anyway, a small guest write need not wait for its whole cluster: only the blocks that it
//! touches are saved, the cluster goes back into the set, and whoever copies it later leaves those blocks alone.

mod guest;
mod readers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

pub use readers::{Located, ReadGuard};

use super::offload;
use crate::bitmap::HBitmap;
use crate::driver::{BlockStatus, HostExtent, WriteFlags, ZeroFlags};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, is_zero};
use crate::job::Progress;
use crate::sync::lock;

/// The smallest copy unit, and the one for targets without clusters.
pub const DEFAULT_CLUSTER_BYTES: u64 = 65536;
/// The largest copy unit.
pub const MAX_CLUSTER_BYTES: u64 = 1 << 31;
/// The longest piece that is read and then written.
const BUFFER_BYTES: u64 = 1 << 20;
/// The shortest piece that is left to the kernel.
const OFFLOAD_LEAST_BYTES: u64 = 256 << 10;
/// Pieces that the kernel copies at the same time: more than memory bandwidth serves only adds waiting.
const LANES: usize = 2;
/// What a small guest write saves of a cluster, at least.
const BLOCK_BYTES: u64 = 4096;
/// How far ahead the source is asked what it holds.
const LOOKAHEAD_BYTES: u64 = 1 << 40;

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Copy unit of at least this many bytes (a power of two).
    pub min_cluster_bytes: u64,
    /// Write compressed clusters.
    pub compress: bool,
    /// Discard what was copied from the source.
    pub discard_source: bool,
}

/// A failed copy: which side failed, and how.
#[derive(Debug, Clone)]
pub struct CopyError {
    /// Reading the source failed, not writing the target.
    pub is_read: bool,
    /// The failure.
    pub error: BlockError,
}

impl CopyError {
    fn read(error: BlockError) -> Self {
        Self { is_read: true, error }
    }

    fn write(error: BlockError) -> Self {
        Self {
            is_read: false,
            error,
        }
    }
}

/// The state of one copy.
#[derive(Debug)]
pub struct BlockCopy {
    source: Arc<Child>,
    target: Arc<Child>,
    cluster: u64,
    length: u64,
    compress: AtomicBool,
    discard_source: bool,
    /// A guest's write may save less than a cluster.
    by_blocks: AtomicBool,
    /// What the target does not hold reads as zeroes for good.
    stands_alone: AtomicBool,
    /// Cleared when the kernel refuses to copy between the two files.
    offload: AtomicBool,
    sets: Mutex<Sets>,
    /// Something left `in_flight` or `readers`.
    changed: Notify,
    /// Nobody needs the copy any more; whoever waits for it shall not.
    retired: AtomicBool,
    /// Why the point in time was given up.
    broken: Mutex<Option<BlockError>>,
    retire: Notify,
    progress: Mutex<Option<Arc<Progress>>>,
    /// What the background copier knows of the source.
    plan: tokio::sync::Mutex<Option<Known>>,
    lanes: tokio::sync::Semaphore,
    turn: Arc<offload::Turn>,
    guest_delay_max_ns: AtomicU64,
}

#[derive(Debug)]
struct Sets {
    /// Clusters that still have to be copied.
    dirty: HBitmap,
    /// Clusters that were copied.
    copied: HBitmap,
    /// Of clusters that still have to be copied: the blocks that were, one bit each.
    saved: BTreeMap<u64, u64>,
    /// Clusters on their way.
    in_flight: Vec<(u64, u64)>,
    in_flight_clusters: u64,
    /// How many were copied because a guest was about to overwrite them.
    guest_clusters: u64,
    /// Ranges of bytes that somebody reads from the source as they were.
    readers: Vec<(u64, u64)>,
}

/// What the source holds from an offset on.
#[derive(Debug, Clone)]
struct Known {
    start: u64,
    end: u64,
    status: BlockStatus,
}

/// Clusters that their holder copies. Dropped before they are copied, they have to be copied again.
#[derive(Debug)]
pub struct Claim {
    copy: Arc<BlockCopy>,
    /// In clusters.
    start: u64,
    end: u64,
    /// Only these blocks of its one cluster.
    blocks: Option<u64>,
    way: Way,
    /// Taken for a guest's write.
    for_guest: bool,
    finished: bool,
}

/// How a claim is best copied.
#[derive(Debug, Clone)]
enum Way {
    Zero,
    Host(HostExtent),
    Buffer,
}

impl Claim {
    /// Where it starts and how long it is, in bytes.
    pub fn range(&self) -> (u64, u64) {
        let start = self.start * self.copy.cluster;
        (
            start,
            (self.end * self.copy.cluster).min(self.copy.length) - start,
        )
    }

    /// Gives back all but the first clusters, `most` bytes of them: nothing of it has been copied yet.
    fn shrink(&mut self, most: u64) {
        let end = self.start + (most / self.copy.cluster).max(1);
        if self.blocks.is_some() || end >= self.end {
            return;
        }
        let mut sets = lock(&self.copy.sets);
        if let Some(range) = sets
            .in_flight
            .iter_mut()
            .find(|range| **range == (self.start, self.end))
        {
            range.1 = end;
            sets.in_flight_clusters -= self.end - end;
            sets.dirty.set(end, self.end);
            self.end = end;
        }
        drop(sets);
        self.copy.changed.notify_waiters();
    }

    fn done(mut self) {
        self.finished = true;
        match self.blocks {
            Some(blocks) => self.copy.keep_blocks(self.start, blocks),
            None => self.copy.release(self.start, self.end, true, self.for_guest),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.finished {
            self.copy.release(self.start, self.end, false, self.for_guest);
        }
    }
}

/// Whether a copy unit that a client asked for is a number at all, as clients know it.
pub(super) fn check_min_cluster(bytes: u64) -> Result<()> {
    match i64::try_from(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(BlockError::new(
            ErrorKind::Invalid,
            format!("min-cluster-size too large: {bytes} > {}", i64::MAX),
        )),
    }
}

fn overlaps(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl BlockCopy {
    /// A copy from `source` to `target` with every cluster still to be copied.
    pub fn new(source: &Arc<Child>, target: &Arc<Child>, options: CopyOptions) -> Result<Arc<Self>> {
        check_min_cluster(options.min_cluster_bytes)?;
        if options.min_cluster_bytes > 0 && !options.min_cluster_bytes.is_power_of_two() {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "min-cluster-size needs to be a power of 2",
            ));
        }
        if options.min_cluster_bytes > MAX_CLUSTER_BYTES {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("min-cluster-size must not be larger than {MAX_CLUSTER_BYTES}"),
            ));
        }
        let target_cluster = u64::from(target.info().cluster_bytes.unwrap_or(0));
        let cluster = DEFAULT_CLUSTER_BYTES
            .max(options.min_cluster_bytes)
            .max(target_cluster.next_power_of_two());
        let length = source.length();
        let clusters = length.div_ceil(cluster);
        let mut dirty = HBitmap::new(clusters);
        dirty.set(0, clusters);
        let sets = Sets {
            dirty,
            copied: HBitmap::new(clusters),
            saved: BTreeMap::new(),
            in_flight: Vec::new(),
            in_flight_clusters: 0,
            guest_clusters: 0,
            readers: Vec::new(),
        };
        Ok(Arc::new(Self {
            source: Arc::clone(source),
            target: Arc::clone(target),
            cluster,
            length,
            compress: AtomicBool::new(options.compress),
            discard_source: options.discard_source,
            by_blocks: AtomicBool::new(false),
            stands_alone: AtomicBool::new(false),
            offload: AtomicBool::new(true),
            sets: Mutex::new(sets),
            changed: Notify::new(),
            retired: AtomicBool::new(false),
            broken: Mutex::default(),
            retire: Notify::new(),
            progress: Mutex::default(),
            plan: tokio::sync::Mutex::default(),
            lanes: tokio::sync::Semaphore::new(LANES),
            turn: Arc::default(),
            guest_delay_max_ns: AtomicU64::new(0),
        }))
    }

    /// The copy unit in bytes.
    pub fn cluster_bytes(&self) -> u64 {
        self.cluster
    }

    /// The length of the source in bytes when the copy began.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Write compressed clusters from now on.
    pub fn set_compress(&self, compress: bool) {
        self.compress.store(compress, Ordering::Relaxed);
    }

    /// Whether what was copied is discarded from the source.
    pub fn discards_source(&self) -> bool {
        self.discard_source
    }

    /// Allows or forbids that the kernel copies between two files.
    pub fn set_offload(&self, offload: bool) {
        self.offload.store(offload, Ordering::Relaxed);
    }

    /// A small guest write may save the blocks that it touches instead of whole clusters. Only for a copy that somebody
    /// completes, to a target that has no clusters of its own.
    pub fn allow_blocks(&self) {
        let plain = self.target.info().cluster_bytes.unwrap_or(0) == 0;
        let few = self.cluster / BLOCK_BYTES <= u64::from(u64::BITS);
        self.by_blocks.store(plain && few, Ordering::Relaxed);
    }

    /// The target is never read through another image: what it does not hold needs no zeroes. Otherwise zeroes are
    /// written there, because a backing file that is not open now may show through later.
    pub fn set_stands_alone(&self) {
        self.stands_alone.store(true, Ordering::Relaxed);
    }

    /// Only these areas (offset and length in bytes) have to be copied. Nothing may have been copied yet.
    pub fn restrict_to(&self, areas: impl IntoIterator<Item = (u64, u64)>) {
        let mut sets = lock(&self.sets);
        sets.dirty.reset();
        for (offset, len) in areas {
            sets.dirty.set(
                offset / self.cluster,
                offset.saturating_add(len).div_ceil(self.cluster),
            );
        }
    }

    /// Counts what is copied, by whomever, in a job's progress.
    pub fn set_progress(&self, progress: &Arc<Progress>) {
        *lock(&self.progress) = Some(Arc::clone(progress));
        let sets = lock(&self.sets);
        progress.set_remaining(self.remaining(&sets));
    }

    /// In whole clusters, as clients know it: the last one may reach beyond the end.
    fn remaining(&self, sets: &Sets) -> u64 {
        (sets.dirty.count() + sets.in_flight_clusters).saturating_mul(self.cluster)
    }

    /// Bytes that still have to be copied, in whole clusters.
    pub fn remaining_bytes(&self) -> u64 {
        self.remaining(&lock(&self.sets))
    }

    /// How many clusters were saved before a guest's write, and how many still have to be copied.
    pub fn counts(&self) -> (u64, u64) {
        let sets = lock(&self.sets);
        (sets.guest_clusters, sets.dirty.count())
    }

    /// Areas that have not been copied, as offset and length in bytes.
    pub fn uncopied(&self) -> Vec<(u64, u64)> {
        let sets = lock(&self.sets);
        let mut todo = sets.dirty.clone();
        for (start, end) in &sets.in_flight {
            todo.set(*start, *end);
        }
        todo.runs()
            .map(|(start, end)| {
                let offset = start * self.cluster;
                (offset, (end * self.cluster).min(self.length) - offset)
            })
            .collect()
    }

    /// The longest time in nanoseconds that a guest's write waited for its old data to be copied.
    pub fn guest_delay_max_ns(&self) -> u64 {
        self.guest_delay_max_ns.load(Ordering::Relaxed)
    }

    fn clusters(&self, offset: u64, len: u64) -> (u64, u64) {
        let last = self.length.div_ceil(self.cluster);
        (
            (offset / self.cluster).min(last),
            offset.saturating_add(len).div_ceil(self.cluster).min(last),
        )
    }

    /// Nobody needs the copy any more: guest writes pass, and those that wait go on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.retire.notify_waiters();
        self.changed.notify_waiters();
    }

    /// The point in time is lost: an old cluster could not be saved and will be overwritten.
    pub fn give_up(&self, error: &BlockError) {
        lock(&self.broken).get_or_insert_with(|| error.clone());
        self.retire();
    }

    /// Why the point in time was given up, if it was.
    pub fn broken(&self) -> Option<BlockError> {
        lock(&self.broken).clone()
    }

    /// Resolves when the point in time is given up.
    pub async fn lost(&self) {
        loop {
            let retired = self.retire.notified();
            let mut retired = std::pin::pin!(retired);
            retired.as_mut().enable();
            if lock(&self.broken).is_some() {
                return;
            }
            retired.await;
        }
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    fn release(&self, start: u64, end: u64, success: bool, for_guest: bool) {
        let mut sets = lock(&self.sets);
        if let Some(at) = sets.in_flight.iter().position(|range| *range == (start, end)) {
            sets.in_flight.swap_remove(at);
            sets.in_flight_clusters -= end - start;
        }
        if success {
            if for_guest {
                sets.guest_clusters += end - start;
            }
            sets.copied.set(start, end);
            while let Some((cluster, _)) = sets.saved.range(start..end).next() {
                let cluster = *cluster;
                sets.saved.remove(&cluster);
            }
        } else {
            sets.dirty.set(start, end);
        }
        let remaining = self.remaining(&sets);
        if let Some(progress) = &*lock(&self.progress) {
            progress.advance(if success { (end - start) * self.cluster } else { 0 });
            progress.set_remaining(remaining);
        }
        drop(sets);
        self.changed.notify_waiters();
    }

    /// Blocks of a cluster that is on its way were copied: all of it still has to be but them.
    fn keep_blocks(&self, cluster: u64, blocks: u64) {
        let all = self.blocks_in(cluster, 0, u64::MAX);
        let full = {
            let mut sets = lock(&self.sets);
            let saved = sets.saved.entry(cluster).or_default();
            *saved |= blocks;
            *saved & all == all
        };
        self.release(cluster, cluster + 1, full, true);
    }

    /// The blocks of a cluster that a range of bytes touches.
    fn blocks_in(&self, cluster: u64, offset: u64, end: u64) -> u64 {
        let base = cluster * self.cluster;
        let limit = (base + self.cluster).min(self.length);
        let first = offset.clamp(base, limit) - base;
        let last = end.clamp(base, limit) - base;
        let below = |block: u64| match block {
            0 => 0,
            1..=63 => (1u64 << block) - 1,
            _ => u64::MAX,
        };
        below(last.div_ceil(BLOCK_BYTES)) & !below(first / BLOCK_BYTES)
    }

    /// What a claim really has to copy, as offsets and lengths in bytes.
    fn pieces(&self, claim: &Claim) -> Vec<(u64, u64)> {
        let (offset, len) = claim.range();
        let sets = lock(&self.sets);
        if claim.blocks.is_none() && sets.saved.range(claim.start..claim.end).next().is_none() {
            return vec![(offset, len)];
        }
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for cluster in claim.start..claim.end {
            let wanted = claim.blocks.unwrap_or(u64::MAX) & !sets.saved.get(&cluster).copied().unwrap_or(0);
            let base = cluster * self.cluster;
            let mut at = base;
            while at < (base + self.cluster).min(self.length) {
                let stop = (at + BLOCK_BYTES).min(base + self.cluster).min(self.length);
                if wanted & self.blocks_in(cluster, at, stop) != 0 {
                    match pieces.last_mut() {
                        Some((start, len)) if *start + *len == at => *len += stop - at,
                        _ => pieces.push((at, stop - at)),
                    }
                }
                at = stop;
            }
        }
        pieces
    }

    fn claim(self: &Arc<Self>, sets: &mut Sets, start: u64, end: u64, way: Way) -> Claim {
        sets.dirty.clear(start, end);
        sets.in_flight.push((start, end));
        sets.in_flight_clusters += end - start;
        Claim {
            copy: Arc::clone(self),
            start,
            end,
            blocks: None,
            way,
            for_guest: false,
            finished: false,
        }
    }

    // --- The background copier ----------------------------------------------------------------------------------

    /// Takes the next clusters, at most `longest` bytes of data; zeroes are taken in one piece unless `pace` asks for
    /// pieces of the same size. `None`: nothing is left that nobody has taken.
    pub async fn next_claim(self: &Arc<Self>, longest: u64, pace: bool) -> Option<Claim> {
        // Held across the question below, so that of many copiers only one asks about the same area.
        let mut plan = self.plan.lock().await;
        loop {
            let (start, end) = lock(&self.sets).dirty.next_run(0, u64::MAX, u64::MAX)?;
            let offset = start * self.cluster;
            let known = match plan
                .take()
                .filter(|known| known.start <= offset && offset < known.end)
            {
                Some(known) => known,
                // A cluster by itself is read whatever the answer, unless that is zero, which is seen when it is read;
                // and to ask a file system about a few blocks can take longer than to copy them.
                None if end - start == 1 && self.cluster < OFFLOAD_LEAST_BYTES => {
                    let end = (offset + self.cluster).min(self.length);
                    Known {
                        start: offset,
                        end,
                        status: BlockStatus {
                            len: end - offset,
                            allocated: true,
                            zero: false,
                            data: true,
                            compressed: false,
                            host: None,
                        },
                    }
                }
                None => {
                    // Asked beyond this run: what is still to be copied does not change, so that a long answer stays
                    // true where it matters; and a file system may walk to the end of its data for each answer.
                    let status = self.source_status(offset, (end - start) * self.cluster).await;
                    Known {
                        start: offset,
                        end: offset.saturating_add(status.len.max(1)),
                        status,
                    }
                }
            };
            // Whole clusters of one kind; one that is mixed is read and written.
            let mut covered = known.end / self.cluster;
            if known.end >= self.length {
                covered = self.length.div_ceil(self.cluster);
            }
            let uniform = covered > start;
            let way = match &known.status {
                status if uniform && status.zero => Way::Zero,
                BlockStatus {
                    host: Some(host),
                    data: true,
                    ..
                } if uniform && self.may_offload() => Way::Host(HostExtent {
                    file: Arc::clone(&host.file),
                    offset: host.offset + (offset - known.start),
                }),
                _ => Way::Buffer,
            };
            let stop = if uniform { end.min(covered) } else { start + 1 };
            let chunk = match way {
                Way::Zero if !pace => stop - start,
                Way::Zero | Way::Host(_) => (longest / self.cluster).max(1),
                Way::Buffer => (longest.min(BUFFER_BYTES) / self.cluster).max(1),
            };
            *plan = Some(known);
            let mut sets = lock(&self.sets);
            // Guest writes took clusters meanwhile, perhaps.
            if !sets.dirty.get(start) {
                continue;
            }
            let stop = sets
                .dirty
                .next_clear(start, stop.min(start + chunk))
                .unwrap_or(stop.min(start + chunk));
            // A cluster of which blocks are saved is copied by itself, piece by piece.
            let (stop, way) = match sets.saved.range(start..stop).next() {
                Some((first, _)) if *first == start => (start + 1, Way::Buffer),
                Some((first, _)) => (*first, way),
                None => (stop, way),
            };
            // A small piece is copied sooner than a thread is found for it.
            let way = match way {
                Way::Host(_) if (stop - start) * self.cluster < OFFLOAD_LEAST_BYTES => Way::Buffer,
                way => way,
            };
            return Some(self.claim(&mut sets, start, stop, way));
        }
    }

    /// What the source holds at `offset`, where a run of `run` bytes has to be copied. A source that cannot say is read.
    async fn source_status(&self, offset: u64, run: u64) -> BlockStatus {
        let most = self.length - offset;
        let offload = self.offload.load(Ordering::Relaxed);
        // Somebody may be kept from what lies behind the run, or behind its first cluster.
        for span in [most.min(LOOKAHEAD_BYTES), most.min(run), most.min(self.cluster)] {
            if let Ok(status) = self.source.block_status(offset, span, offload).await {
                return status;
            }
        }
        BlockStatus {
            len: most.min(self.cluster),
            allocated: true,
            zero: false,
            data: true,
            compressed: false,
            host: None,
        }
    }

    fn may_offload(&self) -> bool {
        self.offload.load(Ordering::Relaxed) && !self.compress.load(Ordering::Relaxed)
    }

    /// Whether there are clusters that nobody has taken.
    pub fn is_untaken(&self) -> bool {
        !lock(&self.sets).dirty.is_empty()
    }

    /// Whether something is on its way.
    pub fn is_in_flight(&self) -> bool {
        !lock(&self.sets).in_flight.is_empty()
    }

    /// Resolves when something that was on its way has arrived or failed.
    pub async fn changed(&self) {
        let changed = self.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        if self.is_in_flight() {
            changed.await;
        }
    }

    /// Copies a claim.
    pub async fn transfer(&self, mut claim: Claim, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let (offset, mut len) = claim.range();
        match claim.way.clone() {
            Way::Zero => self.zero_target(offset, len).await.map_err(CopyError::write)?,
            Way::Host(host) => {
                let copied = if self.may_offload() {
                    self.copy_in_kernel(offset, len, &host).await?
                } else {
                    0
                };
                if copied == 0 {
                    // The kernel does not do it: pieces that go through memory are shorter, so that each is soon there.
                    claim.shrink(BUFFER_BYTES);
                    len = claim.range().1;
                }
                if copied < len {
                    self.copy_by_buffer(offset + copied, len - copied, buffer).await?;
                }
            }
            Way::Buffer => {
                for (at, len) in self.pieces(&claim) {
                    self.copy_by_buffer(at, len, buffer).await?;
                }
            }
        }
        claim.done();
        if self.discards_source() {
            // Advice only: what cannot be given back stays.
            let _ = self.source.discard(offset, len).await;
        }
        Ok(())
    }

    /// Makes a range of the target read as zeroes, without touching what does so already.
    async fn zero_target(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let status = self.target.block_status(at, end - at, false).await?;
            let run = status.len.clamp(1, end - at);
            if !status.zero || !(status.allocated || self.stands_alone.load(Ordering::Relaxed)) {
                let flags = ZeroFlags {
                    fua: false,
                    may_unmap: true,
                    no_fallback: false,
                };
                self.target.write_zeroes(at, run, flags).await?;
            }
            at += run;
        }
        Ok(())
    }

    /// Lets the kernel copy between the files behind source and target; says how many bytes it did.
    async fn copy_in_kernel(&self, offset: u64, len: u64, host: &HostExtent) -> Result<u64, CopyError> {
        let mut copied = 0;
        while copied < len {
            let at = offset + copied;
            let Some(mapping) = self
                .target
                .map_for_write(at, len - copied)
                .await
                .map_err(CopyError::write)?
            else {
                self.offload.store(false, Ordering::Relaxed);
                break;
            };
            let reservation = offload::Reservation::new(&self.target, mapping);
            let run = reservation.covers().min(len - copied);
            if run == 0 {
                break;
            }
            let from = HostExtent {
                file: Arc::clone(&host.file),
                offset: host.offset + copied,
            };
            // Never closed, so that there is always a lane in the end.
            let lane = self.lanes.acquire().await;
            let result = offload::copy(from, reservation, run, Arc::clone(&self.turn)).await;
            drop(lane);
            match result {
                Ok(reservation) => reservation.commit(at).await.map_err(CopyError::write)?,
                Err(offload::Refused::Never) => {
                    self.offload.store(false, Ordering::Relaxed);
                    break;
                }
                // The kernel does not say which side failed: the slow way finds out.
                Err(offload::Refused::Now) => break,
            }
            copied += run;
        }
        Ok(copied)
    }

    async fn copy_by_buffer(&self, offset: u64, len: u64, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let piece = len.min(BUFFER_BYTES.max(if self.compress.load(Ordering::Relaxed) {
            self.cluster
        } else {
            0
        }));
        let size = usize::try_from(piece)
            .map_err(|_| CopyError::read(BlockError::from_errno(12, "Cannot allocate memory")))?;
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let mut at = offset;
        while at < offset + len {
            let run = usize::try_from((offset + len - at).min(piece)).unwrap_or(size);
            let Some(buf) = buffer.get_mut(..run) else { break };
            match self.source.try_read(at, buf) {
                Some(result) => result.map_err(CopyError::read)?,
                None => self.source.read(at, buf).await.map_err(CopyError::read)?,
            }
            if is_zero(buf) {
                self.zero_target(at, run as u64).await.map_err(CopyError::write)?;
            } else {
                let flags = WriteFlags {
                    compressed: self.compress.load(Ordering::Relaxed),
                    ..WriteFlags::default()
                };
                match if flags.compressed {
                    None
                } else {
                    self.target.try_write(at, buf, flags)
                } {
                    Some(result) => result.map_err(CopyError::write)?,
                    None => self
                        .target
                        .write(at, buf, flags)
                        .await
                        .map_err(CopyError::write)?,
                }
            }
            at += run as u64;
        }
        Ok(())
    }

    /// Takes clusters that the source does not hold itself (they come from its backing node) out of the set.
    pub async fn skip_unallocated(&self, mut stop: impl FnMut() -> bool) -> Result<(), CopyError> {
        let mut at = 0;
        while at < self.length && !stop() {
            let status = self
                .source
                .block_status(at, self.length - at, false)
                .await
                .map_err(CopyError::read)?;
            let end = at.saturating_add(status.len.max(1)).min(self.length);
            if !status.allocated {
                let first = at.div_ceil(self.cluster);
                let last = if end >= self.length {
                    end.div_ceil(self.cluster)
                } else {
                    end / self.cluster
                };
                let mut sets = lock(&self.sets);
                if first < last {
                    sets.dirty.clear(first, last);
                }
                let remaining = self.remaining(&sets);
                if let Some(progress) = &*lock(&self.progress) {
                    progress.set_remaining(remaining);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// The source and the target.
    pub fn ends(&self) -> (&Arc<Child>, &Arc<Child>) {
        (&self.source, &self.target)
    }
}
