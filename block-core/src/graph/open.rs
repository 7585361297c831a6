//! Opening nodes: children first, then the driver, then the name and the permissions.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::child::{Child, Parent};
use super::perm::{ChildRole, Needs, Perm, default_child_permissions};
use super::{Graph, Node, Topology};
use crate::driver::Driver;
use crate::drivers;
use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{CacheOptions, DetectZeroes, DriverOptions, GivenValue, NodeOptions, NodeRef};
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
    /// Its name, once it has one, and whether the graph made it up.
    name: OnceLock<(NodeName, bool)>,
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

    /// What the node's own options contradict is told first, then what is wrong with its name. The name is its own
    /// from here on. A node over a `file` comes to this when that is open.
    fn settle(&self) -> Result<()> {
        check_own(self.options)?;
        let name = {
            let mut topology = lock(&self.graph.topology);
            let name = match &self.options.node_name {
                Some(name) => check_name(&topology, name).map(|()| (name.clone(), false))?,
                None => (Graph::generate_name(&mut topology), true),
            };
            topology.reserved.insert(name.0.clone());
            name
        };
        self.name.get_or_init(|| name);
        self.place();
        match &self.options.refused {
            Some(text) => Err(BlockError::new(ErrorKind::Invalid, text.clone())),
            None => Ok(()),
        }
    }

    /// Opens or finds a child and makes the edge to it.
    pub async fn child(&self, name: &str, role: ChildRole, reference: &NodeRef) -> Result<Arc<Child>> {
        let node = match reference {
            NodeRef::Name(wanted) if self.name.get().is_some_and(|(own, _)| own == wanted) => {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    format!("Making '{wanted}' a {name} child of '{wanted}' would create a cycle"),
                ));
            }
            NodeRef::Name(wanted) => self.graph.find(wanted.as_str()).ok_or_else(|| {
                BlockError::new(
                    ErrorKind::NotFound,
                    format!("Cannot find device='{wanted}' nor node-name='{wanted}'"),
                )
            }),
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
                let opened = self.graph.open((**options).clone(), Some(inherited)).await;
                if let Ok(node) = &opened {
                    lock(&self.opened).push(Arc::clone(node));
                }
                opened
            }
        };
        let node = node.map_err(|error| match role {
            ChildRole::Backing => error.context("Could not open backing file"),
            _ => error,
        })?;
        let child = {
            let _topology = lock(&self.graph.topology);
            Child::new(name, role, &node)
        };
        if let NodeRef::Options(_) = reference {
            child.set_opened_with_parent();
        }
        lock(&self.children).push(Arc::clone(&child));
        if name == "file" && self.options.driver.is_over_file() {
            self.settle()?;
        }
        self.claim(&child)?;
        Ok(child)
    }

    /// Takes the permissions that a node without parents needs of a child, before its driver looks at anything: what
    /// others do to the child must not disturb the opening.
    fn claim(&self, child: &Arc<Child>) -> Result<()> {
        let needs = Needs {
            writable: !self.read_only(),
            has_parents: false,
            perm: Perm::NONE,
            shared: Perm::ALL,
        };
        let (perm, shared) = match &self.options.driver {
            DriverOptions::SnapshotAccess { .. } => drivers::snapshot_access::CHILD_PERMISSIONS,
            DriverOptions::Blkdebug(options) => {
                let (perm, shared) = default_child_permissions(child.role(), &needs);
                (
                    perm | options.take_child_perms,
                    shared.without(options.unshare_child_perms),
                )
            }
            _ => default_child_permissions(child.role(), &needs),
        };
        let name = self
            .name
            .get()
            .map_or_else(|| "".into(), |(name, _)| name.clone());
        self.graph.claim(child, Parent::Opening(name), perm, shared)
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

        let context = OpenContext {
            graph: self,
            options: &options,
            depth: inherited.depth,
            children: Mutex::default(),
            opened: Mutex::default(),
            forced_read_only: AtomicBool::new(false),
            place: AtomicU64::new(0),
            name: OnceLock::new(),
        };
        let settled = if options.driver.is_over_file() {
            Ok(())
        } else {
            context.settle()
        };
        let driver = match settled {
            Ok(()) => open_driver(&context).await,
            Err(error) => Err(error),
        };
        let children = std::mem::take(&mut *lock(&context.children));
        let opened = std::mem::take(&mut *lock(&context.opened));
        let place = context.place();
        let name = context.name.get().cloned();
        let forced_read_only = context.forced_read_only.load(Ordering::Relaxed);
        if forced_read_only {
            options.read_only = Some(true);
        }
        let result = match driver {
            Ok(driver) => {
                self.insert(&options, name.clone(), driver, children.clone(), place)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Some((name, _)) = &name {
            lock(&self.topology).reserved.remove(name);
        }
        if result.is_err() {
            for child in &children {
                self.detach_edge(child);
            }
            for node in opened.into_iter().rev() {
                self.close_if_unused(node).await;
            }
        }
        let node = result?;
        // What the driver has not taken is left over, and is told when all else went well.
        if let Some(error) = left_over(&node, &options) {
            self.close_if_unused(node).await;
            return Err(error);
        }
        Ok(node)
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
            self.insert(options, None, driver, Vec::new(), place).await?
        };
        node.set_monitor_owned(true);
        Ok(node)
    }

    /// Gives a driver its node, its name and its permissions.
    async fn insert(
        self: &Arc<Self>,
        options: &NodeOptions,
        name: Option<(NodeName, bool)>,
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
            let named = match (name, &options.node_name) {
                (Some(name), _) => Ok(name),
                (None, Some(name)) => check_name(&topology, name).map(|()| (name.clone(), false)),
                (None, None) => Ok((Self::generate_name(&mut topology), true)),
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

/// What a node's own options say against each other.
pub(super) fn check_own(options: &NodeOptions) -> Result<()> {
    if options.force_share == Some(true) && options.read_only != Some(true) {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            "force-share=on can only be used with read-only images",
        ));
    }
    check_detect_zeroes(options)
}

/// Zeroes cannot be unmapped where nothing else is.
pub(super) fn check_detect_zeroes(options: &NodeOptions) -> Result<()> {
    if options.detect_zeroes == DetectZeroes::Unmap && options.discard_unmap != Some(true) {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
        ));
    }
    Ok(())
}

/// A list or an object with nothing in it leaves nothing for the driver to take; the whole of it is left.
fn left_over(node: &Node, options: &NodeOptions) -> Option<BlockError> {
    let (option, _) = options
        .given
        .iter()
        // The one option of this kind that a driver takes.
        .find(|(name, value)| *value == GivenValue::Empty && name != "overlap-check")?;
    let driver = node.driver().name();
    let text = if options.driver.is_protocol() {
        format!("Block protocol '{driver}' doesn't support the option '{option}'")
    } else {
        format!("Block format '{driver}' does not support the option '{option}'")
    };
    Some(BlockError::new(ErrorKind::Invalid, text))
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
    if topology.names.contains_key(name) || topology.reserved.contains(name) {
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
