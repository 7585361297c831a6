//! What every node driver answers: the I/O interface below the graph.
//!
//! A driver sees requests that its node has already checked (inside the length, writable, aligned to
//! [`Limits::request_alignment`]) and accounted for. It does not know its node's name, its parents or its bitmaps.

use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use crate::Result;
use crate::bitmap::BitmapInfo;
use crate::graph::{Child, ChildRole, Needs, Perm, default_child_permissions};
use crate::options::NodeOptions;

/// A pending driver operation.
pub type IoFuture<'a, T = ()> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// How a write must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteFlags {
    /// The data must be on stable storage when the request completes.
    pub fua: bool,
    /// The content that a guest sees does not change (copy-before-write, backing-chain jobs).
    pub unchanged: bool,
    /// Write as compressed clusters where the format has them.
    pub compressed: bool,
}

/// How zeroes must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroFlags {
    /// The data must be on stable storage when the request completes.
    pub fua: bool,
    /// Clusters may be deallocated as long as they read as zeroes.
    pub may_unmap: bool,
    /// Fail with ENOTSUP (95) rather than write zero bytes when there is no faster way.
    pub no_fallback: bool,
}

/// What lies at an offset: one run of one kind.
#[derive(Debug, Clone, Default)]
pub struct BlockStatus {
    /// How many bytes from the asked offset on have this status; at least 1 inside the node.
    pub len: u64,
    /// This layer holds the content (false: it comes from the backing node, or is zero where there is none).
    pub allocated: bool,
    /// It reads as zeroes.
    pub zero: bool,
    /// It is stored as data (may be true with `zero`, as for preallocated zero clusters).
    pub data: bool,
    /// Stored compressed.
    pub compressed: bool,
    /// Where the bytes lie verbatim in a host file, when they do.
    pub host: Option<HostExtent>,
}

/// Bytes that lie verbatim in a host file, for `copy_file_range` and block status.
#[derive(Debug, Clone)]
pub struct HostExtent {
    /// The open file.
    pub file: Arc<OwnedFd>,
    /// Byte offset of the first byte in that file.
    pub offset: u64,
}

/// A reservation made by [`Driver::map_for_write`]: host space that a caller fills by itself.
#[derive(Debug)]
pub struct WriteMapping {
    /// Where to put the bytes.
    pub extent: HostExtent,
    /// How many bytes of the asked range it covers, from its start.
    pub len: u64,
    /// What [`Driver::commit_write`] needs to make the bytes visible; the driver's own.
    pub token: u64,
}

/// Sizes that a driver wants its requests in, all in bytes; 0 means no limit or preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Offset and length of every request must be multiples of this (a power of two; 0 and 1 are alike).
    pub request_alignment: u32,
    /// The longest read or write.
    pub max_transfer: u32,
    /// The cluster size of the format, for copy units.
    pub cluster_bytes: u32,
    /// Best size of a zero or discard request.
    pub discard_alignment: u32,
}

/// A driver in the block graph. Methods are called concurrently.
///
/// Cancellation: a returned future may be dropped at any await. Metadata must stay consistent then; data of
/// the request may or may not be written, and may still reach the file after the drop, never after a later
/// [`flush`](Driver::flush) or [`close`](Driver::close) has completed.
///
/// Ordering: only `flush` orders; a completed write is visible to every later read.
pub trait Driver: Send + Sync + fmt::Debug {
    /// The schema's name of the driver: `qcow2`, `file`, ...
    fn name(&self) -> &'static str;

    /// The length in bytes that a guest sees.
    fn length(&self) -> u64;

    /// Sizes that requests should keep to.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Fills `buf` from `offset`. The range is inside [`length`](Driver::length).
    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a>;

    /// Reads at once if that needs no waiting (cached metadata, page cache), else returns `None`: then
    /// [`read`](Driver::read) is called. The hot path of exports, free of allocation.
    fn try_read(&self, _offset: u64, _buf: &mut [u8]) -> Option<Result<()>> {
        None
    }

    /// Writes `buf` at `offset`.
    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a>;

    /// As [`try_read`](Driver::try_read), for writes.
    fn try_write(&self, _offset: u64, _buf: &[u8], _flags: WriteFlags) -> Option<Result<()>> {
        None
    }

    /// Makes the range read as zeroes.
    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_>;

    /// Tells that the range's content is not needed any more; what it reads as then is the driver's affair.
    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_>;

    /// Makes every completed write durable, children included.
    fn flush(&self) -> IoFuture<'_>;

