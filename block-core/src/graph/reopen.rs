//! `blockdev-reopen` and `block_resize`: nodes that change under their users.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::blockers::OpKind;
use super::perm::Perm;
use super::permissions::{check_cycle, exchange_backing};
use super::{Backend, BackendUser, Child, Graph, Node, Parent};
use crate::driver::Preallocation;
use crate::drivers::qcow2::Qcow2;
use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{
    BackingRef, DetectZeroes, DriverOptions, NodeOptions, NodeRef, OwnOptions, place_in_table,
};
use crate::sync::lock;

/// What happens to one edge.
enum EdgeChange {
    /// It leads to another node.
    Repoint(Arc<Child>, Arc<Node>),
    /// A node gets a backing node, or loses the one that it has.
    ExchangeBacking(Arc<Node>, Option<Arc<Node>>),
}

impl EdgeChange {
    /// Makes the change; gives the one that takes it back. Permissions are the caller's to work out, who holds the
    /// topology lock.
    fn make(self) -> Result<Self> {
        match self {
            Self::Repoint(child, node) => {
                if let Parent::Node(parent) = child.parent()
                    && let Some(parent) = parent.upgrade()
                {
                    check_cycle(&node, child.name(), &parent)?;
                }
                let old = child.node();
                child.repoint(&node);
                Ok(Self::Repoint(child, old))
            }
            Self::ExchangeBacking(overlay, base) => {
                let old = exchange_backing(&overlay, base.as_ref())?;
                Ok(Self::ExchangeBacking(overlay, old))
            }
        }
    }
}

/// What happens to one node.
struct Step {
    node: Arc<Node>,
    options: NodeOptions,
    /// Its edges that change, or why one cannot.
    edges: Vec<Result<EdgeChange>>,
}

/// What happens, parents before their children.
type Plan = Vec<Step>;

