//! `x-debug-query-block-graph`: the whole graph with its permissions.

use std::collections::HashMap;

use block_core::graph::{Parent, Perm};
use schema::{
    BlockPermission, XDbgBlockGraph, XDbgBlockGraphEdge, XDbgBlockGraphNode, XDbgBlockGraphNodeType,
};

use crate::daemon::Daemon;

pub(super) fn query(daemon: &Daemon) -> XDbgBlockGraph {
    let nodes = daemon.graph.nodes();
    let mut numbers: HashMap<*const (), u64> = HashMap::new();
    let mut shown = Vec::new();
    let mut edges = Vec::new();
    let mut number = |address: *const (), kind, name: &str, shown: &mut Vec<XDbgBlockGraphNode>| {
        let next = u64::try_from(numbers.len()).unwrap_or(u64::MAX).saturating_add(1);
        *numbers.entry(address).or_insert_with(|| {
            shown.push(XDbgBlockGraphNode {
                id: next,
                r#type: kind,
                name: name.to_owned(),
            });
            next
        })
    };
    for node in &nodes {
        let child = number(
            std::sync::Arc::as_ptr(node).cast(),
            XDbgBlockGraphNodeType::BlockDriver,
            node.name().as_str(),
            &mut shown,
        );
        for edge in node.parents() {
            let parent = match edge.parent() {
                Parent::Node(parent) => match parent.upgrade() {
                    Some(parent) => number(
                        std::sync::Arc::as_ptr(&parent).cast(),
                        XDbgBlockGraphNodeType::BlockDriver,
                        parent.name().as_str(),
                        &mut shown,
                    ),
                    None => continue,
                },
                // Users of nodes have no name of their own; each edge of theirs is one user.
                _ => number(
                    std::sync::Arc::as_ptr(&edge).cast(),
                    XDbgBlockGraphNodeType::BlockBackend,
                    "",
                    &mut shown,
                ),
            };
            edges.push(XDbgBlockGraphEdge {
                parent,
                child,
                name: edge.name().to_owned(),
                perm: permissions(edge.perm()),
                shared_perm: permissions(edge.shared()),
            });
        }
    }
    XDbgBlockGraph { nodes: shown, edges }
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
