//! `x-debug-query-block-graph`: the whole graph with its permissions.

use std::collections::HashMap;
use std::sync::Arc;

use block_core::graph::{Child, Node, Parent, Perm};
use schema::{
    BlockPermission, XDbgBlockGraph, XDbgBlockGraphEdge, XDbgBlockGraphNode, XDbgBlockGraphNodeType,
};

use crate::daemon::Daemon;

/// What is shown, while it is put together. Numbers are given at first sight; both lists are shown newest first.
#[derive(Default)]
struct Picture {
    numbers: HashMap<Key, u64>,
    nodes: Vec<XDbgBlockGraphNode>,
    edges: Vec<XDbgBlockGraphEdge>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Node(*const Node),
    Export(u64),
    Job(String),
}

impl Picture {
    fn number(&mut self, key: Key) -> u64 {
        let next = u64::try_from(self.numbers.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        *self.numbers.entry(key).or_insert(next)
    }

    fn node(&mut self, key: Key, kind: XDbgBlockGraphNodeType, name: &str) {
        let id = self.number(key);
        self.nodes.push(XDbgBlockGraphNode {
            id,
            r#type: kind,
            name: name.to_owned(),
        });
    }

    fn edge(&mut self, parent: Key, edge: &Child) {
        let parent = self.number(parent);
        let child = self.number(Key::Node(Arc::as_ptr(&edge.node())));
        self.edges.push(XDbgBlockGraphEdge {
            parent,
            child,
            name: edge.name().to_owned(),
            perm: permissions(edge.perm()),
            shared_perm: permissions(edge.shared()),
        });
    }
}

pub(super) fn query(daemon: &Daemon) -> XDbgBlockGraph {
    let nodes = daemon.graph.nodes();
    let mut picture = Picture::default();
    // Users of nodes: exports, which have no name, and jobs.
    let mut users: Vec<(String, Arc<Child>)> = Vec::new();
    for edge in nodes.iter().flat_map(|node| node.parents()) {
        if let Parent::Backend(backend) = edge.parent()
            && let Some(backend) = backend.upgrade()
        {
            users.push((backend.user().name.clone(), edge));
        }
    }
    users.sort_by_key(|(_, edge)| edge.sequence());
    for (_, edge) in users.iter().filter(|(job, _)| job.is_empty()) {
        picture.node(
            Key::Export(edge.sequence()),
            XDbgBlockGraphNodeType::BlockBackend,
            "",
        );
        picture.edge(Key::Export(edge.sequence()), edge);
    }
    let mut jobs: Vec<&String> = Vec::new();
    for (job, _) in users.iter().filter(|(job, _)| !job.is_empty()) {
        if !jobs.contains(&job) {
            jobs.push(job);
        }
    }
    // Newest job first, as everywhere.
    for job in jobs.into_iter().rev() {
        picture.node(Key::Job(job.clone()), XDbgBlockGraphNodeType::BlockJob, job);
        for (_, edge) in users.iter().filter(|(other, _)| other == job) {
            picture.edge(Key::Job(job.clone()), edge);
        }
    }
    for node in &nodes {
        picture.node(
            Key::Node(Arc::as_ptr(node)),
            XDbgBlockGraphNodeType::BlockDriver,
            node.name().as_str(),
        );
        // The edge that was made last comes first.
        for edge in node.children().iter().rev() {
            picture.edge(Key::Node(Arc::as_ptr(node)), edge);
        }
    }
    let Picture {
        mut nodes, mut edges, ..
    } = picture;
    nodes.reverse();
    edges.reverse();
    XDbgBlockGraph { nodes, edges }
}

fn permissions(perm: Perm) -> Vec<BlockPermission> {
    [
        (Perm::RESIZE, BlockPermission::Resize),
        (Perm::WRITE_UNCHANGED, BlockPermission::WriteUnchanged),
        (Perm::WRITE, BlockPermission::Write),
        (Perm::CONSISTENT_READ, BlockPermission::ConsistentRead),
    ]
    .into_iter()
    .filter(|(bit, _)| perm.contains(*bit))
    .map(|(_, name)| name)
    .collect()
}