fn invalid(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

/// A node and the nodes that were opened for its image, as they would be with or without write access. Those that are
/// so already are left out.
fn with_own_children(node: &Arc<Node>, read_only: bool) -> Vec<(Arc<Node>, NodeOptions)> {
    let mut nodes = Vec::new();
    let mut pending = vec![Arc::clone(node)];
    while let Some(node) = pending.pop() {
        let mut options = node.options();
        options.read_only = Some(read_only);
        for child in node.children() {
            let below = child.node();
            // What it was given itself, a child keeps.
            let own = below.options().own.read_only;
            if child.role() != super::ChildRole::Backing
                && !below.is_monitor_owned()
                && own.is_none_or(|own| own == read_only)
            {
                pending.push(below);
            }
        }
        if node.is_read_only() != read_only {
            nodes.push((node, options));
        }
    }
    nodes
}

/// The children that options name, with the names of their edges.
fn references(options: &DriverOptions) -> Vec<(&'static str, &NodeRef)> {
    match options {
        DriverOptions::File(_)
        | DriverOptions::HostDevice(_)
        | DriverOptions::NullCo(_)
        | DriverOptions::NullAio(_)
        | DriverOptions::Nbd(_) => Vec::new(),
        DriverOptions::Raw(raw) => vec![("file", &raw.file)],
        DriverOptions::Qcow2(qcow2) => vec![("file", &qcow2.file)],
        DriverOptions::CopyBeforeWrite(filter) => vec![("file", &filter.file), ("target", &filter.target)],
        DriverOptions::SnapshotAccess { file } | DriverOptions::Throttle { file, .. } => vec![("file", file)],
        DriverOptions::Blkdebug(filter) => vec![("image", &filter.image)],
    }
}

/// The options of a child that was opened with its parent, and what its own children take over from it. What neither
/// the child was given nor the parent is given now stays as it is `before`.
fn inheriting(
    mut options: NodeOptions,
    parent: &OwnOptions,
    before: Option<&NodeOptions>,
    backing: bool,
) -> (NodeOptions, OwnOptions) {
    let from_parent = |option: Option<bool>| if backing { None } else { option };
    options.read_only = options
        .read_only
        .or(if backing { Some(true) } else { parent.read_only });
    options.auto_read_only = options.auto_read_only.or(from_parent(parent.auto_read_only));
    options.force_share = options.force_share.or(parent.force_share);
    options.discard_unmap = options.discard_unmap.or(Some(true));
    options.cache.direct = options.cache.direct.or(parent.cache.direct);
    options.cache.no_flush = options.cache.no_flush.or(parent.cache.no_flush);
    let given = options.own_now();
    if let Some(before) = before {
        options.read_only = options.read_only.or(before.read_only);
        options.auto_read_only = options.auto_read_only.or(before.auto_read_only);
        options.force_share = options.force_share.or(before.force_share);
        options.cache.direct = options.cache.direct.or(before.cache.direct);
        options.cache.no_flush = options.cache.no_flush.or(before.cache.no_flush);
    }
    (options, given)
}

impl Graph {
    /// Changes options of nodes, all of them or none (`blockdev-reopen`). Options that are not given take their defaults.
    pub async fn reopen(self: &Arc<Self>, changes: Vec<NodeOptions>) -> Result<()> {
        let _change = self.change.lock().await;
        let mut plan = Plan::new();
        for mut options in changes {
            options.own = options.own_now();
            let Some(name) = options.node_name.clone() else {
                return Err(invalid("node-name not specified"));
            };
            let node = self.find(name.as_str()).ok_or_else(|| {
                BlockError::new(
                    ErrorKind::NotFound,
                    format!("Failed to find node with node-name='{name}'"),
                )
            })?;
            let own = options.own;
            self.plan(&node, options, own, &mut plan)?;
        }
        self.carry_out(plan).await
    }

    /// Makes a node that nobody writes any more read-only, with the nodes that were opened for its image.
    pub async fn make_read_only(self: &Arc<Self>, node: &Arc<Node>) -> Result<()> {
        let _change = self.change.lock().await;
        let nodes = with_own_children(node, true);
        let touched: Vec<_> = nodes.iter().map(|(node, _)| Arc::clone(node)).collect();
        let _drained = self.drain(&touched).await;
        self.change_options(nodes, Vec::new()).await
    }

    async fn carry_out(self: &Arc<Self>, plan: Plan) -> Result<()> {
        let touched: Vec<_> = plan.iter().map(|step| Arc::clone(&step.node)).collect();
        let drained = self.drain(&touched).await;
        let mut undo = Vec::new();
        let result = match self.change_edges(plan, &mut undo) {
            Ok((nodes, freed)) => self.change_options(nodes, freed).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.undo_edges(undo);
            return result;
        }
        drop(drained);
        // What nobody uses any more goes.
        for change in undo {
            if let EdgeChange::Repoint(_, node) | EdgeChange::ExchangeBacking(_, Some(node)) = change {
                self.close_if_unused(node).await;
            }
        }
        Ok(())
    }

    /// Looks at one node after the other: what it may not change, then its edges. Then checks that the permissions
    /// will fit once the nodes have their new options. Gives these, and the nodes that edges led to before.
    #[expect(clippy::type_complexity, reason = "two lists that are taken apart at once")]
    fn change_edges(
        &self,
        plan: Plan,
        undo: &mut Vec<EdgeChange>,
    ) -> Result<(Vec<(Arc<Node>, NodeOptions)>, Vec<Arc<Node>>)> {
        let _topology = lock(&self.topology);
        let mut freed = Vec::new();
        let mut nodes = Vec::new();
        for step in plan {
            let Step { node, options, edges } = step;
            super::open::check_detect_zeroes(&options)?;
            check_resets(&node, &options)?;
            for edge in edges {
                let back = edge?.make()?;
                if let EdgeChange::Repoint(_, old) | EdgeChange::ExchangeBacking(_, Some(old)) = &back {
                    freed.push(Arc::clone(old));
                }
                undo.push(back);
            }
            check_changes(&node, &options)?;
            let options = NodeOptions {
                node_name: Some(node.name().clone()),
                ..options
            };
            nodes.push((node, options));
        }
        let mut start: Vec<_> = nodes.iter().map(|(node, _)| Arc::clone(node)).collect();
        start.extend(freed.iter().cloned());
        super::permissions::check(&start, &|node| {
            nodes
                .iter()
                .find(|(other, _)| Arc::ptr_eq(other, node))
                .map_or_else(
                    || node.is_writable(),
                    |(_, options)| options.read_only != Some(true),
                )
        })?;
        Ok((nodes, freed))
    }

    async fn change_options(
        self: &Arc<Self>,
        nodes: Vec<(Arc<Node>, NodeOptions)>,
        freed: Vec<Arc<Node>>,
    ) -> Result<()> {
        // A node that becomes writable needs writable children first; one that becomes read-only must write back while
        // its children still take that.
        let (down, mut up): (Vec<_>, Vec<_>) = nodes
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
            let mut nodes: Vec<_> = done.iter().map(|(node, _)| Arc::clone(node)).collect();
            nodes.extend(freed);
            result = super::permissions::refresh(&nodes);
        }
        if result.is_err() {
            for (node, old) in done.into_iter().rev() {
                if let Err(error) = node.apply_options(old).await {
                    tracing::error!(node = %node.name(), %error, "a reopen could not be taken back");
                }
            }
        }
        result
    }

    /// `given` is what children that were opened with the node take over.
    fn plan(
        self: &Arc<Self>,
        node: &Arc<Node>,
        mut options: NodeOptions,
        given: OwnOptions,
        plan: &mut Plan,
    ) -> Result<()> {
        // What an earlier change of the same command gives the node stays where this one says nothing of it.
        let earlier = plan.iter().position(|step| Arc::ptr_eq(&step.node, node));
        let mut edges = Vec::new();
        if let Some(at) = earlier {
            let Step {
                options: before,
                edges: planned,
                ..
            } = plan.remove(at);
            // What could not be then cannot be now.
            edges.extend(planned.into_iter().filter(Result::is_err));
            options.read_only = before.own.read_only.or(options.read_only);
            options.auto_read_only = before.own.auto_read_only.or(options.auto_read_only);
            options.force_share = before.own.force_share.or(options.force_share);
            if options.detect_zeroes == DetectZeroes::Off {
                options.detect_zeroes = before.detect_zeroes;
            }
        }
        // Taken over from a parent once, this one has to be given from then on.
        let before = node.options();
        if before.force_share == Some(true) && options.force_share.is_none() && options.refused.is_none() {
            options.refused = Some("Option 'force-share' cannot be reset to its default value".to_owned());
        }
        options.read_only.get_or_insert(false);
        options.auto_read_only.get_or_insert(false);
        options.force_share.get_or_insert(false);
        // This one setting stays as it is when it is not given.
        options.discard_unmap = options.discard_unmap.or(before.discard_unmap);
        let mut below = Vec::new();
        if let DriverOptions::Qcow2(qcow2) = &options.driver {
            let current = node.child("backing");
            match (&qcow2.backing, current) {
                (BackingRef::None, None) => {}
                (BackingRef::FromImage, None) if node.driver().info().backing_file.is_none() => {}
                (BackingRef::FromImage, _) => {
                    edges.push(Err(invalid(format!("backing is missing for '{}'", node.name()))));
                }
                (BackingRef::None, Some(_)) => {
                    edges.push(Ok(EdgeChange::ExchangeBacking(Arc::clone(node), None)));
                }
                (BackingRef::Node(reference), Some(child)) => {
                    self.plan_child(&child, reference, &given, &mut edges, &mut below);
                }
                (BackingRef::Node(NodeRef::Name(name)), None) => edges.push(
                    self.get(name.as_str())
                        .map(|base| EdgeChange::ExchangeBacking(Arc::clone(node), Some(base))),
                ),
                (BackingRef::Node(NodeRef::Options(inline)), None) => {
                    edges.push(Err(cannot_change(&first_name("backing", inline))));
                }
            }
        }
        for (name, reference) in references(&options.driver) {
            let child = node.child(name);
            // Only a `file` can be another node; any other child that is named is compared as an option.
            if let NodeRef::Name(named) = reference
                && name != "file"
                && child.as_ref().is_none_or(|child| child.node().name() != named)
            {
                continue;
            }
            match child {
                Some(child) => self.plan_child(&child, reference, &given, &mut edges, &mut below),
                None => edges.push(Err(self.no_such_child(node, name, reference))),
            }
        }
        plan.push(Step {
            node: Arc::clone(node),
            options,
            edges,
        });
        for (child, options, given) in below {
            self.plan(&child, options, given, plan)?;
        }
        Ok(())
    }

    /// Why a node cannot get a child that its driver does not have.
    fn no_such_child(&self, node: &Arc<Node>, name: &str, reference: &NodeRef) -> BlockError {
        let new = match reference {
            NodeRef::Name(new) => self.get(new.as_str()),
            NodeRef::Options(inline) => return cannot_change(&first_name(name, inline)),
        };
        new.and_then(|new| check_cycle(&new, name, node))
            .err()
            .unwrap_or_else(|| {
                invalid(format!(
                    "Cannot set {name} child to format node without {name} child"
                ))
            })
    }

    fn plan_child(
        self: &Arc<Self>,
        child: &Arc<Child>,
        reference: &NodeRef,
        parent: &OwnOptions,
        edges: &mut Vec<Result<EdgeChange>>,
        below: &mut Vec<(Arc<Node>, NodeOptions, OwnOptions)>,
    ) {
        let current = child.node();
        let changed = match reference {
            // A child that was opened with its parent follows it, with the options that it was given then.
            NodeRef::Name(name) if name == current.name() => {
                if !child.was_opened_with_parent() {
                    return;
                }
                let mut options = current.options();
                options.restore_own();
                options
            }
            NodeRef::Name(name) => {
                edges.push(
                    self.get(name.as_str())
                        .map(|new| EdgeChange::Repoint(Arc::clone(child), new)),
                );
                return;
            }
            NodeRef::Options(options) if !current.is_monitor_owned() => {
                let mut options = (**options).clone();
                options.own = options.own_now();
                options
            }
            NodeRef::Options(options) => {
                edges.push(Err(cannot_change(&first_name(child.name(), options))));
                return;
            }
        };
        let backing = child.role() == super::ChildRole::Backing;
        let before = current.options();
        let by_name = matches!(reference, NodeRef::Name(_));
        let (options, given) = inheriting(changed, parent, by_name.then_some(&before), backing);
        below.push((current, options, given));
    }

    fn undo_edges(&self, undo: Vec<EdgeChange>) {
        let _topology = lock(&self.topology);
        let mut touched = Vec::new();
        for change in undo.into_iter().rev() {
            match change.make() {
                Ok(EdgeChange::Repoint(_, node) | EdgeChange::ExchangeBacking(_, Some(node))) => {
                    touched.push(node);
                }
                Ok(EdgeChange::ExchangeBacking(_, None)) => {}
                Err(error) => tracing::error!(%error, "a change of an edge could not be taken back"),
            }
        }
        if let Err(error) = super::permissions::refresh(&touched) {
            tracing::error!(%error, "the permissions from before could not be put back");
        }
    }

    /// Changes the backing file's name in an image's header; an empty name is none. An image that is open for reading
    /// is made writable for that moment.
    pub async fn change_backing_file(
        self: &Arc<Self>,
        node: &Arc<Node>,
        name: &str,
        format: &str,
    ) -> Result<()> {
        let _change = self.change.lock().await;
        let image = node.driver().as_any().downcast_ref::<Qcow2>();
        let Some(image) = image else {
            return Err(BlockError::new(
                ErrorKind::Unsupported,
                "Could not change the backing file: Operation not supported",
            ));
        };
        let _drained = self.drain(std::slice::from_ref(node)).await;
        let read_only = node.is_read_only();
        if read_only {
            let nodes = with_own_children(node, false);
            self.change_options(nodes, Vec::new()).await?;
        }
        let backing = (!name.is_empty()).then(|| (name.to_owned(), Some(format.to_owned())));
        let result = image
            .change_backing_file(backing)
            .await
            .map_err(|error| error.context(format!("Could not change backing file to '{name}'")));
        if result.is_ok() {
            node.forget_implicit_backing();
        }
        if read_only {
            self.change_options(with_own_children(node, true), Vec::new())
                .await?;
        }
        result
    }

    /// Changes the length of a node (`block_resize`).
    pub async fn resize(self: &Arc<Self>, node: &Arc<Node>, length: u64) -> Result<()> {
        node.check_op(OpKind::Resize)?;
        let backend = Backend::new(self, node, BackendUser::unnamed(), Perm::RESIZE, Perm::ALL)?;
        let refused = if node.is_read_only() {
            Err(BlockError::new(ErrorKind::ReadOnly, "Image is read-only"))
        } else {
            node.bitmaps().check_resize()
        };
        if let Err(error) = refused {
            backend.detach().await;
            return Err(error);
        }
        let drained = self.drain(std::slice::from_ref(node)).await;
        // The drain holds this backend too: the node is asked directly.
        let result = node.truncate(length, Preallocation::Off).await;
        drop(drained);
        backend.detach().await;
        result
    }
}

