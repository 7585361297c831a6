//! Opening an image: options, the header, the tables that stay in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::bitmaps::read_directory;
use super::bytes::{be32, decode_table, to_u64, to_usize};
use super::entry::OFFSET_MASK;
use super::header::{
    AUTOCLEAR_BITMAPS, AUTOCLEAR_RAW_DATA, COMPATIBLE_LAZY_REFCOUNTS, Header, INCOMPATIBLE_CORRUPT,
    INCOMPATIBLE_DIRTY,
};
use super::meta::Meta;
use super::snapshots::{Snapshots, read_snapshots};
use super::storage::Storage;
use super::{BlockError, DiskHeader, ErrorKind, Qcow2, Result};
use crate::options::{NodeOptions, Qcow2Options};
use crate::sync::lock;

/// Told of corruption: what, where as offset and length, and whether the image is unusable now.
pub type OnCorruption = Arc<dyn Fn(&str, Option<(u64, u64)>, bool) + Send + Sync>;

/// How to open an image.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// Without write access.
    pub read_only: bool,
    /// `discard=unmap`: guest discards reach the file below.
    pub discard_unmap: bool,
    /// Overrides the header's lazy-refcounts bit.
    pub lazy_refcounts: Option<bool>,
    /// Pass guest discards on; `None` follows `discard_unmap`.
    pub pass_discard_request: Option<bool>,
    /// Pass discards of freed snapshots on; `None` is true.
    pub pass_discard_snapshot: Option<bool>,
    /// Pass other discards on; `None` is false.
    pub pass_discard_other: Option<bool>,
    /// Keep clusters allocated on discard.
    pub discard_no_unref: bool,
    /// Total metadata cache in bytes.
    pub cache_bytes: Option<u64>,
    /// L2 cache in bytes.
    pub l2_cache_bytes: Option<u64>,
    /// Unit of L2 cache entries in bytes.
    pub l2_entry_bytes: Option<u64>,
    /// Refcount cache in bytes.
    pub refcount_cache_bytes: Option<u64>,
    /// Seconds after which metadata that was not used is dropped from the caches; 0 is never.
    pub clean_interval_seconds: u64,
    /// The encryption scheme that is expected.
    pub encrypt: Option<String>,
    /// An external data file is given.
    pub data_file: bool,
    /// Told of corruption when it is found.
    pub on_corruption: Option<OnCorruption>,
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// The options of a node that is to be opened.
    pub fn from_node(node: &NodeOptions, qcow2: &Qcow2Options) -> Self {
        Self {
            read_only: node.read_only.unwrap_or(false),
            discard_unmap: node.discard_unmap.unwrap_or(false),
            lazy_refcounts: qcow2.lazy_refcounts,
            pass_discard_request: qcow2.pass_discard_request,
            pass_discard_snapshot: qcow2.pass_discard_snapshot,
            pass_discard_other: qcow2.pass_discard_other,
            discard_no_unref: qcow2.discard_no_unref.unwrap_or(false),
            cache_bytes: qcow2.cache_size,
            l2_cache_bytes: qcow2.l2_cache_size,
            l2_entry_bytes: qcow2.l2_cache_entry_size,
            refcount_cache_bytes: qcow2.refcount_cache_size,
            clean_interval_seconds: qcow2
                .cache_clean_interval
                .unwrap_or(DEFAULT_CLEAN_INTERVAL_SECONDS),
            encrypt: qcow2.encrypt.clone(),
            data_file: qcow2.data_file.is_some(),
            on_corruption: None,
        }
    }
}

/// How often unused metadata is dropped when nothing is said of it.
const DEFAULT_CLEAN_INTERVAL_SECONDS: u64 = 600;
/// The largest L2 cache that is chosen when none is asked for.
const DEFAULT_L2_CACHE_BYTES: u64 = 32 << 20;
/// The refcount cache that is chosen when none is asked for.
const DEFAULT_REFCOUNT_CACHE_BYTES: u64 = 1 << 20;
/// Nobody has the memory for a larger cache, though it would be taken bit by bit only.
const MAX_CACHE_BYTES: u64 = 32 << 30;
/// A slice of an L2 table of this size maps 32 MiB of a disk with 64 KiB clusters.
const DEFAULT_SLICE_BYTES: u64 = 4096;
/// Clusters of inactive L1 tables that are guarded against stray writes; more are not tracked.
const MAX_GUARDED_CLUSTERS: u64 = 1 << 20;

