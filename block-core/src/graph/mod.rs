//! The graph of nodes: names, edges, permissions, drain, and the changes that are made while guests write.
//!
//! I/O goes [`Backend`] -> [`Child`] -> [`Node`] -> driver -> [`Child`] -> [`Node`] ... Requests are counted and held at the
//! backends only. The graph knows drivers by their trait; what is in an image is not its business.

mod backend;
mod blockers;
mod chain;
mod child;
mod drain;
mod filename;
mod node;
mod open;
mod perm;
mod permissions;
mod reopen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::drivers::throttle::ThrottleGroups;
use crate::engine::Engines;
use crate::error::{BlockError, ErrorKind, Result};
use crate::event::{Event, EventSink};
use crate::nbd::TlsUpgrade;
use crate::options::NodeOptions;
use crate::sync::lock;
use crate::types::NodeName;

pub use backend::{Backend, BackendUser, DrainHandler, InFlight, IoStats, OpStats, OwnedInFlight};
pub use blockers::{OpBlockGuard, OpKind};
pub use child::{Child, Parent};
pub use drain::DrainGuard;
pub use node::{Node, NodeStats, is_zero};
pub use open::OpenContext;
pub use perm::{ChildRole, Needs, Perm, default_child_permissions};

/// What a graph needs from outside.
#[derive(Clone)]
pub struct GraphContext {
    /// The runtime on which block I/O runs.
    pub handle: tokio::runtime::Handle,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
}

/// Who knows TLS credentials by their id.
pub trait TlsClients: Send + Sync {
    /// The client's side of a handshake with these credentials, for a server of this name.
    fn client(&self, id: &str, hostname: Option<&str>) -> Result<Arc<dyn TlsUpgrade>>;
}

/// Who knows what the words of a `json:` name mean.
pub trait Descriptions: Send + Sync {
    /// The node that a description describes; `format` is the driver where it names none.
    fn parse(&self, description: &str, format: Option<&str>) -> Result<NodeOptions>;
}

/// All nodes.
pub struct Graph {
    context: GraphContext,
    /// Guards names and edges: every change of either happens under it. Nothing waits while it is held.
    topology: Mutex<Topology>,
    drains: Mutex<Vec<drain::Drain>>,
    engines: Engines,
    throttle_groups: ThrottleGroups,
    tls: Mutex<Option<Arc<dyn TlsClients>>>,
    descriptions: Mutex<Option<Arc<dyn Descriptions>>>,
    /// One change that waits for I/O (open, close, reopen, replace) at a time.
    change: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Topology {
    /// By their place in the order in which they got their names.
    nodes: BTreeMap<u64, Arc<Node>>,
    names: HashMap<NodeName, Arc<Node>>,
    /// Names of nodes that are being opened.
    reserved: HashSet<NodeName>,
    generated: u64,
    /// How many places in that order were given away.
    places: u64,
}

impl Topology {
    fn insert(&mut self, node: &Arc<Node>) {
        self.nodes.insert(node.order(), Arc::clone(node));
        self.names.insert(node.name().clone(), Arc::clone(node));
    }

    fn remove(&mut self, node: &Node) {
        self.nodes.remove(&node.order());
        self.names.remove(node.name());
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(context: GraphContext) -> Arc<Self> {
        Arc::new(Self {
            context,
            topology: Mutex::default(),
            drains: Mutex::default(),
            engines: Engines::default(),
            throttle_groups: ThrottleGroups::default(),
            tls: Mutex::default(),
            descriptions: Mutex::default(),
            change: tokio::sync::Mutex::default(),
        })
    }

    /// The runtime on which block I/O runs.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        &self.context.handle
    }

    /// The engines that do file I/O.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Sets who knows the credentials of TLS clients.
    pub fn set_tls_clients(&self, clients: Arc<dyn TlsClients>) {
        *lock(&self.tls) = Some(clients);
    }