    /// What lies at `offset`; the answer covers at most `len` bytes. `want_host` asks for [`BlockStatus::host`].
    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus>;

    /// Changes the length, in bytes. New bytes read as zeroes.
    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_>;

    /// Whether space is better taken before it is written piece by piece: it keeps the file in one piece on a disk, and
    /// does nothing for one in memory.
    fn wants_space(&self) -> bool {
        false
    }

    /// Takes space for a range that was never written, at the end of the file or beyond; it reads as zeroes.
    fn take_space(&self, _offset: u64, _len: u64) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Reserves host space for a write that the caller makes by itself (`copy_file_range`); `None` where the
    /// driver has no verbatim host bytes. Until [`commit_write`](Driver::commit_write) the old content is seen;
    /// without a commit the space is given back by [`abandon_write`](Driver::abandon_write).
    fn map_for_write(&self, _offset: u64, _len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async { Ok(None) })
    }

    /// Makes the bytes of a mapping visible.
    fn commit_write(&self, _mapping: WriteMapping) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// Gives a mapping back unused. Synchronous, so that `Drop` can call it.
    fn abandon_write(&self, _mapping: WriteMapping) {}

    /// Writes back all that is cached, stores persistent bitmaps, releases locks. Called once, last.
    fn close(&self) -> IoFuture<'_>;

    /// Permissions that this driver asks of its child `name`, given what its own parents need.
    fn child_permissions(&self, _name: &str, role: ChildRole, needs: &Needs) -> (Perm, Perm) {
        default_child_permissions(role, needs)
    }

    /// Gets ready for a change of what the parents need and tolerate (image locks). Followed by exactly one of
    /// [`commit_permissions`](Driver::commit_permissions) and [`abort_permissions`](Driver::abort_permissions).
    fn prepare_permissions(&self, _perm: Perm, _shared: Perm) -> Result<()> {
        Ok(())
    }

    /// Makes the prepared change final.
    fn commit_permissions(&self) {}

    /// Takes the prepared change back.
    fn abort_permissions(&self) {}

    /// Whether the driver shows the content of its child of role `Filtered` as it is and holds none itself.
    fn is_filter(&self) -> bool {
        false
    }

    /// Where byte `offset` of this node lies verbatim in a host file, allocated or not, also beyond the end; `None`
    /// where the driver has no such fixed place.
    fn host_extent(&self, _offset: u64) -> Option<HostExtent> {
        None
    }

    /// Another edge takes the place of the child `name` (`None`: there is none any more), as for a new backing file.
    fn change_child(&self, _name: &str, _child: Option<Arc<Child>>) -> Result<()> {
        Err(crate::BlockError::new(
            crate::ErrorKind::Unsupported,
            "Cannot change this child",
        ))
    }

    /// Takes over new options of its node (`blockdev-reopen`): `read_only`, caching and the driver's own. Called with
    /// the users above drained; children are exchanged by [`change_child`](Driver::change_child) before. A failure
    /// leaves the driver as it was.
    fn reopen<'a>(&'a self, _options: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async { Ok(()) })
    }

    /// The users above are being drained: what waits for a turn inside the driver must go on now.
    fn drain_begin(&self) {}

    /// A drain is over.
    fn drain_end(&self) {}

    /// Counters of discards, where the driver keeps them.
    fn discard_stats(&self) -> Option<DiscardStats> {
        None
    }

    /// Bitmaps that the driver keeps for its own work, newest first. They have no name, and nobody else can change them.
    fn own_bitmaps(&self) -> Vec<BitmapInfo> {
        Vec::new()
    }

    /// A filter that wants to be asked for block status although it has nothing to say of it (fault injection).
    fn watches_status(&self) -> bool {
        false
    }

    /// Something above is about to do what `event` names (fault injection).
    fn debug_event(&self, _event: &str) {}

    /// What the format says of its image.
    fn info(&self) -> DriverInfo {
        DriverInfo::default()
    }

    /// The driver as the format that keeps bitmaps and snapshots, when it is one.
    fn image_store(&self) -> Option<&dyn ImageStore> {
        None
    }

    /// Down-cast, for operations that only one driver has.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What became of discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiscardStats {
    /// Requests done.
    pub done: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes of the requests done.
    pub bytes: u64,
}

/// How much of new space is allocated up front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// Metadata only.
    Metadata,
    /// Space without writing it (`fallocate`).
    Falloc,
    /// Space, written with zeroes.
    Full,
}