fn invalid(message: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, message)
}

/// Sizes of the caches: slice entries' log2, slices, refcount blocks.
fn cache_sizes(options: &OpenOptions, header: &Header) -> Result<(u32, usize, usize)> {
    for (name, size) in [
        ("cache-size", options.cache_bytes),
        ("l2-cache-size", options.l2_cache_bytes),
        ("l2-cache-entry-size", options.l2_entry_bytes),
        ("refcount-cache-size", options.refcount_cache_bytes),
    ] {
        if let Some(size) = size.map(u64::cast_signed).filter(|size| *size < 0) {
            return Err(invalid(format!(
                "Value '{size}' is out of range for parameter '{name}'"
            )));
        }
    }
    let cluster = 1u64 << header.cluster_bits;
    let slice = options.l2_entry_bytes.unwrap_or(DEFAULT_SLICE_BYTES.min(cluster));
    if !slice.is_power_of_two() || slice < 512 || slice > cluster {
        return Err(invalid(format!(
            "L2 cache entry size must be a power of two between 512 and the cluster size ({cluster})"
        )));
    }
    let (total, l2, refcount) = (
        options.cache_bytes,
        options.l2_cache_bytes,
        options.refcount_cache_bytes,
    );
    // Twice what maps the whole disk is enough, whatever was asked for: then all of it may be dirty at a time.
    let useful = (header.size / cluster + 1)
        .saturating_mul(16)
        .next_multiple_of(slice);
    let (l2_bytes, refcount_bytes) = match (total, l2, refcount) {
        (Some(_), Some(_), Some(_)) => {
            return Err(invalid(
                "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time",
            ));
        }
        (Some(total), Some(l2), None) if l2 > total => {
            return Err(invalid("l2-cache-size may not exceed cache-size"));
        }
        (Some(total), None, Some(refcount)) if refcount > total => {
            return Err(invalid("refcount-cache-size may not exceed cache-size"));
        }
        (Some(total), Some(l2), None) => (l2, total - l2),
        (Some(total), None, Some(refcount)) => (total - refcount, refcount),
        (Some(total), None, None) => {
            let refcount = (4 * cluster).min(total);
            ((total - refcount).max(slice), refcount)
        }
        (None, l2, refcount) => (
            l2.unwrap_or(DEFAULT_L2_CACHE_BYTES),
            refcount.unwrap_or(DEFAULT_REFCOUNT_CACHE_BYTES),
        ),
    };
    // What a total leaves when the whole disk is mapped goes to the refcounts.
    let asked = match (total, l2, refcount) {
        (Some(total), None, None) => refcount_bytes.max(total.saturating_sub(useful / 2)),
        _ => refcount_bytes,
    };
    if asked / cluster > u64::from(i32::MAX.unsigned_abs()) {
        return Err(invalid("Refcount cache size too big"));
    }
    if asked > MAX_CACHE_BYTES {
        return Err(invalid("Could not allocate metadata caches"));
    }
    if u32::try_from(options.clean_interval_seconds).is_err() {
        return Err(invalid("Cache clean interval too big"));
    }
    let slices = to_usize(l2_bytes.min(useful) / slice).map_err(|_| invalid("L2 cache size too big"))?;
    let blocks = to_usize(refcount_bytes / cluster).map_err(|_| invalid("Refcount cache size too big"))?;
    // A handful is needed to make progress with several requests at a time.
    Ok((slice.trailing_zeros() - 3, slices.max(8), blocks.max(4)))
}

fn check_options(options: &OpenOptions, header: &Header) -> Result<()> {
    // Images that have what these options are about were refused by their header already.
    if let Some(format) = &options.encrypt {
        return Err(invalid(format!(
            "No encryption in image header, but options specified format '{format}'"
        )));
    }
    if header.autoclear & AUTOCLEAR_RAW_DATA != 0 {
        return Err(invalid("data-file-raw requires a data file"));
    }
    if options.data_file {
        return Err(invalid(
            "'data-file' can only be set for images with an external data file",
        ));
    }
    if options.lazy_refcounts == Some(true) && header.version < 3 {
        return Err(invalid(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
        ));
    }
    if options.discard_no_unref && header.version < 3 {
        return Err(invalid(
            "discard-no-unref is only supported since qcow2 version 3",
        ));
    }
    Ok(())
}