    /// The client's side of TLS with the credentials of this id.
    pub fn tls_client(&self, id: &str, hostname: Option<&str>) -> Result<Arc<dyn TlsUpgrade>> {
        let clients = lock(&self.tls).clone();
        match clients {
            Some(clients) => clients.client(id, hostname),
            None => Err(BlockError::new(
                ErrorKind::NotFound,
                format!("No TLS credentials with id '{id}'"),
            )),
        }
    }

    /// Sets who knows what `json:` names mean.
    pub fn set_descriptions(&self, descriptions: Arc<dyn Descriptions>) {
        *lock(&self.descriptions) = Some(descriptions);
    }

    /// The node that a `json:` name describes.
    pub fn parse_description(&self, description: &str, format: Option<&str>) -> Result<NodeOptions> {
        let descriptions = lock(&self.descriptions).clone();
        match descriptions {
            Some(descriptions) => descriptions.parse(description, format),
            None => Err(BlockError::new(ErrorKind::Unsupported, "Unknown protocol 'json'")),
        }
    }

    /// The groups of `throttle` nodes.
    pub fn throttle_groups(&self) -> &ThrottleGroups {
        &self.throttle_groups
    }

    /// Sends an event.
    pub fn emit(&self, event: Event) {
        self.context.events.emit(event);
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Node>> {
        lock(&self.topology).names.get(name).cloned()
    }

    /// The node of this name, or the error that clients know.
    pub fn get(&self, name: &str) -> Result<Arc<Node>> {
        self.find(name).ok_or_else(|| {
            BlockError::new(
                ErrorKind::NotFound,
                format!("Cannot find device='' nor node-name='{name}'"),
            )
        })
    }

    /// All nodes, oldest first, those with generated names included.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.topology).nodes.values().cloned().collect()
    }

