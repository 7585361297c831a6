//! Metadata contexts: what BLOCK_STATUS can tell of an export.

use std::sync::Arc;

use super::export::Export;
use super::proto::{Request, command_flag, state};
use crate::bitmap::BitmapHold;
use crate::error::Result;
use crate::graph::Node;

/// One context of an export.
#[derive(Debug, Clone)]
pub enum Context {
    /// `base:allocation`.
    Allocation,
    /// `qemu:allocation-depth`.
    AllocationDepth,
    /// `qemu:dirty-bitmap:NAME`; the index of the bitmap in the export.
    DirtyBitmap(usize),
}

/// Extents of one reply are limited, so that a fragmented disk cannot make us build an unbounded one.
const MAX_EXTENTS: usize = 16 << 10;

impl Context {
    /// Its id on the wire.
    pub fn id(&self) -> u32 {
        match self {
            Self::Allocation => 0,
            Self::AllocationDepth => 1,
            Self::DirtyBitmap(index) => u32::try_from(*index).unwrap_or(u32::MAX - 2).saturating_add(2),
        }
    }

    /// Its name on the wire.
    pub fn name(&self, export: &Export) -> String {
        match self {
            Self::Allocation => "base:allocation".to_owned(),
            Self::AllocationDepth => "qemu:allocation-depth".to_owned(),
            Self::DirtyBitmap(index) => {
                let name = export.bitmaps().get(*index).map_or("", |(name, _)| name.as_str());
                format!("qemu:dirty-bitmap:{name}")
            }
        }
    }

    /// All contexts of an export, in the order in which they are listed.
    pub fn all(export: &Export) -> Vec<Self> {
        let mut all = vec![Self::Allocation];
        if export.has_allocation_depth() {
            all.push(Self::AllocationDepth);
        }
        all.extend((0..export.bitmaps().len()).map(Self::DirtyBitmap));
        all
    }

    /// Whether a query names this context. `listing` lets a query end after a namespace and give all in it.
    pub fn matches(&self, export: &Export, query: &[u8], listing: bool) -> bool {
        if self.name(export).as_bytes() == query {
            return true;
        }
        listing
            && match self {
                Self::Allocation => query == b"base:",
                Self::AllocationDepth => query == b"qemu:",
                Self::DirtyBitmap(_) => query == b"qemu:" || query == b"qemu:dirty-bitmap:",
            }
    }

    /// The extents of a request: lengths with flags, from the request's offset on. Covers at least one byte and at most
    /// what was asked, but the last extent may be longer than the request where that is known (not done here).
    pub async fn extents(&self, export: &Export, request: &Request) -> Result<Vec<(u64, u32)>> {
        let end = request.offset + request.len;
        let limit = if request.has(command_flag::REQ_ONE) {
            1
        } else {
            MAX_EXTENTS
        };
        let mut extents: Vec<(u64, u32)> = Vec::new();
        let mut offset = request.offset;
        if let Self::DirtyBitmap(index) = self {
            if let Some((_, hold)) = export.bitmaps().get(*index) {
                dirty_extents(hold, offset, end, limit, &mut extents);
            }
            return Ok(extents);
        }
        let node = export.backend().node();
        while offset < end {
            let (len, flags) = match self {
                Self::Allocation => allocation(&node, offset, end - offset).await?,
                Self::AllocationDepth => depth(&node, offset, end - offset).await?,
                Self::DirtyBitmap(_) => break,
            };
            let full = extents.len() == limit;
            match extents.last_mut() {
                Some(last) if last.1 == flags => last.0 += len,
                _ if full => break,
                _ => extents.push((len, flags)),
            }
            offset += len;
        }
        Ok(extents)
    }
}

async fn allocation(node: &Arc<Node>, offset: u64, len: u64) -> Result<(u64, u32)> {
    let status = node.status_above(None, offset, len).await?;
    let hole = if status.data { 0 } else { state::HOLE };
    let zero = if status.zero { state::ZERO } else { 0 };
    Ok((status.len.clamp(1, len), hole | zero))
}

async fn depth(node: &Arc<Node>, offset: u64, len: u64) -> Result<(u64, u32)> {
    let (depth, len) = node.allocation_depth(offset, len).await?;
    Ok((len, depth))
}

fn dirty_extents(hold: &BitmapHold, mut offset: u64, end: u64, limit: usize, extents: &mut Vec<(u64, u32)>) {
    while offset < end && extents.len() < limit {
        match hold.bitmap().next_dirty(offset, end, end - offset) {
            Some((start, len)) if start > offset => {
                extents.push((start - offset, 0));
                if extents.len() == limit {
                    return;
                }
                extents.push((len, state::DIRTY));
                offset = start + len;
            }
            Some((_, len)) => {
                extents.push((len, state::DIRTY));
                offset += len;
            }
            None => {
                extents.push((end - offset, 0));
                return;
            }
        }
    }
}
