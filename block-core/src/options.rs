//! How a node is described before it is opened: `blockdev-add` in the block layer's own words.

use crate::graph::Perm;
use crate::types::NodeName;

/// A node to open. `None` inherits from the parent where there is one, else takes QEMU's default.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Its name; the graph makes one up (`#blockN`) when there is none.
    pub node_name: Option<NodeName>,
    /// Opened without write access.
    pub read_only: Option<bool>,
    /// Fall back to read-only where writing is not possible.
    pub auto_read_only: Option<bool>,
    /// Skip image locks.
    pub force_share: Option<bool>,
    /// `discard=unmap`: pass discards on. Children that are opened with their parent have it by default.
    pub discard_unmap: Option<bool>,
    /// What to do with writes of zeroes.
    pub detect_zeroes: DetectZeroes,
    /// Caching; `None` inherits from the parent.
    pub cache: CacheOptions,
    /// The driver and its own options.
    pub driver: DriverOptions,
    /// What was said of it, word by word: names shown to people and reopening depend on what was given, not only on
    /// what is in force.
    pub given: GivenOptions,
    /// Those of the options above that were given and not taken over from a parent; the graph keeps them when it opens
    /// the node. A child that was opened with its parent takes the others over again when the parent is reopened.
    pub own: OwnOptions,
    /// Why the driver cannot take the values that it was given; told when the driver would look at them.
    pub refused: Option<String>,
}

impl NodeOptions {
    /// What is given now.
    pub fn own_now(&self) -> OwnOptions {
        OwnOptions {
            read_only: self.read_only,
            auto_read_only: self.auto_read_only,
            force_share: self.force_share,
            discard_unmap: self.discard_unmap,
            cache: self.cache,
        }
    }

    /// Forgets what was taken over from a parent.
    pub fn restore_own(&mut self) {
        self.read_only = self.own.read_only;
        self.auto_read_only = self.own.auto_read_only;
        self.force_share = self.own.force_share;
        self.discard_unmap = self.own.discard_unmap;
        self.cache = self.own.cache;
    }
}

/// Options that a child takes over from its parent where it was not given them itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnOptions {
    /// See [`NodeOptions::read_only`].
    pub read_only: Option<bool>,
    /// See [`NodeOptions::auto_read_only`].
    pub auto_read_only: Option<bool>,
    /// See [`NodeOptions::force_share`].
    pub force_share: Option<bool>,
    /// See [`NodeOptions::discard_unmap`].
    pub discard_unmap: Option<bool>,
    /// See [`NodeOptions::cache`].
    pub cache: CacheOptions,
}

/// Options of one node as they were given, in the schema's words: members of members as `a.b`, elements of lists as
/// `a.0`. Without the node's name, its driver, its children and what every node has (`read-only`, `discard`,
/// `detect-zeroes`, `cache`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenOptions(Vec<(String, GivenValue)>);

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Number(i128),
    /// A text, or one value of an enumeration.
    Text(String),
    /// A list or an object with nothing in it.
    Empty,
}

impl GivenOptions {
    /// Brings them into the order in which clients have always seen them: that of the hash table in which QEMU keeps
    /// options.
    pub fn new(mut members: Vec<(String, GivenValue)>) -> Self {
        members.sort_by_key(|(name, _)| place_in_table(name));
        Self(members)
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&GivenValue> {
        self.iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, GivenValue)> {
        self.0.iter()
    }
}

/// Where QEMU's dictionaries of 512 buckets keep a name. Seen in the order of members of `json:` names.
pub fn place_in_table(name: &str) -> u32 {
    const BUCKETS: u32 = 512;
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let sum = name
        .bytes()
        .zip(0_u32..)
        .fold(length.wrapping_mul(0x238f_13af), |sum, (byte, at)| {
            sum.wrapping_add(u32::from(byte) << (at.wrapping_mul(5) % 24))
        });
    sum.wrapping_mul(1_103_515_243).wrapping_add(12345) % BUCKETS
}

/// Caching of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheOptions {
    /// Bypass the host's page cache (O_DIRECT).
    pub direct: Option<bool>,
    /// Ignore flushes.
    pub no_flush: Option<bool>,
}

/// `detect-zeroes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DetectZeroes {
    /// Write what came.
    #[default]
    Off,
    /// Turn zero buffers into zero writes.
    On,
    /// ... and let them deallocate, where `discard` is `unmap`.
    Unmap,
}

/// A child: a node that exists, or one to open with its parent.
#[derive(Debug, Clone)]
pub enum NodeRef {
    /// A node by name.
    Name(NodeName),
    /// Opened implicitly; gets a generated name and goes away with its parent.
    Options(Box<NodeOptions>),
}

/// A backing file.
#[derive(Debug, Clone, Default)]
pub enum BackingRef {
    /// What the image's header says.
    #[default]
    FromImage,
    /// None, whatever the header says (`"backing": null`).
    None,
    /// This node.
    Node(NodeRef),
}

