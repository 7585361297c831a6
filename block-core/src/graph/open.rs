//! Opening nodes: children first, then the driver, then the name and the permissions.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::child::Child;
use super::perm::ChildRole;
use super::{Graph, Node, Topology};
use crate::driver::Driver;
use crate::drivers;
use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{CacheOptions, DriverOptions, NodeOptions, NodeRef};
use crate::sync::lock;
use crate::types::{MAX_LENGTH_BYTES, NodeName};

/// What a parent passes on to children that are opened with it.
#[derive(Debug, Clone)]
pub(super) struct Inherited {
    read_only: bool,
    auto_read_only: bool,
    force_share: bool,
    cache: CacheOptions,
    /// How many nodes are being opened above.
    depth: u32,
}

/// Most nodes that one node may open below it, one below the other: an image can name itself as its backing file.
const MAX_DEPTH: u32 = 400;

/// After so many nodes below one another, opening goes on in a task of its own, with a stack of its own.
const STACK_DEPTH: u32 = 16;

/// What a driver's `open` gets: its node's options, and the way to its children.
pub struct OpenContext<'a> {
    graph: &'a Arc<Graph>,
    options: &'a NodeOptions,
    depth: u32,
    children: Mutex<Vec<Arc<Child>>>,
    /// Nodes opened for this one, to be closed again when opening fails.
    opened: Mutex<Vec<Arc<Node>>>,
    /// The driver could only open its image for reading, and `auto-read-only` allowed that.
    forced_read_only: AtomicBool,
    /// The node's place among all nodes; 0 while it has none.
    place: AtomicU64,
}

impl OpenContext<'_> {
    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        self.graph
    }

    /// The node's options; every `None` that the parent or a default decides is filled in.
    pub fn options(&self) -> &NodeOptions {
        self.options
    }

    /// Whether the node is opened read-only.
    pub fn read_only(&self) -> bool {
        self.options.read_only.unwrap_or(false)
    }

    /// The image can only be read, and `auto-read-only` is set: the node becomes read-only.
    pub fn force_read_only(&self) {
        self.forced_read_only.store(true, Ordering::Relaxed);
    }

    /// The node's place among all nodes: behind the children that hold its image, before the backing chain that the
    /// image names. Queries list nodes in this order.
    fn place(&self) -> u64 {
        let taken = self.place.load(Ordering::Relaxed);
        if taken != 0 {
            return taken;
        }
        let place = {
            let mut topology = lock(&self.graph.topology);
            topology.places += 1;
            topology.places
        };
        self.place.store(place, Ordering::Relaxed);
        place
    }

    /// Opens or finds a child and makes the edge to it.
    pub async fn child(&self, name: &str, role: ChildRole, reference: &NodeRef) -> Result<Arc<Child>> {
        let node = match reference {
            NodeRef::Name(wanted) => self.graph.find(wanted.as_str()).ok_or_else(|| {
                BlockError::new(
                    ErrorKind::NotFound,
                    format!("Cannot find device='{wanted}' nor node-name='{wanted}'"),
                )
            })?,
            NodeRef::Options(options) => {
                if role == ChildRole::Backing {
                    self.place();
                }
                let inherited = Inherited {
                    // A backing file is never written through its overlay.
                    read_only: role == ChildRole::Backing || self.read_only(),
                    auto_read_only: role != ChildRole::Backing
                        && self.options.auto_read_only.unwrap_or(false),
                    force_share: self.options.force_share.unwrap_or(false),
                    cache: self.options.cache,
                    depth: self.depth + 1,
                };
                let node = self.graph.open((**options).clone(), Some(inherited)).await?;
                lock(&self.opened).push(Arc::clone(&node));
                node
            }
        };
        let child = {
            let _topology = lock(&self.graph.topology);
            Child::new(name, role, &node)
        };
        if let NodeRef::Options(_) = reference {
            child.set_opened_with_parent();
        }
        lock(&self.children).push(Arc::clone(&child));
        if name == "file" && self.options.driver.is_over_file() {
            // Only now the node gets its name; what the driver itself finds wrong is told after that.
            if let Some(name) = &self.options.node_name {
                check_name(&lock(&self.graph.topology), name)?;
            }
            self.place();
        }
        Ok(child)
    }
}

impl Graph {
    /// Opens a node (boxed, because opening recurses into children).
    pub(super) fn open(
        self: &Arc<Self>,
        options: NodeOptions,
        inherited: Option<Inherited>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Node>>> + Send + '_>> {
        let depth = inherited.as_ref().map_or(0, |inherited| inherited.depth);
        if depth % STACK_DEPTH != STACK_DEPTH - 1 {
            return Box::pin(self.open_node(options, inherited));
        }
        let graph = Arc::clone(self);
        let opening = self
            .handle()
            .spawn(async move { graph.open_node(options, inherited).await });
        Box::pin(async move {
            opening.await.unwrap_or_else(|error| {
                Err(BlockError::new(
                    ErrorKind::Io,
                    format!("Opening was given up: {error}"),
                ))
            })
        })
    }

