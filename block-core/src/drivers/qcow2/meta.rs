//! The image's metadata in memory: one owner of every table, changed in synchronous steps.
//!
//! A step either does all of its work or changes nothing and says what it [`Need`]s first (a piece to be read, a
//! write-back, another request to end). It knows nothing of files and never waits: [`super::io`] does that.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::cache::{Cache, NumberSet};
use super::entry::{BadEntry, COPIED, Compressed, Geometry, MAX_HOST_OFFSET, Mapping, OFFSET_MASK};
use super::header::Header;
use super::{BlockError, ErrorKind};

/// What a step must have before it can be done.
#[derive(Debug)]
pub(super) enum Need {
    /// This part of an L2 table, by number over the whole guest disk.
    Slice(u64),
    /// This refcount block.
    Refblock(u64),
    /// Less dirty metadata, or fewer clusters that wait for being freed.
    Room,
    /// An L2 table that belongs to the active image alone, for this L1 entry.
    Table(u64),
    /// Another request to end.
    Wait(OwnedNotified),
    /// A flush of the file: writes of dropped requests may still be on their way.
    Settle,
    /// It contradicts itself.
    Corrupt(Corruption),
    /// It cannot be done.
    Fail(BlockError),
}

/// What was found wrong with an image.
#[derive(Debug, Clone)]
pub(super) struct Corruption {
    pub(super) message: String,
    pub(super) place: Option<(u64, u64)>,
    /// Going on would do more damage.
    pub(super) fatal: bool,
}

pub(super) type Step<T> = Result<T, Need>;

/// Why clusters are freed: decides whether the file below hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FreeReason {
    /// The guest discarded them.
    Request,
    /// A snapshot held them.
    Snapshot,
    /// Anything else.
    Other,
}

/// Clusters that lose one reference each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) reason: FreeReason,
}

/// References given up in memory, on their way to being free on disk. A cluster is handed out again only when
/// nothing on disk refers to it, no request that looked it up before is under way, and no dropped request's write can
/// still reach it.
#[derive(Debug, Default)]
pub(super) struct Frees {
    /// The tables that gave them up are not on disk yet.
    pub(super) waiting: Vec<Free>,
    /// Taken by requests that were dropped: a flush must come first.
    pub(super) quarantine: Vec<Free>,
    /// Gone from the disk's tables.
    pub(super) durable: Vec<Free>,
    /// Waiting for the requests of one parity to end.
    pub(super) grace: Option<(usize, Vec<Free>)>,
    /// May be freed.
    pub(super) ready: Vec<Free>,
    /// Entries of `waiting` before this are part of a write-back and must not grow.
    pub(super) sealed: usize,
}

impl Frees {
    pub(super) fn push(&mut self, free: Free) {
        if self.waiting.len() > self.sealed
            && let Some(last) = self.waiting.last_mut()
            && last.reason == free.reason
            && last.first + last.count == free.first
        {
            last.count += free.count;
        } else {
            self.waiting.push(free);
        }
    }
}

#[derive(Debug)]
struct InFlight {
    end: u64,
    notify: Option<Arc<Notify>>,
}

/// What a guest range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Bytes in the file from here on.
    Data(u64),
    /// Zeroes; host space may be kept for them.
    Zero(Option<u64>),
    /// The backing node's content.
    Backing,
    /// Inside this compressed cluster.
    Compressed(Compressed),
}

/// A run of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) len: u64,
}

/// Where a write goes.
#[derive(Debug)]
pub(super) enum Place {
    /// Into clusters that are there already.
    There { host: u64, len: u64 },
    /// Into clusters that become visible by [`Meta::commit`].
    New { allocation: Allocation, len: u64 },
}

