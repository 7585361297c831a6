//! Changes of edges, with the permissions that follow from them.
//!
//! A change is made, the permissions of everything below it are worked out, conflicts and drivers are asked, and only
//! then is it final; otherwise all of it is taken back. All of that happens under the topology lock, without waiting.

use std::sync::Arc;

use super::backend::Backend;
use super::child::{Child, Parent};
use super::perm::{ChildRole, Needs, Perm};
use super::{Graph, Node};
use crate::error::{BlockError, ErrorKind, Result};
use crate::sync::lock;

impl Graph {
    pub(super) fn attach_root(
        self: &Arc<Self>,
        node: &Arc<Node>,
        child_name: &str,
        perm: Perm,
        shared: Perm,
        make: impl FnOnce(Arc<Child>) -> Arc<Backend>,
    ) -> Result<Arc<Backend>> {
        let topology = lock(&self.topology);
        let child = Child::new(child_name, ChildRole::Root, node);
        child.set_permissions(perm, shared);
        let backend = make(Arc::clone(&child));
        child.set_parent(Parent::Backend(Arc::downgrade(&backend)));
        if let Err(error) = refresh(std::slice::from_ref(node)) {
            node.remove_parent(&child);
            drop(topology);
            backend.mark_detached();
            return Err(error);
        }
        self.join_drains(&backend);
        Ok(backend)
    }

    pub(super) fn set_root_permissions(&self, child: &Arc<Child>, perm: Perm, shared: Perm) -> Result<()> {
        let _topology = lock(&self.topology);
        let old = (child.perm(), child.shared());
        child.set_permissions(perm, shared);
        refresh(&[child.node()]).inspect_err(|_| child.set_permissions(old.0, old.1))
    }

    /// Takes a root edge away; gives the node it led to.
    pub(super) fn detach_root(&self, child: &Arc<Child>) -> Arc<Node> {
        let node = child.node();
        self.detach_edge(child);
        node
    }

    pub(super) fn detach_edge(&self, child: &Arc<Child>) {
        let _topology = lock(&self.topology);
        let node = child.node();
        node.remove_parent(child);
        child.set_parent(Parent::None);
        // Less is needed now than before, so that nothing can conflict; a lock that cannot be given up stays held.
        if let Err(error) = refresh(std::slice::from_ref(&node)) {
            tracing::warn!(node = %node.name(), %error, "permissions could not be reduced");
        }
    }

    /// Lets the users of `from` use `to`, except edges of `to` itself and of nodes below `to`.
    pub(super) fn repoint_parents(&self, from: &Arc<Node>, to: &Arc<Node>) -> Result<()> {
        let _topology = lock(&self.topology);
        let mut below = Vec::new();
        collect_below(to, &mut below);
        let moved: Vec<Arc<Child>> = from
            .parents()
            .into_iter()
            .filter(|edge| match edge.parent() {
                Parent::Node(parent) => parent
                    .upgrade()
                    .is_none_or(|parent| !below.iter().any(|node| Arc::ptr_eq(node, &parent))),
                Parent::Backend(_) | Parent::Opening(_) | Parent::None => true,
            })
            .collect();
        for edge in &moved {
            edge.repoint(to);
        }
        refresh(&[Arc::clone(from), Arc::clone(to)]).inspect_err(|_| {
            for edge in &moved {
                edge.repoint(from);
            }
        })
    }

    /// Gives `overlay` the backing node `base`.
    pub(super) fn attach_backing(&self, overlay: &Arc<Node>, base: &Arc<Node>) -> Result<()> {
        let _topology = lock(&self.topology);
        let old = exchange_backing(overlay, Some(base))?;
        let result = refresh(std::slice::from_ref(overlay));
        if result.is_err() {
            exchange_backing(overlay, old.as_ref())?;
        }
        result
    }

    pub(super) fn detach_backing(&self, overlay: &Arc<Node>) {
        let _topology = lock(&self.topology);
        match exchange_backing(overlay, None) {
            // Less is needed now than before; a lock that cannot be given up stays held.
            Ok(Some(old)) => {
                if let Err(error) = refresh(std::slice::from_ref(&old)) {
                    tracing::warn!(node = %old.name(), %error, "permissions could not be reduced");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(node = %overlay.name(), %error, "the backing node stays"),
        }
    }

    /// Gives the edge of a node that is being opened its permissions.
    pub(super) fn claim(&self, child: &Arc<Child>, parent: Parent, perm: Perm, shared: Perm) -> Result<()> {
        let _topology = lock(&self.topology);
        let node = child.node();
        child.set_parent(parent);
        child.set_permissions(perm, if node.forces_share() { Perm::ALL } else { shared });
        refresh(std::slice::from_ref(&node)).inspect_err(|_| child.set_permissions(Perm::NONE, Perm::ALL))
    }

    /// Works out the permissions of a node that was just made, and below it.
    pub(super) fn refresh_new(&self, node: &Arc<Node>) -> Result<()> {
        refresh(std::slice::from_ref(node))
    }
}

/// Exchanges the backing node of `overlay` and gives the one before. Permissions are the caller's to work out, who
/// holds the topology lock.
pub(super) fn exchange_backing(overlay: &Arc<Node>, base: Option<&Arc<Node>>) -> Result<Option<Arc<Node>>> {
    let child = match base {
        Some(base) => {
            check_cycle(base, "backing", overlay)?;
            let child = Child::new("backing", ChildRole::Backing, base);
            child.set_parent(Parent::Node(Arc::downgrade(overlay)));
            Some(child)
        }
        None => None,
    };
    if let Err(error) = overlay.driver().change_child("backing", child.clone()) {
        if let Some(child) = child {
            child.node().remove_parent(&child);
        }
        return Err(error);
    }
    let old = overlay.set_child("backing", child);
    Ok(old.map(|old| {
        let node = old.node();
        node.remove_parent(&old);
        old.set_parent(Parent::None);
        node
    }))
}

/// Refuses to make `below` a child of `parent` when it is above it already.
pub(super) fn check_cycle(below: &Arc<Node>, name: &str, parent: &Arc<Node>) -> Result<()> {
    let mut seen = Vec::new();
    collect_below(below, &mut seen);
    if seen.iter().any(|node| Arc::ptr_eq(node, parent)) {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            format!(
                "Making '{}' a {name} child of '{}' would create a cycle",
                below.name(),
                parent.name()
            ),
        ));
    }
    Ok(())
}