    async fn open_node(
        self: &Arc<Self>,
        mut options: NodeOptions,
        inherited: Option<Inherited>,
    ) -> Result<Arc<Node>> {
        // A node over a `file` gets its name when that is open; a mistake below is told first.
        if let Some(name) = &options.node_name
            && !options.driver.is_over_file()
        {
            check_name(&lock(&self.topology), name)?;
        }
        let embedded = inherited.is_some();
        let inherited = inherited.unwrap_or(Inherited {
            read_only: false,
            auto_read_only: false,
            force_share: false,
            cache: CacheOptions::default(),
            depth: 0,
        });
        if inherited.depth > MAX_DEPTH {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("More than {MAX_DEPTH} nodes are below one another"),
            ));
        }
        options.own = options.own_now();
        options.read_only.get_or_insert(inherited.read_only);
        options.auto_read_only.get_or_insert(inherited.auto_read_only);
        options.force_share.get_or_insert(inherited.force_share);
        options.discard_unmap.get_or_insert(embedded);
        options.cache.direct = options.cache.direct.or(inherited.cache.direct);
        options.cache.no_flush = options.cache.no_flush.or(inherited.cache.no_flush);
        if options.detect_zeroes == crate::options::DetectZeroes::Unmap && options.discard_unmap != Some(true)
        {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
            ));
        }
        if options.force_share == Some(true) && options.read_only != Some(true) {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "force-share=on can only be used with read-only images",
            ));
        }

        let context = OpenContext {
            graph: self,
            options: &options,
            depth: inherited.depth,
            children: Mutex::default(),
            opened: Mutex::default(),
            forced_read_only: AtomicBool::new(false),
            place: AtomicU64::new(0),
        };
        if !options.driver.is_over_file() {
            context.place();
        }
        let driver = open_driver(&context).await;
        let children = std::mem::take(&mut *lock(&context.children));
        let opened = std::mem::take(&mut *lock(&context.opened));
        let place = context.place();
        let forced_read_only = context.forced_read_only.load(Ordering::Relaxed);
        if forced_read_only {
            options.read_only = Some(true);
        }
        let result = match driver {
            Ok(driver) => self.insert(&options, driver, children.clone(), place).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            for child in &children {
                self.detach_edge(child);
            }
            for node in opened.into_iter().rev() {
                self.close_if_unused(node).await;
            }
        }
        result
    }

    /// Makes a node of a driver that the caller has opened; it stays until [`remove`](Self::remove).
    pub async fn adopt(
        self: &Arc<Self>,
        options: &NodeOptions,
        driver: Arc<dyn Driver>,
    ) -> Result<Arc<Node>> {
        let node = {
            let place = {
                let mut topology = lock(&self.topology);
                topology.places += 1;
                topology.places
            };
            self.insert(options, driver, Vec::new(), place).await?
        };
        node.set_monitor_owned(true);
        Ok(node)
    }

    /// Gives a driver its node, its name and its permissions.
    async fn insert(
        self: &Arc<Self>,
        options: &NodeOptions,
        driver: Arc<dyn Driver>,
        children: Vec<Arc<Child>>,
        place: u64,
    ) -> Result<Arc<Node>> {
        let stored = match driver.image_store() {
            _ if driver.length() > MAX_LENGTH_BYTES => Err(BlockError::from_errno(
                27,
                "Could not refresh total sector count: File too large",
            )),
            Some(store) => store.load_bitmaps().await,
            None => Ok(Vec::new()),
        };
        let result = stored.and_then(|stored| {
            let mut topology = lock(&self.topology);
            let named = match &options.node_name {
                Some(name) => check_name(&topology, name).map(|()| (name.clone(), false)),
                None => Ok((Self::generate_name(&mut topology), true)),
            };
            named.and_then(|(name, generated)| {
                let node = Node::new(
                    name,
                    generated,
                    place,
                    Arc::downgrade(self),
                    options.clone(),
                    Arc::clone(&driver),
                    children,
                );
                node.bitmaps().load(node.length(), stored, node.is_read_only());
                self.refresh_new(&node)?;
                topology.insert(&node);
                Ok(node)
            })
        });
        if result.is_err()
            && let Err(error) = driver.close().await
        {
            tracing::warn!(%error, "closing a driver failed");
        }
        result
    }
}

/// Whether a new node can have this name.
fn check_name(topology: &Topology, name: &NodeName) -> Result<()> {
    let text = name.as_str();
    let well_formed = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || matches!(each, '-' | '.' | '_'));
    if !well_formed {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            format!("Invalid node-name: '{text}'"),
        ));
    }
    if text.len() >= 32 {
        return Err(BlockError::new(ErrorKind::Invalid, "Node name too long"));
    }
    if topology.names.contains_key(name) {
        return Err(BlockError::new(
            ErrorKind::Exists,
            format!("Duplicate nodes with node-name='{text}'"),
        ));
    }
    Ok(())
}

async fn open_driver(context: &OpenContext<'_>) -> Result<Arc<dyn Driver>> {
    match &context.options().driver {
        DriverOptions::File(options) => {
            drivers::file::open(context, options, drivers::file::Kind::Regular).await
        }
        DriverOptions::HostDevice(options) => {
            drivers::file::open(context, options, drivers::file::Kind::Device).await
        }
        DriverOptions::Raw(options) => drivers::raw::open(context, options).await,
        DriverOptions::NullCo(options) | DriverOptions::NullAio(options) => {
            drivers::null::open(context, options)
        }
        DriverOptions::Qcow2(options) => drivers::qcow2::open(context, options).await,
        DriverOptions::CopyBeforeWrite(options) => drivers::copy_before_write::open(context, options).await,
        DriverOptions::SnapshotAccess { file } => drivers::snapshot_access::open(context, file).await,
        DriverOptions::Throttle { file, throttle_group } => {
            drivers::throttle::open(context, file, throttle_group).await
        }
        DriverOptions::Blkdebug(options) => drivers::blkdebug::open(context, options).await,
        DriverOptions::Nbd(options) => drivers::nbd_client::open(context, options).await,
    }
}