/// Host clusters set aside for guest clusters; the latter are in flight until it ends.
#[derive(Debug)]
pub(super) struct Allocation {
    /// First guest cluster.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u64,
    /// Host offset of the first.
    pub(super) host: u64,
    /// The space was never written and reads as zeroes.
    pub(super) fresh: bool,
    /// The space is kept by the table already (preallocated zero clusters).
    pub(super) reused: bool,
    /// The old content before the data in the first cluster is all zeroes.
    pub(super) head_zero: bool,
    /// The same after the data in the last cluster.
    pub(super) tail_zero: bool,
    /// Set for a compressed cluster: what its entry will be.
    pub(super) compressed: Option<Compressed>,
}

impl Allocation {
    /// References taken for it.
    pub(super) fn taken(&self, geometry: &Geometry) -> Option<Free> {
        let (first, count) = match &self.compressed {
            Some(at) => at.host_clusters(geometry),
            None => (self.host >> geometry.cluster_bits, self.count),
        };
        (!self.reused).then_some(Free {
            first,
            count,
            reason: FreeReason::Other,
        })
    }
}

/// How zeroes get into the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZeroMode {
    /// Zero clusters that keep their host space.
    Keep,
    /// Zero clusters without host space.
    Unmap,
    /// The guest does not need the content.
    Discard,
    /// The guest does not need the content, host space stays.
    DiscardKeep,
    /// As if never written: the backing content shows through.
    Forget,
}

/// The tables of one image.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) geometry: Geometry,
    pub(super) header: Header,
    pub(super) l1: Vec<u64>,
    /// 512-byte parts of the L1 table to write, with the change that made them dirty.
    pub(super) l1_dirty: BTreeMap<u64, u64>,
    pub(super) l2: Cache<Box<[u64]>>,
    /// L1 entries whose table is being made.
    pub(super) l1_busy: BTreeMap<u64, Arc<Notify>>,
    pub(super) reftable: Vec<u64>,
    pub(super) reftable_dirty: BTreeMap<u64, u64>,
    /// The table moved and has not been written at its new place; where it was: first cluster and count.
    pub(super) reftable_moved: Option<(u64, u64)>,
    pub(super) refblocks: Cache<Box<[u8]>>,
    /// Clusters below this are taken.
    pub(super) free_hint: u64,
    /// Clusters from here on were never written and read as zeroes.
    pub(super) fresh_from: u64,
    /// Where the next compressed cluster may go, inside a partly filled host cluster.
    pub(super) compressed_tail: Option<u64>,
    in_flight: BTreeMap<u64, InFlight>,
    pub(super) loading: BTreeMap<(bool, u64), Arc<Notify>>,
    pub(super) frees: Frees,
    /// Host clusters that hold metadata: guest data must never be written there.
    pub(super) metadata: NumberSet,
    /// Parity that new requests count in.
    pub(super) epoch: usize,
    /// Set while an operation needs the image for itself; told when it is done.
    pub(super) exclusive: Option<Arc<Notify>>,
    /// Tables changed whose data must be durable before them.
    pub(super) data_first: bool,
    /// A dropped request may still be writing into space that is kept for its guest clusters.
    pub(super) unsettled: bool,
    /// A fatal corruption was found: nothing works any more.
    pub(super) broken: bool,
    /// A corruption was told of: those that do no damage are told of once.
    pub(super) told: bool,
    changes: u64,
}

/// Clusters waiting to be freed are written back when they are more entries than this.
const MAX_WAITING_FREES: usize = 4096;

impl Meta {
    pub(super) fn new(header: Header, slice_bits: u32, l2_slices: usize, refblocks: usize) -> Self {
        let geometry = Geometry {
            cluster_bits: header.cluster_bits,
            refcount_order: header.refcount_order,
            version: header.version,
            slice_bits,
        };
        Self {
            geometry,
            header,
            l1: Vec::new(),
            l1_dirty: BTreeMap::new(),
            l2: Cache::new(l2_slices),
            l1_busy: BTreeMap::new(),
            reftable: Vec::new(),
            reftable_dirty: BTreeMap::new(),
            reftable_moved: None,
            refblocks: Cache::new(refblocks),
            free_hint: 0,
            fresh_from: u64::MAX,
            compressed_tail: None,
            in_flight: BTreeMap::new(),
            loading: BTreeMap::new(),
            frees: Frees::default(),
            metadata: NumberSet::default(),
            epoch: 0,
            exclusive: None,
            data_first: false,
            unsettled: false,
            broken: false,
            told: false,
            changes: 0,
        }
    }