/// The nodes below `node`, itself included.
pub(super) fn collect_below(node: &Arc<Node>, seen: &mut Vec<Arc<Node>>) {
    if seen.iter().any(|other| Arc::ptr_eq(other, node)) {
        return;
    }
    seen.push(Arc::clone(node));
    for child in node.children() {
        collect_below(&child.node(), seen);
    }
}

/// Parents before children.
fn order(node: &Arc<Node>, done: &mut Vec<Arc<Node>>) {
    if done.iter().any(|other| Arc::ptr_eq(other, node)) {
        return;
    }
    for child in node.children() {
        order(&child.node(), done);
    }
    done.push(Arc::clone(node));
}

/// Works out what every node from `start` downwards needs of its children, and checks it.
pub(super) fn refresh(start: &[Arc<Node>]) -> Result<()> {
    work_out(start, &|node| node.is_writable(), true)
}

/// Whether the permissions would fit if nodes were writable as `writable` says. Nothing is changed.
pub(super) fn check(start: &[Arc<Node>], writable: &dyn Fn(&Arc<Node>) -> bool) -> Result<()> {
    work_out(start, writable, false)
}

fn work_out(start: &[Arc<Node>], writable: &dyn Fn(&Arc<Node>) -> bool, keep: bool) -> Result<()> {
    let mut nodes = Vec::new();
    for node in start {
        order(node, &mut nodes);
    }
    nodes.reverse();
    let mut undo: Vec<(Arc<Child>, Perm, Perm)> = Vec::new();
    let mut prepared: Vec<Arc<Node>> = Vec::new();
    let result = nodes.iter().try_for_each(|node| {
        check_conflicts(node)?;
        let (perm, shared) = node.cumulative_permissions();
        let writable = writable(node);
        if perm.intersects(Perm::WRITE | Perm::WRITE_UNCHANGED) && !writable {
            let text = if node.is_read_only() {
                "Block node is read-only".to_owned()
            } else {
                format!(
                    "Read-only block node '{}' cannot support read-write users",
                    node.name()
                )
            };
            return Err(BlockError::new(ErrorKind::ReadOnly, text));
        }
        if perm.intersects(Perm::WRITE | Perm::WRITE_UNCHANGED)
            && !perm.contains(Perm::RESIZE)
            && !node.is_length_aligned()
        {
            // Its last request would be rounded up to beyond the end.
            return Err(BlockError::new(
                ErrorKind::Permission,
                "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
            ));
        }
        let needs = Needs {
            writable,
            has_parents: !node.parents().is_empty(),
            perm,
            shared,
        };
        for child in node.children() {
            let (perm, shared) = node
                .driver()
                .child_permissions(child.name(), child.role(), &needs);
            // Who skips the locks shares everything.
            let shared = if child.node().forces_share() {
                Perm::ALL
            } else {
                shared
            };
            undo.push((Arc::clone(&child), child.perm(), child.shared()));
            child.set_permissions(perm, shared);
        }
        Ok(())
    });
    let result = result.and_then(|()| {
        nodes.iter().try_for_each(|node| {
            let (perm, shared) = node.cumulative_permissions();
            node.driver().prepare_permissions(perm, shared)?;
            prepared.push(Arc::clone(node));
            Ok(())
        })
    });
    if result.is_err() || !keep {
        for node in prepared.iter().rev() {
            node.driver().abort_permissions();
        }
        for (child, perm, shared) in undo.into_iter().rev() {
            child.set_permissions(perm, shared);
        }
    } else {
        for node in &prepared {
            node.driver().commit_permissions();
        }
    }
    result
}

/// Whether any two parents of the node disagree; the newest parents are looked at first.
fn check_conflicts(node: &Arc<Node>) -> Result<()> {
    let mut parents = node.parents();
    parents.reverse();
    for strict in &parents {
        for wanting in &parents {
            if Arc::ptr_eq(strict, wanting) {
                continue;
            }
            let conflict = wanting.perm() & !strict.shared();
            if !conflict.is_empty() {
                return Err(BlockError::new(
                    ErrorKind::Permission,
                    format!(
                        "Permission conflict on node '{name}': permissions '{conflict}' are both required by {wants} \
                         (uses node '{name}' as '{wants_as}' child) and unshared by {refuses} (uses node '{name}' as \
                         '{refuses_as}' child).",
                        name = node.name(),
                        wants = describe(wanting),
                        wants_as = wanting.name(),
                        refuses = describe(strict),
                        refuses_as = strict.name(),
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn describe(edge: &Arc<Child>) -> String {
    match edge.parent() {
        Parent::Node(node) => match node.upgrade() {
            Some(node) => format!("node '{}'", node.name()),
            None => "a new node".to_owned(),
        },
        Parent::Opening(name) => format!("node '{name}'"),
        Parent::Backend(backend) => match backend.upgrade() {
            Some(backend) => backend.user().description.clone(),
            None => "an unnamed block device".to_owned(),
        },
        Parent::None => "a new node".to_owned(),
    }
}