/// The driver and its options.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DriverOptions {
    /// A regular host file.
    File(FileOptions),
    /// A host block device.
    HostDevice(FileOptions),
    /// A window into another node, without format.
    Raw(RawOptions),
    /// Reads zeroes (or nothing), swallows writes.
    NullCo(NullOptions),
    /// The same under the name of a driver that once completed its requests in another way.
    NullAio(NullOptions),
    /// A qcow2 image.
    Qcow2(Qcow2Options),
    /// Copies old data away before it is overwritten.
    CopyBeforeWrite(CopyBeforeWriteOptions),
    /// The point in time that a copy-before-write node keeps.
    SnapshotAccess {
        /// The copy-before-write node.
        file: NodeRef,
    },
    /// I/O limits by group.
    Throttle {
        /// The node below.
        file: NodeRef,
        /// Name of the `throttle-group` object.
        throttle_group: String,
    },
    /// Faults on purpose.
    Blkdebug(BlkdebugOptions),
    /// A remote NBD export.
    Nbd(NbdOptions),
}

impl DriverOptions {
    /// Whether the driver reaches its data by itself, or stands in for one that does.
    pub fn is_protocol(&self) -> bool {
        match self {
            Self::File(_)
            | Self::HostDevice(_)
            | Self::NullCo(_)
            | Self::NullAio(_)
            | Self::Blkdebug(_)
            | Self::Nbd(_) => true,
            Self::Raw(_)
            | Self::Qcow2(_)
            | Self::CopyBeforeWrite(_)
            | Self::SnapshotAccess { .. }
            | Self::Throttle { .. } => false,
        }
    }

    /// Whether the node stands on another one that is called its `file`.
    pub fn is_over_file(&self) -> bool {
        match self {
            Self::Raw(_)
            | Self::Qcow2(_)
            | Self::CopyBeforeWrite(_)
            | Self::SnapshotAccess { .. }
            | Self::Throttle { .. } => true,
            Self::File(_)
            | Self::HostDevice(_)
            | Self::NullCo(_)
            | Self::NullAio(_)
            | Self::Blkdebug(_)
            | Self::Nbd(_) => false,
        }
    }
}

/// Options of `file` and `host_device`.
#[derive(Debug, Clone, Default)]
pub struct FileOptions {
    /// Path of the file (`/dev/fdset/N` is not supported).
    pub filename: String,
    /// Image locking; `None` is `auto`.
    pub locking: Option<bool>,
    /// Drop the page cache when another host may have written (accepted, no effect here).
    pub drop_cache: Option<bool>,
    /// `None` chooses at run time.
    pub aio: Option<AioBackend>,
    /// Most bytes in one request of a zoned or limited device; 0 is no limit.
    pub aio_max_batch: u64,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self::NullCo(NullOptions::default())
    }
}

/// Which engine does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AioBackend {
    /// A pool of threads.
    Threads,
    /// Linux native AIO; served by io_uring or threads here.
    Native,
    /// io_uring.
    IoUring,
}

/// Options of `raw`.
#[derive(Debug, Clone)]
pub struct RawOptions {
    /// The node below.
    pub file: NodeRef,
    /// First byte of the window.
    pub offset: u64,
    /// Its length in bytes; `None` is up to the end.
    pub size: Option<u64>,
}

/// Options of `null-co`.
#[derive(Debug, Clone, Copy)]
pub struct NullOptions {
    /// Length in bytes; QEMU's default is 1 GiB.
    pub size: u64,
    /// Delay of each request in nanoseconds.
    pub latency_ns: u64,
    /// Reads give zeroes rather than leave the buffer as it is.
    pub read_zeroes: bool,
}

impl Default for NullOptions {
    fn default() -> Self {
        Self {
            size: 1 << 30,
            latency_ns: 0,
            read_zeroes: false,
        }
    }
}

/// Options of `qcow2`.
#[derive(Debug, Clone)]
pub struct Qcow2Options {
    /// The node that holds the image.
    pub file: NodeRef,
    /// The backing node.
    pub backing: BackingRef,
    /// Overrides the header's lazy-refcounts bit.
    pub lazy_refcounts: Option<bool>,
    /// Pass guest discards on to the file; `None` follows `discard`.
    pub pass_discard_request: Option<bool>,
    /// Pass discards of freed snapshots on.
    pub pass_discard_snapshot: Option<bool>,
    /// Pass other discards on.
    pub pass_discard_other: Option<bool>,
    /// Keep clusters allocated on discard.
    pub discard_no_unref: Option<bool>,
    /// Total metadata cache in bytes.
    pub cache_size: Option<u64>,
    /// L2 cache in bytes.
    pub l2_cache_size: Option<u64>,
    /// Unit of L2 cache entries in bytes.
    pub l2_cache_entry_size: Option<u64>,
    /// Refcount cache in bytes.
    pub refcount_cache_size: Option<u64>,
    /// The encryption scheme that is expected; no encrypted image is opened.
    pub encrypt: Option<String>,
    /// The node with an external data file; no image with one is opened.
    pub data_file: Option<NodeRef>,
    /// Seconds after which unused cache entries are dropped; 0 is never.
    pub cache_clean_interval: Option<u64>,
}