    /// A number for the next change of a table that is tracked by parts.
    pub(super) fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub(super) fn mark_metadata(&mut self, offset: u64, bytes: u64) {
        let first = offset >> self.geometry.cluster_bits;
        for cluster in first..first + self.geometry.clusters(bytes) {
            self.metadata.insert(cluster);
        }
    }

    // ---- Lookup ----

    /// The L2 table of an L1 entry: its host offset and whether it belongs to the active image alone.
    pub(super) fn table(&self, l1_index: u64) -> Step<Option<(u64, bool)>> {
        let entry = usize::try_from(l1_index)
            .ok()
            .and_then(|at| self.l1.get(at))
            .copied()
            .unwrap_or(0);
        let host = entry & OFFSET_MASK;
        if self.geometry.in_cluster(host) != 0 {
            return Err(Need::Corrupt(Corruption {
                message: format!("L2 table offset {host:#x} unaligned (L1 index: {l1_index:#x})"),
                place: None,
                fatal: true,
            }));
        }
        Ok((host != 0).then_some((host, entry & COPIED != 0)))
    }

    fn l1_of(&self, cluster: u64) -> u64 {
        cluster >> self.geometry.l2_bits()
    }

    fn slice_of(&self, cluster: u64) -> (u64, usize) {
        let mask = self.geometry.slice_entries() - 1;
        (
            cluster >> self.geometry.slice_bits,
            usize::try_from(cluster & mask).unwrap_or(0),
        )
    }

    /// Host offset of a slice inside its L2 table's cluster.
    pub(super) fn slice_offset(&self, table: u64, key: u64) -> u64 {
        let slices = 1u64 << (self.geometry.l2_bits() - self.geometry.slice_bits);
        table + (key & (slices - 1)) * (8 << self.geometry.slice_bits)
    }

    pub(super) fn slice_l1(&self, key: u64) -> u64 {
        key >> (self.geometry.l2_bits() - self.geometry.slice_bits)
    }

    fn decode(&self, raw: u64, cluster: u64) -> Step<Mapping> {
        Mapping::decode(&self.geometry, raw).map_err(|bad| {
            let table = self.table(self.l1_of(cluster)).ok().flatten().map_or(0, |(host, _)| host);
            let index = cluster & ((1 << self.geometry.l2_bits()) - 1);
            let message = match bad {
                BadEntry::Unaligned(host) => format!(
                    "Cluster allocation offset {host:#x} unaligned (L2 offset: {table:#x}, L2 index: {index:#x})"
                ),
                BadEntry::ZeroInV2 => {
                    format!("Zero cluster entry found in pre-v3 image (L2 offset: {table:#x}, L2 index: {index:#x})")
                }
            };
            Need::Corrupt(Corruption { message, place: None, fatal: true })
        })
    }

