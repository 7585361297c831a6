//! An edge of the graph: how a driver (or a [`Backend`](super::Backend)) reaches a node below it.
//!
//! The node at the far end can be exchanged (filters, snapshots) while the users above are drained; everything else
//! of an edge stays. I/O methods mirror those of [`Node`]; gating and in-flight counting are not done here but at
//! the roots.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use arc_swap::ArcSwap;

use super::perm::{ChildRole, Perm};
use super::{Backend, Node};
use crate::driver::{
    BlockStatus, DriverInfo, HostExtent, Limits, Preallocation, WriteFlags, WriteMapping, ZeroFlags,
};
use crate::error::Result;
use crate::sync::lock;
use crate::types::NodeName;

/// Who holds an edge.
#[derive(Clone, Default)]
pub enum Parent {
    /// Nobody: the edge was just made, or stands alone in a test.
    #[default]
    None,
    /// A node that is being opened under this name.
    Opening(NodeName),
    /// A node's driver.
    Node(Weak<Node>),
    /// A user outside of the graph.
    Backend(Weak<Backend>),
}

/// An edge to a node.
pub struct Child {
    name: String,
    role: ChildRole,
    /// When it was made, among all edges.
    sequence: u64,
    node: ArcSwap<Node>,
    state: Mutex<EdgeState>,
    /// The node that was opened together with the parent, for this edge.
    opened: OnceLock<Weak<Node>>,
}

#[derive(Default)]
pub(super) struct EdgeState {
    pub(super) parent: Parent,
    pub(super) perm: Perm,
    pub(super) shared: Perm,
}

impl Child {
    pub(super) fn new(name: &str, role: ChildRole, node: &Arc<Node>) -> Arc<Self> {
        let state = EdgeState {
            parent: Parent::None,
            perm: Perm::NONE,
            shared: Perm::ALL,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let child = Arc::new(Self {
            name: name.to_owned(),
            role,
            sequence: NEXT.fetch_add(1, Ordering::Relaxed),
            node: ArcSwap::new(Arc::clone(node)),
            state: Mutex::new(state),
            opened: OnceLock::new(),
        });
        node.add_parent(&child);
        child
    }

    /// An edge without a graph around it, for tests of drivers: `driver` becomes a node of its own.
    pub fn standalone(name: &str, role: ChildRole, driver: Arc<dyn crate::driver::Driver>) -> Arc<Self> {
        Self::new(name, role, &Node::standalone("standalone", driver))
    }

    /// Remembers that the node was opened together with the parent: it follows when the parent is reopened.
    pub(super) fn set_opened_with_parent(&self) {
        self.opened.get_or_init(|| Arc::downgrade(&self.node.load()));
    }

    /// Whether the edge leads to the node that was opened together with the parent.
    pub(super) fn was_opened_with_parent(&self) -> bool {
        self.opened
            .get()
            .is_some_and(|opened| std::ptr::eq(opened.as_ptr(), Arc::as_ptr(&self.node.load())))
    }

    /// The edge's name at its parent: `file`, `backing`, `target`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When the edge was made, among all edges: greater is later.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What the child is to its parent.
    pub fn role(&self) -> ChildRole {
        self.role
    }

    /// The node at the far end now.
    pub fn node(&self) -> Arc<Node> {
        self.node.load_full()
    }

    /// Who holds this edge.
    pub fn parent(&self) -> Parent {
        lock(&self.state).parent.clone()
    }

    /// What the parent needs of the node.
    pub fn perm(&self) -> Perm {
        lock(&self.state).perm
    }

    /// What the parent tolerates from the node's other parents.
    pub fn shared(&self) -> Perm {
        lock(&self.state).shared
    }

    pub(super) fn set_parent(&self, parent: Parent) {
        lock(&self.state).parent = parent;
    }

    pub(super) fn set_permissions(&self, perm: Perm, shared: Perm) {
        let mut state = lock(&self.state);
        state.perm = perm;
        state.shared = shared;
    }

    /// Points the edge to another node and moves the parent link.
    pub(super) fn repoint(self: &Arc<Self>, node: &Arc<Node>) {
        let old = self.node.swap(Arc::clone(node));
        old.remove_parent(self);
        node.add_parent(self);
    }

    /// Tells the node below what its user is about to do, for fault injection: an event's name in the schema's
    /// words (`l2_update`, `cluster_alloc`, ...).
    pub fn event(&self, event: &str) {
        self.node.load().driver().debug_event(event);
    }

    /// Tells the node below, for fault injection, that a flush of the node above reaches the disk; of a node that was
    /// not written to since its last flush nothing is told.
    pub fn flush_event(&self) {
        let parent = match &lock(&self.state).parent {
            Parent::Node(node) => node.upgrade(),
            Parent::None | Parent::Opening(_) | Parent::Backend(_) => None,
        };
        if parent.is_none_or(|node| node.take_written()) {
            self.event("flush_to_disk");
        }
    }

    /// The node's length in bytes.
    pub fn length(&self) -> u64 {
        self.node.load().length()
    }

    /// The node's preferred request sizes.
    pub fn limits(&self) -> Limits {
        self.node.load().limits()
    }

    /// See [`Driver::host_extent`](crate::driver::Driver::host_extent).
    pub fn host_extent(&self, offset: u64) -> Option<HostExtent> {
        self.node.load().driver().host_extent(offset)
    }

    /// What the driver below says of its image.
    pub fn info(&self) -> DriverInfo {
        self.node.load().driver().info()
    }

    /// See [`Node::read`].
    pub async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let node = self.node();
        node.read(offset, buf).await
    }

    /// See [`Node::try_read`].
    pub fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        self.node.load().try_read(offset, buf)
    }

    /// See [`Node::write`].
    pub async fn write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        let node = self.node();
        node.write(offset, buf, flags).await
    }

    /// See [`Node::try_write`].
    pub fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        self.node.load().try_write(offset, buf, flags)
    }

    /// See [`Node::write_zeroes`].
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let node = self.node();
        node.write_zeroes(offset, len, flags).await
    }

    /// See [`Node::discard`].
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let node = self.node();
        node.discard(offset, len).await
    }

    /// See [`Node::flush`].
    pub async fn flush(&self) -> Result<()> {
        let node = self.node();
        node.flush().await
    }

    /// See [`Node::block_status`].
    pub async fn block_status(&self, offset: u64, len: u64, want_host: bool) -> Result<BlockStatus> {
        let node = self.node();
        node.block_status(offset, len, want_host).await
    }

    /// See [`Node::truncate`].
    pub async fn truncate(&self, length: u64, preallocation: Preallocation) -> Result<()> {
        let node = self.node();
        node.truncate(length, preallocation).await
    }

    /// See [`Node::map_for_write`].
    pub async fn map_for_write(&self, offset: u64, len: u64) -> Result<Option<WriteMapping>> {
        let node = self.node();
        node.map_for_write(offset, len).await
    }

    /// See [`Node::commit_write`].
    pub async fn commit_write(&self, offset: u64, mapping: WriteMapping) -> Result<()> {
        let node = self.node();
        node.commit_write(offset, mapping).await
    }

    /// See [`Node::abandon_write`].
    pub fn abandon_write(&self, mapping: WriteMapping) {
        self.node.load().abandon_write(mapping);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("node", &self.node.load().name())
            .finish_non_exhaustive()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.node.load().forget_parent(std::ptr::from_ref(self));
    }
}
