//! `blockdev-reopen` and `block_resize`: nodes that change under their users.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::blockers::OpKind;
use super::perm::Perm;
use super::permissions::collect_below;
use super::{Backend, BackendUser, Child, Graph, Node, Parent};
use crate::driver::Preallocation;
use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{BackingRef, DetectZeroes, DriverOptions, NodeOptions, NodeRef};
use crate::sync::lock;

/// What happens to one edge.
enum EdgeChange {
    /// It leads to another node.
    Repoint(Arc<Child>, Arc<Node>),
    /// A node without backing node gets one.
    AttachBacking(Arc<Node>, Arc<Node>),
    /// A node loses its backing node.
    DetachBacking(Arc<Node>),
}

#[derive(Default)]
struct Plan {
    /// Parents before their children.
    nodes: Vec<(Arc<Node>, NodeOptions)>,
    edges: Vec<EdgeChange>,
}

fn invalid(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

/// The children that options name, with the names of their edges.
fn references(options: &DriverOptions) -> Vec<(&'static str, &NodeRef)> {
    match options {
        DriverOptions::File(_)
        | DriverOptions::HostDevice(_)
        | DriverOptions::NullCo(_)
        | DriverOptions::Nbd(_) => Vec::new(),
        DriverOptions::Raw(raw) => vec![("file", &raw.file)],
        DriverOptions::Qcow2(qcow2) => vec![("file", &qcow2.file)],
        DriverOptions::CopyBeforeWrite(filter) => vec![("file", &filter.file), ("target", &filter.target)],
        DriverOptions::SnapshotAccess { file } | DriverOptions::Throttle { file, .. } => vec![("file", file)],
        DriverOptions::Blkdebug(filter) => vec![("image", &filter.image)],
    }
}

impl Graph {
    /// Changes options of nodes, all of them or none (`blockdev-reopen`). Options that are not given take their defaults.
    pub async fn reopen(self: &Arc<Self>, changes: Vec<NodeOptions>) -> Result<()> {
        let _change = self.change.lock().await;
        let mut plan = Plan::default();
        for options in changes {
            let Some(name) = options.node_name.clone() else {
                return Err(invalid("node-name not specified"));
            };
            let node = self.find(name.as_str()).ok_or_else(|| {
                BlockError::new(
                    ErrorKind::NotFound,
                    format!("Failed to find node with node-name='{name}'"),
                )
            })?;
            self.plan(&node, options, &mut plan)?;
        }
        for (node, options) in &plan.nodes {
            check(node, options, &plan)?;
        }
        let touched: Vec<_> = plan.nodes.iter().map(|(node, _)| Arc::clone(node)).collect();
        let _drained = self.drain(&touched).await;
        let mut undo = Vec::new();
        for edge in plan.edges {
            match self.change_edge(edge) {
                Ok(back) => undo.push(back),
                Err(error) => {
                    self.undo_edges(undo);
                    return Err(error);
                }
            }
        }
        // A node that becomes writable needs writable children first; one that becomes read-only must write back while
        // its children still take that.
        let (down, mut up): (Vec<_>, Vec<_>) = plan
            .nodes
            .into_iter()
            .partition(|(_, options)| options.read_only == Some(true));
        up.reverse();
        let mut done: Vec<(Arc<Node>, NodeOptions)> = Vec::new();
        let mut result = Ok(());
        for (node, options) in down.into_iter().chain(up) {
            let old = node.options();
            result = node.apply_options(options).await;
            if result.is_err() {
                break;
            }
            done.push((node, old));
        }
        if result.is_ok() {
            let _topology = lock(&self.topology);
            let nodes: Vec<_> = done.iter().map(|(node, _)| Arc::clone(node)).collect();
            result = super::permissions::refresh(&nodes);
        }
        if result.is_err() {
            for (node, old) in done.into_iter().rev() {
                if let Err(error) = node.apply_options(old).await {
                    tracing::error!(node = %node.name(), %error, "a reopen could not be taken back");
                }
            }
            self.undo_edges(undo);
        }
        result
    }

    fn plan(self: &Arc<Self>, node: &Arc<Node>, mut options: NodeOptions, plan: &mut Plan) -> Result<()> {
        options.read_only.get_or_insert(false);
        options.auto_read_only.get_or_insert(false);
        options.force_share.get_or_insert(false);
        // This one setting stays as it is when it is not given.
        options.discard_unmap = options.discard_unmap.or(node.options().discard_unmap);
        let mut below = Vec::new();
        for (name, reference) in references(&options.driver) {
            let Some(child) = node.child(name) else {
                return Err(invalid(format!(
                    "Cannot set {name} child to format node without {name} child"
                )));
            };
            self.plan_child(node, &child, reference, &options, plan, &mut below)?;
        }
        if let DriverOptions::Qcow2(qcow2) = &options.driver {
            let current = node.child("backing");
            match (&qcow2.backing, current) {
                (BackingRef::None, None) => {}
                (BackingRef::FromImage, None) if node.driver().info().backing_file.is_none() => {}
                (BackingRef::FromImage, _) => {
                    return Err(invalid(format!("backing is missing for '{}'", node.name())));
                }
                (BackingRef::None, Some(_)) => plan.edges.push(EdgeChange::DetachBacking(Arc::clone(node))),
                (BackingRef::Node(reference), Some(child)) => {
                    self.plan_child(node, &child, reference, &options, plan, &mut below)?;
                }
                (BackingRef::Node(NodeRef::Name(name)), None) => {
                    let base = self.get(name.as_str())?;
                    plan.edges.push(EdgeChange::AttachBacking(Arc::clone(node), base));
                }
                (BackingRef::Node(NodeRef::Options(_)), None) => {
                    return Err(invalid("backing must be a node name here"));
                }
            }
        }
        // Of two changes of one node the later one counts.
        plan.nodes.retain(|(other, _)| !Arc::ptr_eq(other, node));
        plan.nodes.push((Arc::clone(node), options));
        for (child, options) in below {
            self.plan(&child, options, plan)?;
        }
        Ok(())
    }

    fn plan_child(
        self: &Arc<Self>,
        node: &Arc<Node>,
        child: &Arc<Child>,
        reference: &NodeRef,
        parent: &NodeOptions,
        plan: &mut Plan,
        below: &mut Vec<(Arc<Node>, NodeOptions)>,
    ) -> Result<()> {
        let current = child.node();
        match reference {
            NodeRef::Name(name) if name == current.name() => {}
            NodeRef::Name(name) => {
                let new = self.get(name.as_str())?;
                let mut seen = Vec::new();
                collect_below(&new, &mut seen);
                if seen.iter().any(|other| Arc::ptr_eq(other, node)) {
                    return Err(invalid(format!(
                        "Making '{name}' a {} child of '{}' would create a cycle",
                        child.name(),
                        node.name()
                    )));
                }
                plan.edges.push(EdgeChange::Repoint(Arc::clone(child), new));
            }
            // A child that was opened with its parent follows it.
            NodeRef::Options(options) if !current.is_monitor_owned() => {
                let mut options = (**options).clone();
                let backing = child.role() == super::ChildRole::Backing;
                options.node_name = Some(current.name().clone());
                options.read_only = options
                    .read_only
                    .or(if backing { Some(true) } else { parent.read_only });
                options.auto_read_only =
                    options
                        .auto_read_only
                        .or(if backing { None } else { parent.auto_read_only });
                options.force_share = options.force_share.or(parent.force_share);
                options.discard_unmap = options.discard_unmap.or(Some(true));
                options.cache.direct = options.cache.direct.or(parent.cache.direct);
                options.cache.no_flush = options.cache.no_flush.or(parent.cache.no_flush);
                below.push((current, options));
            }
            NodeRef::Options(_) => {
                return Err(invalid(format!(
                    "Cannot change the option '{}.driver'",
                    child.name()
                )));
            }
        }
        Ok(())
    }

    /// Makes a change of an edge; gives the change that takes it back.
    fn change_edge(&self, change: EdgeChange) -> Result<EdgeChange> {
        match change {
            EdgeChange::Repoint(child, node) => {
                let old = child.node();
                let _topology = lock(&self.topology);
                child.repoint(&node);
                if let Err(error) = super::permissions::refresh(&[Arc::clone(&old), node]) {
                    child.repoint(&old);
                    return Err(error);
                }
                Ok(EdgeChange::Repoint(child, old))
            }
            EdgeChange::AttachBacking(overlay, base) => {
                self.attach_backing(&overlay, &base)?;
                Ok(EdgeChange::DetachBacking(overlay))
            }
            EdgeChange::DetachBacking(overlay) => {
                let Some(base) = overlay.backing() else {
                    return Err(invalid("There is no backing node"));
                };
                self.detach_backing(&overlay);
                Ok(EdgeChange::AttachBacking(overlay, base))
            }
        }
    }

    fn undo_edges(&self, undo: Vec<EdgeChange>) {
        for change in undo.into_iter().rev() {
            if let Err(error) = self.change_edge(change) {
                tracing::error!(%error, "a change of an edge could not be taken back");
            }
        }
    }

    /// Changes the length of a node (`block_resize`).
    pub async fn resize(self: &Arc<Self>, node: &Arc<Node>, length: u64) -> Result<()> {
        node.check_op(OpKind::Resize)?;
        if node.is_read_only() {
            return Err(BlockError::new(ErrorKind::ReadOnly, "Image is read-only"));
        }
        node.bitmaps().check_resize()?;
        let backend = Backend::new(self, node, BackendUser::unnamed(), Perm::RESIZE, Perm::ALL)?;
        let drained = self.drain(std::slice::from_ref(node)).await;
        // The drain holds this backend too: the node is asked directly.
        let result = node.truncate(length, Preallocation::Off).await;
        drop(drained);
        backend.detach().await;
        result
    }
}

/// What can be refused before anything is touched.
fn check(node: &Arc<Node>, options: &NodeOptions, plan: &Plan) -> Result<()> {
    if std::mem::discriminant(&options.driver) != std::mem::discriminant(&node.options().driver) {
        return Err(invalid("Cannot change the option 'driver'"));
    }
    if options.detect_zeroes == DetectZeroes::Unmap && options.discard_unmap != Some(true) {
        return Err(invalid(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
        ));
    }
    if options.force_share == Some(true) && options.read_only != Some(true) {
        return Err(invalid("force-share=on can only be used with read-only images"));
    }
    if options.read_only == Some(true) {
        // A writer that becomes read-only in the same change is none.
        let stays_writer = |edge: &Arc<Child>| {
            edge.perm().intersects(Perm::WRITE | Perm::RESIZE)
                && match edge.parent() {
                    Parent::Node(parent) => parent.upgrade().is_some_and(|parent| {
                        !plan.nodes.iter().any(|(other, options)| {
                            Arc::ptr_eq(other, &parent) && options.read_only == Some(true)
                        })
                    }),
                    Parent::Backend(_) => true,
                    Parent::None => false,
                }
        };
        if node.parents().iter().any(stays_writer) {
            return Err(BlockError::new(
                ErrorKind::ReadOnly,
                format!(
                    "Read-only block node '{}' cannot support read-write users",
                    node.name()
                ),
            ));
        }
    }
    Ok(())
}

impl Node {
    /// Puts options in force. A future of its own, because it is called twice by the undo path of its caller.
    fn apply_options(
        self: &Arc<Self>,
        options: NodeOptions,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(async move {
            let (was, becomes) = (self.is_read_only(), options.read_only == Some(true));
            if becomes && !was {
                if let Some(store) = self.driver().image_store() {
                    store.store_bitmaps(self.bitmaps().to_store()).await?;
                }
                self.driver().flush().await?;
            }
            self.driver().reopen(&options).await?;
            if was
                && !becomes
                && let Some(store) = self.driver().image_store()
            {
                // Marks them as in use; what they hold is in memory already.
                store.load_bitmaps().await?;
            }
            self.bitmaps().set_read_only(becomes);
            self.take_options(options);
            Ok(())
        })
    }
}