/// Reads the header of an image.
pub(super) async fn read_header(file: &dyn Storage) -> Result<Header> {
    let mut start = vec![0u8; 512];
    file.read(0, &mut start)
        .await
        .map_err(|error| error.context("Could not read qcow2 header"))?;
    let cluster_bits = be32(&start, 20)?;
    if (9..=21).contains(&cluster_bits) && start.starts_with(b"QFI\xfb") && cluster_bits > 9 {
        start.resize(1 << cluster_bits, 0);
        file.read(0, &mut start)
            .await
            .map_err(|error| error.context("Could not read qcow2 header"))?;
    }
    if file.length() < 72 {
        return Err(invalid("Image is not in qcow2 format"));
    }
    Header::parse(&start)
}

impl Qcow2 {
    /// Opens the image in `file`. The backing node is attached afterwards, see [`set_backing`](Self::set_backing).
    pub async fn open(file: Arc<dyn Storage>, options: OpenOptions) -> Result<Arc<Self>> {
        let header = read_header(file.as_ref()).await?;
        if !options.read_only && header.has(INCOMPATIBLE_CORRUPT) {
            return Err(BlockError::from_errno(
                13,
                "qcow2: Image is corrupt; cannot be opened read/write",
            ));
        }
        check_options(&options, &header)?;
        let (slice_bits, slices, blocks) = cache_sizes(&options, &header)?;
        let mut meta = Meta::new(header.clone(), slice_bits, slices, blocks);
        load_tables(file.as_ref(), &mut meta).await?;
        let directory = read_directory(file.as_ref(), &header).await?;
        meta.mark_bitmaps(&directory);
        let snapshots = read_snapshots(file.as_ref(), &header).await?;
        meta.mark_snapshots(&snapshots);
        let image = Arc::new(Self {
            backing: ArcSwapOption::empty(),
            // Whole sectors: what is left over is nobody's.
            length: AtomicU64::new(header.size & !511),
            read_only: AtomicBool::new(true),
            meta: Mutex::new(meta),
            disk_header: tokio::sync::Mutex::new(DiskHeader { header, tail: None }),
            header_unsettled: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            unsettled: AtomicBool::new(false),
            operations: tokio::sync::Mutex::new(()),
            busy: [AtomicU64::new(0), AtomicU64::new(0)],
            wants_idle: AtomicBool::new(false),
            idle: Notify::new(),
            directory: Mutex::new(directory),
            snapshots: Mutex::new(snapshots),
            mappings: Mutex::default(),
            next_token: AtomicU64::new(1),
            preallocated: tokio::sync::OnceCell::new(),
            options: ArcSwap::from_pointee(options),
            file,
        });
        if !image.options.load().read_only {
            image.make_writable().await?;
        }
        Ok(image)
    }

    /// Prepares an image that was read only so far for writes.
    pub(super) async fn make_writable(&self) -> Result<()> {
        let header = lock(&self.meta).header.clone();
        if header.has(INCOMPATIBLE_CORRUPT) {
            return Err(BlockError::from_errno(
                13,
                "qcow2: Image is corrupt; cannot be opened read/write",
            ));
        }
        {
            let mut meta = lock(&self.meta);
            let bits = meta.geometry.cluster_bits;
            meta.fresh_from = if self.file.grows_zeroed() {
                self.file.length().div_ceil(1 << bits)
            } else {
                u64::MAX
            };
            meta.free_hint = 0;
            meta.compressed_tail = None;
        }
        if header.autoclear & !AUTOCLEAR_BITMAPS != 0 {
            self.update_header(|header| header.autoclear &= AUTOCLEAR_BITMAPS)
                .await?;
        }
        if header.has(INCOMPATIBLE_DIRTY) {
            self.repair_dirty().await?;
        }
        self.read_only.store(false, Ordering::Release);
        Ok(())
    }

    /// Takes over other options. Those of the caches' layout stay as they are.
    pub(super) fn change_options(&self, options: OpenOptions) -> Result<()> {
        let header = lock(&self.meta).header.clone();
        check_options(&options, &header)?;
        let (_, slices, blocks) = cache_sizes(&options, &header)?;
        {
            let mut meta = lock(&self.meta);
            meta.l2.resize(slices);
            meta.refblocks.resize(blocks);
        }
        self.options.store(Arc::new(options));
        Ok(())
    }

