//! Drain: no request of the users above some nodes is in flight, and none starts, while a guard lives.
//!
//! Only the roots above the drained nodes wait. Requests that are inside the graph run to their end, whatever nodes
//! they touch, so that layers in the middle never wait for each other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use super::child::Parent;
use super::{Backend, Graph, Node};
use crate::sync::lock;

/// One drain in force.
pub(super) struct Drain {
    id: u64,
    /// By address, which is no other node's while a weak handle lives.
    nodes: HashMap<usize, Weak<Node>>,
    backends: Vec<Weak<Backend>>,
}

/// Ends its drain when dropped.
#[must_use = "the drain ends when the guard is dropped"]
pub struct DrainGuard {
    graph: Arc<Graph>,
    id: u64,
}

impl std::fmt::Debug for DrainGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrainGuard")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        let drain = {
            let mut drains = lock(&self.graph.drains);
            match drains.iter().position(|drain| drain.id == self.id) {
                Some(at) => drains.remove(at),
                None => return,
            }
        };
        for node in drain.nodes.values().filter_map(Weak::upgrade) {
            node.driver().drain_end();
        }
        for backend in drain.backends.iter().filter_map(Weak::upgrade) {
            backend.end_drain();
        }
    }
}

impl Graph {
    /// Quiesces the users above these nodes and waits for their requests in flight.
    pub async fn drain(self: &Arc<Self>, nodes: &[Arc<Node>]) -> DrainGuard {
        let (backends, guard) = {
            // Edges must not move while the roots are collected.
            let _topology = lock(&self.topology);
            let mut drains = lock(&self.drains);
            let mut above = Above::default();
            for node in nodes {
                above.collect(node);
            }
            for backend in &above.backends {
                backend.begin_drain();
            }
            for node in above.nodes.values() {
                node.driver().drain_begin();
            }
            let id = drains.iter().map(|drain| drain.id).max().map_or(0, |id| id + 1);
            drains.push(Drain {
                id,
                nodes: above
                    .nodes
                    .iter()
                    .map(|(address, node)| (*address, Arc::downgrade(node)))
                    .collect(),
                backends: above.backends.iter().map(Arc::downgrade).collect(),
            });
            (
                above.backends,
                DrainGuard {
                    graph: Arc::clone(self),
                    id,
                },
            )
        };
        for backend in &backends {
            backend.wait_drained().await;
        }
        guard
    }

    /// The program ends: limits of throughput hold nothing up any more, also what waits for them already.
    pub fn lift_limits(&self) {
        for node in self.nodes() {
            // Never ended, so that it is as in a drain for good.
            node.driver().drain_begin();
        }
    }

    /// As [`drain`](Self::drain), for every node.
    pub async fn drain_all(self: &Arc<Self>) -> DrainGuard {
        let nodes = self.nodes();
        self.drain(&nodes).await
    }

    /// A new root above a node that is drained is held from its first request on.
    pub(super) fn join_drains(&self, backend: &Arc<Backend>) {
        let node = backend.node();
        for drain in lock(&self.drains).iter_mut() {
            if drain.nodes.contains_key(&address(&node)) {
                backend.begin_drain();
                drain.backends.push(Arc::downgrade(backend));
            }
        }
    }
}

fn address<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}

/// Some nodes, all nodes above them, and the roots above these.
#[derive(Default)]
struct Above {
    nodes: HashMap<usize, Arc<Node>>,
    backends: Vec<Arc<Backend>>,
    known: HashSet<usize>,
}

impl Above {
    fn collect(&mut self, node: &Arc<Node>) {
        if self.nodes.insert(address(node), Arc::clone(node)).is_some() {
            return;
        }
        for parent in node.parents() {
            match parent.parent() {
                Parent::Opening(_) | Parent::None => {}
                Parent::Node(above) => {
                    if let Some(above) = above.upgrade() {
                        self.collect(&above);
                    }
                }
                Parent::Backend(backend) => {
                    if let Some(backend) = backend.upgrade()
                        && self.known.insert(address(&backend))
                    {
                        self.backends.push(backend);
                    }
                }
            }
        }
    }
}