/// Which of a driver's options may be left out at a reopen (they take their defaults then), and which may change.
/// `None` where the driver cannot be reopened at all.
fn changeable(driver: &DriverOptions) -> Option<(&'static [&'static str], &'static [&'static str])> {
    match driver {
        DriverOptions::File(_) | DriverOptions::HostDevice(_) => Some((
            &["x-check-cache-dropped"],
            &["x-check-cache-dropped", "drop-cache"],
        )),
        DriverOptions::Raw(_) => Some((&["offset", "size"], &["offset", "size"])),
        DriverOptions::Qcow2(_) => {
            const RUNTIME: &[&str] = &[
                "lazy-refcounts",
                "pass-discard-request",
                "pass-discard-snapshot",
                "pass-discard-other",
                "discard-no-unref",
                "overlap-check",
                "overlap-check.",
                "cache-size",
                "l2-cache-size",
                "l2-cache-entry-size",
                "refcount-cache-size",
                "cache-clean-interval",
                "encrypt.",
            ];
            Some((RUNTIME, RUNTIME))
        }
        DriverOptions::Throttle { .. } => Some((&["throttle-group"], &["throttle-group"])),
        DriverOptions::NullCo(_)
        | DriverOptions::NullAio(_)
        | DriverOptions::Blkdebug(_)
        | DriverOptions::Nbd(_) => Some((&[], &[])),
        DriverOptions::CopyBeforeWrite(_) | DriverOptions::SnapshotAccess { .. } => None,
    }
}