    /// Drops metadata that was not used for `cache-clean-interval` seconds, as long as the image lives.
    pub(super) async fn keep_caches_clean(image: std::sync::Weak<Self>) {
        // A new interval counts from the next round on; while there is none, it is asked for now and then.
        const ASK_AGAIN: u64 = 60;
        loop {
            let Some(seconds) = image
                .upgrade()
                .map(|image| image.options.load().clean_interval_seconds)
            else {
                return;
            };
            let wait = if seconds == 0 { ASK_AGAIN } else { seconds };
            tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
            let Some(image) = image.upgrade().filter(|_| seconds > 0) else {
                continue;
            };
            let mut meta = lock(&image.meta);
            meta.l2.drop_unused();
            meta.refblocks.drop_unused();
        }
    }

    /// Whether refcounts are written late.
    pub(super) fn lazy_refcounts(&self) -> bool {
        let bit = lock(&self.meta).header.compatible & COMPATIBLE_LAZY_REFCOUNTS != 0;
        self.options.load().lazy_refcounts.unwrap_or(bit)
    }

    /// The backing file that the header names, and its format.
    pub fn backing_file(&self) -> Option<(String, Option<String>)> {
        let meta = lock(&self.meta);
        meta.header
            .backing_file
            .clone()
            .map(|name| (name, meta.header.backing_format.clone()))
    }

    /// Attaches, exchanges or removes the backing node. No request may be under way.
    pub fn set_backing(&self, backing: Option<Arc<dyn Storage>>) {
        self.backing.store(backing.map(Arc::new));
    }

    /// Changes which backing file the header names. The attached node stays.
    pub async fn change_backing_file(&self, backing: Option<(String, Option<String>)>) -> Result<()> {
        self.check_writable()?;
        self.update_header(|header| {
            (header.backing_file, header.backing_format) = match &backing {
                Some((name, format)) => (Some(name.clone()), format.clone()),
                None => (None, None),
            };
        })
        .await?;
        self.file.flush().await
    }
}

/// Reads the tables that stay in memory.
async fn load_tables(file: &dyn Storage, meta: &mut Meta) -> Result<()> {
    let header = meta.header.clone();
    let mut l1 = vec![0u8; to_usize(u64::from(header.l1_size) * 8)?];
    file.read(header.l1_offset, &mut l1)
        .await
        .map_err(|error| error.context("Could not read L1 table"))?;
    meta.l1 = decode_table(&l1);
    let reftable_bytes = u64::from(header.reftable_clusters) << header.cluster_bits;
    let mut reftable = vec![0u8; to_usize(reftable_bytes)?];
    file.event("reftable_load");
    file.read(header.reftable_offset, &mut reftable)
        .await
        .map_err(|error| error.context("Could not initialize refcount handling"))?;
    meta.reftable = decode_table(&reftable);
    meta.mark_metadata(0, 1);
    meta.mark_metadata(header.l1_offset, to_u64(l1.len()));
    meta.mark_metadata(header.reftable_offset, reftable_bytes);
    for at in 0..meta.reftable.len() {
        let host = meta.reftable.get(at).copied().unwrap_or(0) & OFFSET_MASK;
        if host != 0 {
            meta.mark_metadata(host, 1);
        }
    }
    for at in 0..meta.l1.len() {
        let host = meta.l1.get(at).copied().unwrap_or(0) & OFFSET_MASK;
        if host != 0 {
            meta.mark_metadata(host, 1);
        }
    }
    Ok(())
}

impl Meta {
    /// Guards the snapshot table and the inactive L1 tables against guest data.
    fn mark_snapshots(&mut self, snapshots: &Snapshots) {
        let cluster = self.geometry.cluster();
        self.mark_metadata(self.header.snapshots_offset, snapshots.table_bytes());
        let mut guarded = 0;
        for snapshot in snapshots.list() {
            if snapshot.check_l1(cluster).is_err() {
                continue;
            }
            let bytes = u64::from(snapshot.l1_size) * 8;
            guarded += bytes.div_ceil(cluster);
            if guarded > MAX_GUARDED_CLUSTERS {
                break;
            }
            self.mark_metadata(snapshot.l1_offset, bytes);
        }
    }
}