/// What `query-named-block-nodes` and `query-block` show of a driver.
#[derive(Debug, Clone, Default)]
pub struct DriverInfo {
    /// The file name as the daemon shows it (path, or a `json:` description).
    pub filename: String,
    /// Bytes that the image takes on its host file system.
    pub allocated_bytes: Option<u64>,
    /// Cluster size in bytes.
    pub cluster_bytes: Option<u32>,
    /// The image was not closed cleanly.
    pub dirty: Option<bool>,
    /// The backing file name and format that the image's header names.
    pub backing_file: Option<(String, Option<String>)>,
    /// Details of the format.
    pub specific: FormatInfo,
}

/// What one format has to say of its image.
#[derive(Debug, Clone, Default)]
pub enum FormatInfo {
    /// Nothing.
    #[default]
    None,
    /// A host file.
    File {
        /// Preferred extent size in bytes, when set on the file.
        extent_size_hint: Option<u64>,
    },
    /// A qcow2 image.
    Qcow2(Qcow2Info),
}

/// What a qcow2 header says.
#[derive(Debug, Clone, Default)]
pub struct Qcow2Info {
    /// `0.10` for version 2, `1.1` for version 3.
    pub compat: String,
    /// Refcounts are written back late (version 3).
    pub lazy_refcounts: Option<bool>,
    /// The corrupt bit (version 3).
    pub corrupt: Option<bool>,
    /// Extended L2 entries (version 3).
    pub extended_l2: Option<bool>,
    /// Width of a refcount.
    pub refcount_bits: u32,
    /// `zlib` or `zstd`.
    pub compression_type: String,
    /// Bitmaps stored in the image.
    pub bitmaps: Vec<StoredBitmapInfo>,
}

/// One stored bitmap, as image information shows it.
#[derive(Debug, Clone)]
pub struct StoredBitmapInfo {
    /// Its name.
    pub name: String,
    /// Bytes a bit stands for.
    pub granularity_bytes: u32,
    /// Flag `in-use`: it was not stored back cleanly.
    pub in_use: bool,
    /// Flag `auto`: it records from opening on.
    pub auto: bool,
}

/// A bitmap as it lies in an image.
#[derive(Debug, Clone)]
pub struct StoredBitmap {
    /// Its name.
    pub name: String,
    /// Bytes a bit stands for; a power of two from 512 to 2 GiB.
    pub granularity_bytes: u32,
    /// Whether it records from opening on.
    pub auto: bool,
    /// It was in use when the image was last closed: its bits cannot be trusted.
    pub inconsistent: bool,
    /// Dirty ranges in bytes as (offset, length), ascending, not touching. Empty when inconsistent.
    pub dirty: Vec<(u64, u64)>,
}

/// An internal snapshot's description.
#[derive(Debug, Clone, Default)]
pub struct SnapshotInfo {
    /// Unique id, a decimal number as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Size of the VM state in bytes.
    pub vm_state_bytes: u64,
    /// When it was taken: seconds and nanoseconds since the epoch.
    pub date: (u32, u32),
    /// VM clock in nanoseconds.
    pub vm_clock_nanoseconds: u64,
    /// Instruction count, when recorded.
    pub icount: Option<u64>,
    /// Length of the disk in bytes at that time.
    pub disk_bytes: u64,
}

/// A format that keeps dirty bitmaps and internal snapshots in its image.
pub trait ImageStore: Send + Sync {
    /// Whether it can keep a bitmap of this name and granularity; the error carries the client's text.
    fn can_store_bitmap(&self, name: &str, granularity_bytes: u32) -> Result<()>;

    /// Reads every stored bitmap and, when the image is writable, marks them in use on disk.
    fn load_bitmaps(&self) -> IoFuture<'_, Vec<StoredBitmap>>;

    /// Replaces the stored bitmaps by these, marked not in use (those given as inconsistent stay as they lie).
    fn store_bitmaps(&self, bitmaps: Vec<StoredBitmap>) -> IoFuture<'_>;

    /// Deletes one stored bitmap at once.
    fn remove_bitmap<'a>(&'a self, name: &'a str) -> IoFuture<'a>;

    /// The internal snapshots, in table order.
    fn snapshots(&self) -> Vec<SnapshotInfo>;

    /// Takes one; the id is chosen by the image and returned.
    fn create_snapshot(&self, info: SnapshotInfo) -> IoFuture<'_, SnapshotInfo>;

    /// Deletes the one with this id.
    fn delete_snapshot<'a>(&'a self, id: &'a str) -> IoFuture<'a>;
}