fn listed(list: &[&str], name: &str) -> bool {
    list.iter()
        .any(|entry| *entry == name || (entry.ends_with('.') && name.starts_with(entry)))
}

/// Most options cannot be left out when they were given before. What the driver itself refuses is told here too.
fn check_resets(node: &Arc<Node>, new: &NodeOptions) -> Result<()> {
    let old = node.options();
    let Some((may_go, _)) = changeable(&old.driver) else {
        let driver = node.driver().name();
        return Err(invalid(format!(
            "Block format '{driver}' used by node '{}' does not support reopening files",
            node.name()
        )));
    };
    for (name, _) in old.given.iter() {
        if !listed(may_go, name) && new.given.get(name).is_none() {
            return Err(invalid(format!(
                "Option '{name}' cannot be reset to its default value"
            )));
        }
    }
    match &new.refused {
        Some(text) => Err(invalid(text.clone())),
        None => Ok(()),
    }
}

/// Compares the options that are given with those that were: most cannot change.
fn check_changes(node: &Arc<Node>, new: &NodeOptions) -> Result<()> {
    let old = node.options();
    let Some((_, may_change)) = changeable(&old.driver) else {
        return Ok(());
    };
    let same_driver = std::mem::discriminant(&new.driver) == std::mem::discriminant(&old.driver);
    let renamed = new.node_name.as_ref().is_some_and(|name| name != node.name());
    let other_image = match &new.driver {
        DriverOptions::Blkdebug(blkdebug) => match &blkdebug.image {
            NodeRef::Name(image) => node
                .child("image")
                .is_none_or(|child| child.node().name() != image),
            NodeRef::Options(_) => false,
        },
        _ => false,
    };
    let changed = new
        .given
        .iter()
        .filter(|(name, value)| !listed(may_change, name) && old.given.get(name) != Some(value));
    match changed
        .map(|(name, _)| name.as_str())
        .chain((!same_driver).then_some("driver"))
        .chain(renamed.then_some("node-name"))
        .chain(other_image.then_some("image"))
        .min_by_key(|name| place_in_table(name))
    {
        Some(name) => Err(cannot_change(name)),
        None => Ok(()),
    }
}