    /// Opens a node that stays until [`remove`](Self::remove) (`blockdev-add`).
    pub async fn add(self: &Arc<Self>, options: NodeOptions) -> Result<Arc<Node>> {
        if options.node_name.is_none() {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "'node-name' must be specified for the root node",
            ));
        }
        let _change = self.change.lock().await;
        let node = self.open(options, None).await?;
        node.set_monitor_owned(true);
        Ok(node)
    }

    /// Opens a node that goes away with its last user: an overlay, a job's target.
    pub async fn open_temporary(self: &Arc<Self>, options: NodeOptions) -> Result<Arc<Node>> {
        let _change = self.change.lock().await;
        self.open(options, None).await
    }

    /// Ends a node (`blockdev-del`).
    pub async fn remove(self: &Arc<Self>, name: &NodeName) -> Result<()> {
        let _change = self.change.lock().await;
        let node = self.find(name.as_str()).ok_or_else(|| {
            BlockError::new(
                ErrorKind::NotFound,
                format!("Failed to find node with node-name='{name}'"),
            )
        })?;
        // Exports are named first, then what a job has to say; a job's own edges count only after that.
        let is_export =
            |edge: &Arc<Child>| matches!(edge.parent(), Parent::Backend(_)) && edge.name() == "root";
        if node.parents().iter().any(is_export) {
            return Err(BlockError::new(ErrorKind::Busy, format!("Node {name} is in use")));
        }
        node.check_op(OpKind::DriveDel)?;
        if !node.is_monitor_owned() {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Node {name} is not owned by the monitor"),
            ));
        }
        if !node.parents().is_empty() {
            return Err(BlockError::new(
                ErrorKind::Busy,
                format!("Block device {name} is in use"),
            ));
        }
        node.set_monitor_owned(false);
        self.close_if_unused(node).await;
        Ok(())
    }

    /// Closes a node that nobody owns or uses, then those below it that this frees.
    pub async fn close_if_unused(self: &Arc<Self>, node: Arc<Node>) {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            {
                let mut topology = lock(&self.topology);
                if node.is_monitor_owned() || !node.parents().is_empty() || !node.begin_close() {
                    continue;
                }
                topology.remove(&node);
            }
            if let Err(error) = node.store_bitmaps().await {
                tracing::warn!(node = %node.name(), %error, "persistent bitmaps could not be stored");
            }
            if let Err(error) = node.driver().close().await {
                tracing::warn!(node = %node.name(), %error, "closing failed");
            }
            for child in node.take_children() {
                let below = child.node();
                self.detach_edge(&child);
                pending.push(below);
            }
        }
    }

    /// Closes every node, parents first: the end of the program.
    pub async fn close_all(self: &Arc<Self>) {
        for node in self.nodes().into_iter().rev() {
            node.set_monitor_owned(false);
            self.close_if_unused(node).await;
        }
    }

    /// Puts a filter above a node: `options` describe it, naming the node as its child. The users of the node then
    /// use the filter. Only users above this node are drained meanwhile.
    pub async fn insert_filter(
        self: &Arc<Self>,
        above: &Arc<Node>,
        options: NodeOptions,
    ) -> Result<Arc<Node>> {
        let _change = self.change.lock().await;
        let filter = self
            .open(options, None)
            .await
            .map_err(|error| error.context("Could not create node"))?;
        let drained = self.drain(std::slice::from_ref(above)).await;
        let result = self
            .repoint_parents(above, &filter)
            .map_err(|error| error.context("Could not replace node"));
        drop(drained);
        match result {
            Ok(()) => Ok(filter),
            Err(error) => {
                self.close_if_unused(filter).await;
                Err(error)
            }
        }
    }

    /// Takes a filter out again: its users use its (first) child, and the filter closes.
    pub async fn remove_filter(self: &Arc<Self>, filter: &Arc<Node>) -> Result<()> {
        let _change = self.change.lock().await;
        let Some(child) = filter.children().into_iter().next() else {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Node '{}' is no filter", filter.name()),
            ));
        };
        let drained = self.drain(std::slice::from_ref(filter)).await;
        let below = child.node();
        let result = self.repoint_parents(filter, &below);
        filter.set_monitor_owned(false);
        self.close_if_unused(Arc::clone(filter)).await;
        drop(drained);
        result
    }

    /// Lets every user of `from` use `to` instead, except users on the way from `to` down to `from`.
    pub async fn replace(self: &Arc<Self>, from: &Arc<Node>, to: &Arc<Node>) -> Result<()> {
        let _change = self.change.lock().await;
        let drained = self.drain(&[Arc::clone(from), Arc::clone(to)]).await;
        let result = self.repoint_parents(from, to);
        drop(drained);
        result
    }

    /// Makes `overlay`, which has no backing node, the overlay of `base`: `base` becomes its backing node, and the users
    /// of `base` use `overlay`. The caller holds a drain of `base` where it needs one.
    pub async fn append(self: &Arc<Self>, overlay: &Arc<Node>, base: &Arc<Node>) -> Result<()> {
        let _change = self.change.lock().await;
        let drained = self.drain(std::slice::from_ref(base)).await;
        let result = self.attach_backing(overlay, base).and_then(|()| {
            self.repoint_parents(base, overlay)
                .inspect_err(|_| self.detach_backing(overlay))
        });
        drop(drained);
        result
    }

    /// Takes [`append`](Self::append) back: the users of `overlay` use `base` again, and `overlay`, which stays open,
    /// has no backing node.
    pub async fn unappend(self: &Arc<Self>, overlay: &Arc<Node>, base: &Arc<Node>) -> Result<()> {
        let _change = self.change.lock().await;
        let drained = self.drain(std::slice::from_ref(overlay)).await;
        let result = self.repoint_parents(overlay, base);
        if result.is_ok() {
            self.detach_backing(overlay);
        }
        drop(drained);
        result
    }

    /// A name that no node has.
    fn generate_name(topology: &mut Topology) -> NodeName {
        loop {
            // QEMU's form: a counter and two arbitrary digits, so that nobody relies on the number.
            let number = topology.generated;
            topology.generated += 1;
            let name = format!("#block{number}{:02}", (number * 37 + 41) % 100);
            let name = NodeName::from(name);
            if !topology.names.contains_key(&name) {
                return name;
            }
        }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.nodes().iter().map(|node| node.name().clone()).collect();
        f.debug_struct("Graph")
            .field("nodes", &names)
            .finish_non_exhaustive()
    }
}