impl Qcow2Options {
    /// The image in this node, with all else as the header and the defaults say.
    pub fn new(file: NodeRef) -> Self {
        Self {
            file,
            backing: BackingRef::FromImage,
            lazy_refcounts: None,
            pass_discard_request: None,
            pass_discard_snapshot: None,
            pass_discard_other: None,
            discard_no_unref: None,
            cache_size: None,
            l2_cache_size: None,
            l2_cache_entry_size: None,
            refcount_cache_size: None,
            encrypt: None,
            data_file: None,
            cache_clean_interval: None,
        }
    }
}

/// What to do when old data cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCbwError {
    /// The guest's write fails.
    #[default]
    BreakGuestWrite,
    /// The snapshot is given up and the guest goes on.
    BreakSnapshot,
}

/// How many seconds a guest's write waits for a copy whose failure breaks only the snapshot, when nobody said: well below
/// what guests grant a disk before they call it broken.
pub const DEFAULT_CBW_TIMEOUT_S: u32 = 10;

/// Options of `copy-before-write`.
#[derive(Debug, Clone)]
pub struct CopyBeforeWriteOptions {
    /// The node whose point in time is kept.
    pub file: NodeRef,
    /// Where old data goes.
    pub target: NodeRef,
    /// Only these areas: node and name of a bitmap.
    pub bitmap: Option<(String, String)>,
    /// What to do when old data cannot be saved.
    pub on_cbw_error: OnCbwError,
    /// Longest time in seconds a guest write waits for a copy; 0 is no limit. `None`: no limit where the guest's write
    /// fails with the copy, and [`DEFAULT_CBW_TIMEOUT_S`] where the snapshot breaks.
    pub cbw_timeout: Option<u32>,
    /// Copy unit of at least this many bytes.
    pub min_cluster_size: Option<u64>,
    /// What was copied is discarded from `file`: it has to be writable.
    pub discard_source: bool,
}

/// Options of `blkdebug`.
#[derive(Debug, Clone)]
pub struct BlkdebugOptions {
    /// The node below.
    pub image: NodeRef,
    /// A file with rules, which come before those given here.
    pub config: Option<String>,
    /// Permissions to take on the node below besides those needed.
    pub take_child_perms: Perm,
    /// Permissions on the node below that are not left to others.
    pub unshare_child_perms: Perm,
    /// Required alignment in bytes; 0 is none.
    pub align: u64,
    /// Longest transfer in bytes; 0 is none.
    pub max_transfer: u32,
    /// Alignment of zero writes in bytes; 0 is none.
    pub opt_write_zero: u32,
    /// Longest zero write in bytes; 0 is none.
    pub max_write_zero: u32,
    /// Alignment of discards in bytes; 0 is none.
    pub opt_discard: u32,
    /// Longest discard in bytes; 0 is none.
    pub max_discard: u32,
    /// Faults.
    pub inject_error: Vec<InjectError>,
    /// State changes.
    pub set_state: Vec<SetState>,
}

/// One fault rule.
#[derive(Debug, Clone)]
pub struct InjectError {
    /// The event that arms it, in the schema's words (`none`, `l2_update`, ...).
    pub event: String,
    /// Only in this state; 0 is any.
    pub state: u64,
    /// Only on this kind of I/O, in the schema's words; `None` is reads, writes, zero writes, discards and flushes.
    pub iotype: Option<String>,
    /// The errno that is given.
    pub errno: i32,
    /// Only when this sector is touched.
    pub sector: Option<u64>,
    /// Only once.
    pub once: bool,
    /// Fail at once rather than through the event loop (no difference here).
    pub immediately: bool,
}

/// One state rule.
#[derive(Debug, Clone)]
pub struct SetState {
    /// The event.
    pub event: String,
    /// Only in this state; 0 is any.
    pub state: u64,
    /// The next state.
    pub new_state: u64,
}

/// Options of the `nbd` client.
#[derive(Debug, Clone)]
pub struct NbdOptions {
    /// The server.
    pub server: NbdAddress,
    /// Export name; `None` is the default export.
    pub export: Option<String>,
    /// Id of a `tls-creds-x509` object.
    pub tls_creds: Option<String>,
    /// Host name to check in the server's certificate.
    pub tls_hostname: Option<String>,
    /// A bitmap context whose dirty state shows as allocation.
    pub x_dirty_bitmap: Option<String>,
    /// Seconds during which requests wait for a new connection; 0 fails them at once.
    pub reconnect_delay: u32,
    /// Seconds to keep trying the first connection; 0 tries once.
    pub open_timeout: u32,
}

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdAddress {
    /// A unix socket.
    Unix(String),
    /// A unix socket without a file.
    AbstractUnix {
        /// Its name.
        name: String,
        /// Nothing but the name belongs to the address.
        tight: bool,
    },
    /// Host and port.
    Inet {
        /// Host name or address.
        host: String,
        /// Port number or service name.
        port: String,
    },
}
