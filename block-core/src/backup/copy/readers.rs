//! Readers of the point in time that a copy keeps: where each part of it lies, and keeping guest writes from what is
//! read from the source.

use std::sync::Arc;

use super::{BLOCK_BYTES, BlockCopy, overlaps};
use crate::sync::lock;

impl BlockCopy {
    /// Where a part of the point in time lies. The guard, if any, keeps guest writes from the source's part while it
    /// lives. The length is at most `len`.
    pub async fn locate(self: &Arc<Self>, offset: u64, len: u64) -> Located {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            {
                let mut sets = lock(&self.sets);
                let cluster = offset / self.cluster;
                let last = offset.saturating_add(len).div_ceil(self.cluster);
                if sets
                    .in_flight
                    .iter()
                    .any(|range| overlaps(*range, (cluster, cluster + 1)))
                {
                    // On its way to the target: soon there.
                } else if sets.copied.get(cluster) {
                    let stop = sets.copied.next_clear(cluster, last).unwrap_or(last);
                    let end = (stop * self.cluster).min(offset + len);
                    return Located::Target(end - offset);
                } else if let Some(saved) = sets.saved.get(&cluster) {
                    // Up to where the next block is of the other kind, or the cluster ends.
                    let limit = ((cluster + 1) * self.cluster).min(offset + len);
                    let is_saved = |at: u64| saved & self.blocks_in(cluster, at, at + 1) != 0;
                    let here = is_saved(offset);
                    let mut end = offset;
                    while end < limit && is_saved(end) == here {
                        end = ((end / BLOCK_BYTES + 1) * BLOCK_BYTES).min(limit);
                    }
                    if here {
                        return Located::Target(end - offset);
                    }
                    sets.readers.push((offset, end));
                    let guard = ReadGuard {
                        copy: Arc::clone(self),
                        range: (offset, end),
                    };
                    return Located::Source(end - offset, guard);
                } else {
                    let mut stop = sets.copied.next_set(cluster, last).unwrap_or(last);
                    if let Some((first, _)) = sets.saved.range(cluster..stop).next() {
                        stop = *first;
                    }
                    for range in &sets.in_flight {
                        if range.0 > cluster {
                            stop = stop.min(range.0);
                        }
                    }
                    let end = (stop * self.cluster).min(offset + len);
                    sets.readers.push((offset, end));
                    let guard = ReadGuard {
                        copy: Arc::clone(self),
                        range: (offset, end),
                    };
                    return Located::Source(end - offset, guard);
                }
            }
            changed.await;
        }
    }

    /// Nobody will ask for these clusters of the point in time again: they do not have to be copied.
    pub fn forget(&self, first: u64, last: u64) {
        lock(&self.sets).dirty.clear(first, last);
    }
}

/// Where a part of the point in time lies.
#[derive(Debug)]
pub enum Located {
    /// In the target; so many bytes.
    Target(u64),
    /// In the source still; so many bytes, unchanged while the guard lives.
    Source(u64, ReadGuard),
}

/// Keeps guest writes away from a range that is being read from the source.
#[derive(Debug)]
pub struct ReadGuard {
    copy: Arc<BlockCopy>,
    range: (u64, u64),
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let mut sets = lock(&self.copy.sets);
        if let Some(at) = sets.readers.iter().position(|range| *range == self.range) {
            sets.readers.swap_remove(at);
        }
        drop(sets);
        self.copy.changed.notify_waiters();
    }
}