    /// What lies at a guest offset, and for how long it goes on alike, at most `len`.
    pub(super) fn find(&mut self, offset: u64, len: u64) -> Step<Found> {
        let bits = self.geometry.cluster_bits;
        let within = self.geometry.in_cluster(offset);
        let first = offset >> bits;
        if self.table(self.l1_of(first))?.is_none() {
            let mut l1_index = self.l1_of(first);
            let end = offset.saturating_add(len);
            let coverage = self.geometry.l2_coverage();
            let mut reached = offset;
            while reached < end {
                l1_index += 1;
                reached = l1_index.saturating_mul(coverage);
                if reached >= end || self.table(l1_index)?.is_some() {
                    break;
                }
            }
            return Ok(Found {
                source: Source::Backing,
                len: reached.min(end) - offset,
            });
        }
        let (key, index) = self.slice_of(first);
        let geometry = self.geometry;
        // The slice's entries are copied to the stack of the comparison one by one: the borrow ends with each.
        let entry = |meta: &mut Self, at: usize| match meta.l2.get(key) {
            Some(slice) => Ok(slice.get(at).copied()),
            None => Err(Need::Slice(key)),
        };
        let raw = entry(self, index)?.unwrap_or(0);
        let mapping = self.decode(raw, first)?;
        let source = match mapping {
            Mapping::Compressed(at) => {
                return Ok(Found {
                    source: Source::Compressed(at),
                    len: len.min(geometry.cluster() - within),
                });
            }
            Mapping::Unallocated => Source::Backing,
            Mapping::Zero { host, .. } => Source::Zero(host.map(|host| host + within)),
            Mapping::Data { host, .. } => Source::Data(host + within),
        };
        let wanted = within.saturating_add(len).div_ceil(geometry.cluster());
        let mut run = 1;
        if wanted > 1
            && let Some(slice) = self.l2.get(key)
        {
            for raw in slice.iter().skip(index + 1) {
                if run >= wanted {
                    break;
                }
                let Ok(next) = Mapping::decode(&geometry, *raw) else {
                    break;
                };
                let step = run << bits;
                let alike = match (mapping, next) {
                    (Mapping::Unallocated, Mapping::Unallocated) => true,
                    (Mapping::Zero { host: a, .. }, Mapping::Zero { host: b, .. }) => {
                        a.map(|a| a + step) == b
                    }
                    (Mapping::Data { host: a, .. }, Mapping::Data { host: b, .. }) => a + step == b,
                    _ => false,
                };
                if !alike {
                    break;
                }
                run += 1;
            }
        }
        Ok(Found {
            source,
            len: len.min((run << bits) - within),
        })
    }

    // ---- Requests in flight ----

    /// The request in flight that overlaps these guest clusters, as something to wait for.
    fn conflict(&mut self, first: u64, end: u64) -> Option<Need> {
        let (_, busy) = self.in_flight.range_mut(..end).next_back()?;
        if busy.end > first {
            let notify = busy.notify.get_or_insert_with(|| Arc::new(Notify::new()));
            Some(Need::Wait(Arc::clone(notify).notified_owned()))
        } else {
            None
        }
    }

    /// How many clusters from `first` on are free of requests in flight, at most `count`.
    fn clear_of_conflicts(&self, first: u64, count: u64) -> u64 {
        match self.in_flight.range(first..first.saturating_add(count)).next() {
            Some((start, _)) => start - first,
            None => count,
        }
    }

    fn register(&mut self, first: u64, count: u64) {
        self.in_flight.insert(
            first,
            InFlight {
                end: first + count,
                notify: None,
            },
        );
    }

    fn unregister(&mut self, first: u64) {
        if let Some(InFlight {
            notify: Some(notify), ..
        }) = self.in_flight.remove(&first)
        {
            notify.notify_waiters();
        }
    }

    /// Gives an allocation back. `written` tells that its space may have been written to, or may still be.
    pub(super) fn give_back(&mut self, allocation: &Allocation, written: bool) {
        self.unregister(allocation.first);
        if allocation.reused {
            self.unsettled |= written;
        } else if let Some(taken) = allocation.taken(&self.geometry) {
            if !written && allocation.compressed.is_none() && self.forget_last(&taken, allocation.fresh) {
                return;
            }
            self.frees.quarantine.push(taken);
        }
    }

    // ---- Writing ----

    fn writable_table(&self, l1_index: u64) -> Step<u64> {
        match self.table(l1_index)? {
            Some((host, true)) => Ok(host),
            _ => Err(Need::Table(l1_index)),
        }
    }

