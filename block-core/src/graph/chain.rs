//! Backing chains: what a guest sees where a layer holds nothing itself.

use std::sync::Arc;

use super::{ChildRole, Node};
use crate::driver::BlockStatus;
use crate::error::Result;

impl Node {
    /// The backing node.
    pub fn backing(&self) -> Option<Arc<Node>> {
        self.children()
            .iter()
            .find(|child| child.role() == ChildRole::Backing)
            .map(|child| child.node())
    }

    /// The node whose content shows where this one holds nothing: the backing node, or the one a filter filters.
    pub fn below(&self) -> Option<Arc<Node>> {
        self.backing().or_else(|| {
            if self.driver().is_filter() {
                self.children()
                    .iter()
                    .find(|child| child.role() == ChildRole::Filtered)
                    .map(|child| child.node())
            } else {
                None
            }
        })
    }

    /// As [`block_status`](Node::block_status), looking through layers that hold nothing, down to `base` (which is not
    /// looked at any more). Without a layer that holds the range it is no data.
    pub async fn status_above(
        self: &Arc<Self>,
        base: Option<&Arc<Node>>,
        offset: u64,
        len: u64,
    ) -> Result<BlockStatus> {
        let (status, _) = self.status_with_depth(base, offset, len).await?;
        Ok(status)
    }

    /// How deep the layer lies that holds what is at `offset` (1 is this node, 0 is none), and for how many bytes.
    pub async fn allocation_depth(self: &Arc<Self>, offset: u64, len: u64) -> Result<(u32, u64)> {
        let (status, depth) = self.status_with_depth(None, offset, len).await?;
        Ok((if status.allocated { depth } else { 0 }, status.len))
    }

    async fn status_with_depth(
        self: &Arc<Self>,
        base: Option<&Arc<Node>>,
        offset: u64,
        len: u64,
    ) -> Result<(BlockStatus, u32)> {
        let mut node = Arc::clone(self);
        let mut len = len.min(self.length().saturating_sub(offset));
        let mut depth = 0;
        // Bytes that lie below a filter may not be fetched past it: it may limit, refuse or watch what is read.
        let mut filtered = false;
        loop {
            if base.is_some_and(|base| Arc::ptr_eq(base, &node)) {
                return Ok((
                    BlockStatus {
                        len,
                        ..BlockStatus::default()
                    },
                    depth,
                ));
            }
            let length = node.length();
            if offset >= length {
                // A backing node that is too short reads as zeroes, allocated in the layer that is longer than it.
                return Ok((
                    BlockStatus {
                        len,
                        allocated: true,
                        zero: true,
                        ..BlockStatus::default()
                    },
                    depth,
                ));
            }
            let below = node.below();
            let filter = node.driver().is_filter();
            if !filter {
                depth += 1;
                let status = node.block_status(offset, len, true).await?;
                len = status.len.min(len);
                if status.allocated || status.zero || status.data {
                    let host = status.host.filter(|_| !filtered);
                    return Ok((BlockStatus { len, host, ..status }, depth));
                }
            } else {
                filtered = true;
                if node.driver().watches_status() {
                    // Only whether it fails counts: what lies there is for the nodes below to tell.
                    node.block_status(offset, len, false).await?;
                }
            }
            len = len.min(length - offset);
            match below {
                Some(below) => node = below,
                None => {
                    // A format with nothing below says itself that what it does not hold is zero.
                    return Ok((
                        BlockStatus {
                            len,
                            ..BlockStatus::default()
                        },
                        depth,
                    ));
                }
            }
        }
    }
}
