//! Op blockers: operations that a node refuses while something uses it.

use std::sync::{Arc, Mutex, Weak};

use super::Node;
use crate::error::{BlockError, ErrorKind, Result};
use crate::sync::lock;

/// Operations that can be blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Source of a backup.
    BackupSource,
    /// Target of a backup.
    BackupTarget,
    /// Source of a commit.
    CommitSource,
    /// Target of a commit.
    CommitTarget,
    /// Removal by its user.
    DriveDel,
    /// Change of the medium.
    Eject,
    /// External snapshot.
    ExternalSnapshot,
    /// Internal snapshot.
    InternalSnapshot,
    /// Deletion of an internal snapshot.
    InternalSnapshotDelete,
    /// Source of a mirror.
    MirrorSource,
    /// Target of a mirror.
    MirrorTarget,
    /// Change of length.
    Resize,
    /// Stream.
    Stream,
    /// Replacement in the graph.
    Replace,
}

#[derive(Debug, Default)]
pub(super) struct Blockers {
    list: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    reason: Arc<str>,
    /// Operations that stay allowed.
    allowed: Vec<OpKind>,
}

impl Blockers {
    pub(super) fn check(&self, node_name: &str, op: OpKind) -> Result<()> {
        match lock(&self.list)
            .iter()
            .rev()
            .find(|entry| !entry.allowed.contains(&op))
        {
            None => Ok(()),
            Some(entry) => Err(BlockError::new(
                ErrorKind::Busy,
                format!("Node '{node_name}' is busy: {}", entry.reason),
            )),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.list).is_empty()
    }

    pub(super) fn add(&self, reason: &str, allowed: &[OpKind]) -> u64 {
        let mut list = lock(&self.list);
        let id = list.iter().map(|entry| entry.id).max().map_or(0, |id| id + 1);
        list.push(Entry {
            id,
            reason: reason.into(),
            allowed: allowed.to_vec(),
        });
        id
    }

    fn remove(&self, id: u64) {
        lock(&self.list).retain(|entry| entry.id != id);
    }
}

/// While it lives, its node refuses operations.
#[must_use = "the operations are allowed again when it is dropped"]
#[derive(Debug)]
pub struct OpBlockGuard {
    pub(super) node: Weak<Node>,
    pub(super) id: u64,
}

impl Drop for OpBlockGuard {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.blockers.remove(self.id);
        }
    }
}