    fn check_room(&self) -> Step<()> {
        let frees = self.frees.waiting.len() + self.frees.quarantine.len();
        if self.l2.crowded() || self.refblocks.crowded() || frees >= MAX_WAITING_FREES {
            Err(Need::Room)
        } else {
            Ok(())
        }
    }

    /// What a cluster that holds metadata is, in words that clients know.
    fn kind_of(&self, cluster: u64) -> &'static str {
        let bits = self.geometry.cluster_bits;
        let header = &self.header;
        let within = |offset: u64, bytes: u64| {
            let first = offset >> bits;
            (first..first.saturating_add(self.geometry.clusters(bytes))).contains(&cluster)
        };
        let among = |table: &[u64]| {
            let mut hosts = table.iter().map(|entry| entry & OFFSET_MASK);
            hosts.any(|host| host != 0 && host >> bits == cluster)
        };
        let directory = header.bitmaps.as_ref();
        if cluster == 0 {
            "qcow2_header"
        } else if within(header.l1_offset, u64::from(header.l1_size) * 8) {
            "active L1 table"
        } else if among(&self.l1) {
            "active L2 table"
        } else if within(
            header.reftable_offset,
            u64::from(header.reftable_clusters) << bits,
        ) {
            "refcount table"
        } else if among(&self.reftable) {
            "refcount block"
        } else if header.snapshot_count > 0 && within(header.snapshots_offset, 1) {
            "snapshot table"
        } else if directory.is_some_and(|at| within(at.directory_offset, at.directory_bytes)) {
            "bitmap directory"
        } else {
            "inactive L1 table"
        }
    }

    /// The complaint of a write of `place` that would hit a cluster with metadata.
    pub(super) fn overlap(&self, cluster: u64, place: (u64, u64)) -> Need {
        Need::Corrupt(Corruption {
            message: format!(
                "Preventing invalid write on metadata (overlaps with {})",
                self.kind_of(cluster)
            ),
            place: Some(place),
            fatal: true,
        })
    }

    /// Refuses a write of `len` bytes at `host` into clusters that hold metadata.
    fn refuse_overlap(&self, host: u64, len: u64) -> Step<()> {
        let bits = self.geometry.cluster_bits;
        let first = host >> bits;
        let end = host.saturating_add(len).div_ceil(self.geometry.cluster());
        match (first..end).find(|cluster| self.metadata.contains(cluster)) {
            Some(cluster) => Err(self.overlap(cluster, (host, len))),
            None => Ok(()),
        }
    }

    fn reads_zero(&self, mapping: Mapping, cluster: u64, backing_len: u64) -> bool {
        match mapping {
            Mapping::Zero { .. } => true,
            Mapping::Unallocated => cluster << self.geometry.cluster_bits >= backing_len,
            _ => false,
        }
    }

    /// Finds a place for a write of `len` bytes, or for its first part. `backing_len` is 0 without a backing node;
    /// `in_place` tells that clusters which are there may be overwritten.
    pub(super) fn plan_write(
        &mut self,
        offset: u64,
        len: u64,
        backing_len: u64,
        in_place: bool,
    ) -> Step<Place> {
        let geometry = self.geometry;
        let bits = geometry.cluster_bits;
        let within = geometry.in_cluster(offset);
        let first = offset >> bits;
        let l1_index = self.l1_of(first);
        self.writable_table(l1_index)?;
        let (key, index) = self.slice_of(first);
        let Some(slice) = self.l2.get(key) else {
            return Err(Need::Slice(key));
        };
        let wanted = within.saturating_add(len).div_ceil(geometry.cluster());
        let raw = slice.get(index).copied().unwrap_or(0);
        // Copied out so that `self` is free again; a long run is rare and then cheap beside its data.
        let rest: Vec<u64> = match usize::try_from(wanted) {
            Ok(wanted) if wanted > 1 => slice.iter().skip(index + 1).take(wanted - 1).copied().collect(),
            _ => Vec::new(),
        };
        let mapping = self.decode(raw, first)?;
        let bytes = |run: u64| len.min((run << bits) - within);

        if let Mapping::Data { host, copied: true } = mapping {
            if !in_place {
                return Err(Need::Fail(BlockError::new(
                    ErrorKind::Exists,
                    "Cluster is allocated already",
                )));
            }
            let mut run = 1;
            for raw in rest {
                let next = Mapping::decode(&geometry, raw);
                if next
                    != Ok(Mapping::Data {
                        host: host + (run << bits),
                        copied: true,
                    })
                {
                    break;
                }
                run += 1;
            }
            self.refuse_overlap(host + within, bytes(run))?;
            return Ok(Place::There {
                host: host + within,
                len: bytes(run),
            });
        }

        if let Some(need) = self.conflict(first, first + 1) {
            return Err(need);
        }
        self.check_room()?;
        let limit = self.clear_of_conflicts(first, wanted);
        let mut last = mapping;
        let mut run = 1;
        let reused = if let Mapping::Zero {
            host: Some(host),
            copied: true,
        } = mapping
        {
            if self.unsettled {
                return Err(Need::Settle);
            }
            for raw in rest.iter().take(usize::try_from(limit - 1).unwrap_or(0)) {
                let next = Mapping::Zero {
                    host: Some(host + (run << bits)),
                    copied: true,
                };
                if Mapping::decode(&geometry, *raw) != Ok(next) {
                    break;
                }
                run += 1;
            }
            Some(host)
        } else {
            for raw in rest.iter().take(usize::try_from(limit - 1).unwrap_or(0)) {
                match Mapping::decode(&geometry, *raw) {
                    Ok(
                        Mapping::Data { copied: true, .. }
                        | Mapping::Zero {
                            host: Some(_),
                            copied: true,
                        },
                    )
                    | Err(_) => break,
                    Ok(other) => last = other,
                }
                run += 1;
            }
            None
        };
        let (host, fresh) = match reused {
            Some(host) => {
                self.refuse_overlap(host + within, bytes(run))?;
                (host, false)
            }
            None => {
                let (cluster, got, fresh) = self.take_run(run).map_err(|need| match need {
                    // It is the write that is refused.
                    Need::Corrupt(Corruption {
                        message,
                        place: Some((at, _)),
                        fatal: true,
                    }) => Need::Corrupt(Corruption {
                        message,
                        place: Some((at + within, bytes(run))),
                        fatal: true,
                    }),
                    other => other,
                })?;
                if got < run {
                    run = got;
                    let at = usize::try_from(got - 1).unwrap_or(0);
                    last = match at.checked_sub(1) {
                        Some(at) => {
                            let raw = rest.get(at).copied().unwrap_or(0);
                            Mapping::decode(&geometry, raw).unwrap_or(Mapping::Unallocated)
                        }
                        None => mapping,
                    };
                }
                (cluster << bits, fresh)
            }
        };
        self.register(first, run);
        let allocation = Allocation {
            first,
            count: run,
            host,
            fresh,
            reused: reused.is_some(),
            head_zero: self.reads_zero(mapping, first, backing_len),
            tail_zero: self.reads_zero(last, first + run - 1, backing_len),
            compressed: None,
        };
        Ok(Place::New {
            allocation,
            len: bytes(run),
        })
    }

    /// Sets `bytes` of host space aside for one compressed cluster.
    pub(super) fn plan_compressed(&mut self, cluster: u64, bytes: u64) -> Step<Allocation> {
        let l1_index = self.l1_of(cluster);
        self.writable_table(l1_index)?;
        let (key, index) = self.slice_of(cluster);
        let Some(slice) = self.l2.get(key) else {
            return Err(Need::Slice(key));
        };
        let raw = slice.get(index).copied().unwrap_or(0);
        if let Mapping::Data { copied: true, .. } = self.decode(raw, cluster)? {
            // The plain cluster would have to be freed for a compressed one: not worth it, and refused by QEMU too.
            return Err(Need::Fail(BlockError::from_errno(5, "Input/output error")));
        }
        if let Some(need) = self.conflict(cluster, cluster + 1) {
            return Err(need);
        }
        self.check_room()?;
        let at = self.take_bytes(bytes)?;
        self.register(cluster, 1);
        Ok(Allocation {
            first: cluster,
            count: 1,
            host: at.host,
            fresh: false,
            reused: false,
            head_zero: true,
            tail_zero: true,
            compressed: Some(at),
        })
    }

    /// Makes an allocation visible: its data are in place.
    pub(super) fn commit(&mut self, allocation: &Allocation) -> Step<()> {
        let geometry = self.geometry;
        let l1_index = self.l1_of(allocation.first);
        if allocation.first + allocation.count > geometry.clusters(self.header.size) {
            return Err(Need::Fail(BlockError::new(
                ErrorKind::Invalid,
                "The image was made smaller",
            )));
        }
        self.writable_table(l1_index)?;
        let (key, index) = self.slice_of(allocation.first);
        let Some(slice) = self.l2.change(key) else {
            return Err(Need::Slice(key));
        };
        let mut host = allocation.host;
        let count = usize::try_from(allocation.count).unwrap_or(0);
        for entry in slice.iter_mut().skip(index).take(count) {
            let old = Mapping::decode(&geometry, *entry);
            *entry = match allocation.compressed {
                Some(at) => Mapping::Compressed(at).encode(&geometry),
                None => Mapping::Data { host, copied: true }.encode(&geometry),
            };
            if let Ok(old) = old
                && !allocation.reused
            {
                free_mapping(&mut self.frees, &geometry, old, FreeReason::Other);
            }
            host += geometry.cluster();
        }
        self.data_first = true;
        self.unregister(allocation.first);
        Ok(())
    }

    /// Makes guest clusters read as zeroes, or forgets them; as many as are done in one step are returned.
    pub(super) fn zero(&mut self, first: u64, count: u64, mode: ZeroMode, backing: bool) -> Step<u64> {
        let geometry = self.geometry;
        let l1_index = self.l1_of(first);
        let discarding = matches!(mode, ZeroMode::Discard | ZeroMode::DiscardKeep | ZeroMode::Forget);
        let nothing_below = discarding && (mode == ZeroMode::Forget || !backing);
        if nothing_below && self.table(l1_index)?.is_none() {
            let skip = (1u64 << geometry.l2_bits()) - (first & ((1 << geometry.l2_bits()) - 1));
            return Ok(skip.min(count));
        }
        let (key, index) = self.slice_of(first);
        let count = count.min(geometry.slice_entries() - super::bytes::to_u64(index));
        let take = usize::try_from(count).unwrap_or(0);
        if self.table(l1_index)?.is_none() {
            return Err(Need::Table(l1_index));
        }
        let Some(slice) = self.l2.get(key) else {
            return Err(Need::Slice(key));
        };
        let mut changes = Vec::new();
        let old: Vec<u64> = slice.iter().skip(index).take(take).copied().collect();
        for (nth, raw) in old.iter().enumerate() {
            let mapping = self.decode(*raw, first + super::bytes::to_u64(nth))?;
            let new = match (mode, mapping) {
                (ZeroMode::Forget, _) => Mapping::Unallocated,
                (_, Mapping::Zero { host: None, .. }) => mapping,
                (
                    ZeroMode::Keep,
                    Mapping::Data { host, copied }
                    | Mapping::Zero {
                        host: Some(host),
                        copied,
                    },
                ) => Mapping::Zero {
                    host: Some(host),
                    copied,
                },
                (ZeroMode::Keep | ZeroMode::Unmap, _) => Mapping::Zero {
                    host: None,
                    copied: false,
                },
                (ZeroMode::Discard | ZeroMode::DiscardKeep, Mapping::Unallocated) if !backing => mapping,
                (
                    ZeroMode::DiscardKeep,
                    Mapping::Data { host, copied }
                    | Mapping::Zero {
                        host: Some(host),
                        copied,
                    },
                ) => Mapping::Zero {
                    host: Some(host),
                    copied,
                },
                (ZeroMode::Discard | ZeroMode::DiscardKeep, _) if geometry.version >= 3 => Mapping::Zero {
                    host: None,
                    copied: false,
                },
                (ZeroMode::Discard | ZeroMode::DiscardKeep, _) => Mapping::Unallocated,
            };
            if new != mapping {
                changes.push((index + nth, mapping, new.encode(&geometry)));
            }
        }
        if changes.is_empty() {
            return Ok(count);
        }
        self.writable_table(l1_index)?;
        if let Some(need) = self.conflict(first, first + count) {
            return Err(need);
        }
        self.check_room()?;
        // Zeroes that may unmap are as good as a discard.
        let reason = if discarding || mode == ZeroMode::Unmap {
            FreeReason::Request
        } else {
            FreeReason::Other
        };
        let Some(slice) = self.l2.change(key) else {
            return Err(Need::Slice(key));
        };
        for (at, old, new) in changes {
            if let Some(entry) = slice.get_mut(at) {
                *entry = new;
            }
            let kept = new & OFFSET_MASK;
            let host_kept = match old {
                Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. } => host == kept,
                _ => false,
            };
            if !host_kept {
                free_mapping(&mut self.frees, &geometry, old, reason);
            }
        }
        Ok(count)
    }

    /// As [`zero`](Self::zero) for one cluster, if it holds no data. False: it does.
    pub(super) fn zero_if_empty(&mut self, cluster: u64, mode: ZeroMode, backing: bool) -> Step<bool> {
        if self.table(self.l1_of(cluster))?.is_some() {
            let (key, index) = self.slice_of(cluster);
            let Some(slice) = self.l2.get(key) else {
                return Err(Need::Slice(key));
            };
            let raw = slice.get(index).copied().unwrap_or(0);
            if let Mapping::Data { .. } | Mapping::Compressed(_) = self.decode(raw, cluster)? {
                return Ok(false);
            }
        }
        self.zero(cluster, 1, mode, backing).map(|_| true)
    }

    /// A new L2 table stands for an L1 entry.
    pub(super) fn set_table(&mut self, l1_index: u64, host: u64) {
        let change = self.next_change();
        let Ok(at) = usize::try_from(l1_index) else { return };
        if let Some(entry) = self.l1.get_mut(at) {
            let old = *entry & OFFSET_MASK;
            *entry = host | COPIED;
            self.l1_dirty.insert(l1_index / 64, change);
            self.mark_metadata(host, 1);
            if old != 0 {
                let first = old >> self.geometry.cluster_bits;
                self.frees.push(Free {
                    first,
                    count: 1,
                    reason: FreeReason::Other,
                });
            }
            self.data_first = true;
        }
    }

    /// Whether anything waits to be written.
    pub(super) fn is_dirty(&self) -> bool {
        self.l2.has_dirty()
            || self.refblocks.has_dirty()
            || !self.l1_dirty.is_empty()
            || !self.reftable_dirty.is_empty()
    }
}

/// Gives up what an entry referred to.
fn free_mapping(frees: &mut Frees, geometry: &Geometry, old: Mapping, reason: FreeReason) {
    let (first, count) = match old {
        Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. } => {
            (host >> geometry.cluster_bits, 1)
        }
        Mapping::Compressed(at) => at.host_clusters(geometry),
        _ => return,
    };
    frees.push(Free { first, count, reason });
}

/// Host offsets are checked against this before they are put into an entry.
pub(super) fn beyond_limit(host: u64, bytes: u64) -> bool {
    host.checked_add(bytes).is_none_or(|end| end > MAX_HOST_OFFSET)
}