fn cannot_change(name: &str) -> BlockError {
    invalid(format!("Cannot change the option '{name}'"))
}

/// Of all that is said of an inline node the name that comes first in the table of options.
fn first_name(prefix: &str, inline: &NodeOptions) -> String {
    let mut names = vec![format!("{prefix}.driver")];
    let own = inline.own_now();
    for (name, given) in [
        ("node-name", inline.node_name.is_some()),
        ("read-only", own.read_only.is_some()),
        ("auto-read-only", own.auto_read_only.is_some()),
        ("discard", own.discard_unmap.is_some()),
        ("detect-zeroes", inline.detect_zeroes != DetectZeroes::Off),
        ("cache.direct", own.cache.direct.is_some()),
        ("cache.no-flush", own.cache.no_flush.is_some()),
    ] {
        if given {
            names.push(format!("{prefix}.{name}"));
        }
    }
    names.extend(inline.given.iter().map(|(name, _)| format!("{prefix}.{name}")));
    let mut children = references(&inline.driver);
    if let DriverOptions::Qcow2(qcow2) = &inline.driver
        && let BackingRef::Node(backing) = &qcow2.backing
    {
        children.push(("backing", backing));
    }
    for (name, child) in children {
        let name = format!("{prefix}.{name}");
        names.push(match child {
            NodeRef::Name(_) => name,
            NodeRef::Options(inline) => first_name(&name, inline),
        });
    }
    names
        .into_iter()
        .min_by_key(|name| place_in_table(name))
        .unwrap_or_default()
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
