//! Refcounts and the allocator of host clusters, as synchronous steps on [`Meta`].
//!
//! References are taken in memory at once and reach the disk before anything refers to the clusters; they are given
//! up only after nothing on disk refers to them any more (see [`super::writeback`]). So a crash may leak clusters and
//! never uses one twice.

use super::BlockError;
use super::bytes::to_u64;
use super::entry::{Compressed, OFFSET_MASK};
use super::header::MAX_REFTABLE_BYTES;
use super::meta::{Corruption, Free, Meta, Need, Step, beyond_limit};

/// Reads one refcount of a block. `order` is the log2 of its width in bits.
pub(super) fn get(block: &[u8], index: usize, order: u32) -> u64 {
    let byte = |at: usize| block.get(at).copied().map_or(0, u64::from);
    match order {
        0..=2 => {
            let width = 1usize << order;
            let per_byte = 8 / width;
            let shift = (index % per_byte) * width;
            (byte(index / per_byte) >> shift) & ((1 << width) - 1)
        }
        _ => {
            let bytes = 1usize << (order - 3);
            (0..bytes).fold(0, |value, nth| value << 8 | byte(index * bytes + nth))
        }
    }
}

/// Writes one refcount of a block; the value fits the width.
pub(super) fn set(block: &mut [u8], index: usize, order: u32, value: u64) {
    match order {
        0..=2 => {
            let width = 1usize << order;
            let per_byte = 8 / width;
            let shift = (index % per_byte) * width;
            let mask = (1u64 << width) - 1;
            if let Some(place) = block.get_mut(index / per_byte) {
                let rest = u64::from(*place) & !(mask << shift);
                *place = (rest | (value & mask) << shift).to_le_bytes()[0];
            }
        }
        _ => {
            let bytes = 1usize << (order - 3);
            let start = index * bytes;
            if let Some(place) = block.get_mut(start..start + bytes)
                && let Some(tail) = value.to_be_bytes().get(8 - bytes..)
            {
                place.copy_from_slice(tail);
            }
        }
    }
}

/// The first index from `start` on whose refcount is zero.
fn first_zero(block: &[u8], start: usize, entries: usize, order: u32) -> Option<usize> {
    (start..entries).find(|index| get(block, *index, order) == 0)
}

fn no_space() -> Need {
    Need::Fail(BlockError::from_errno(27, "File too large"))
}

impl Meta {
    fn block_entries(&self) -> u64 {
        1 << self.geometry.refblock_bits()
    }

    fn locate(&self, cluster: u64) -> (u64, usize) {
        let mask = self.block_entries() - 1;
        (
            cluster >> self.geometry.refblock_bits(),
            usize::try_from(cluster & mask).unwrap_or(0),
        )
    }

    /// Where a refcount block lies, if it exists.
    pub(super) fn refblock_offset(&self, block: u64) -> Step<Option<u64>> {
        let entry = usize::try_from(block)
            .ok()
            .and_then(|at| self.reftable.get(at))
            .copied()
            .unwrap_or(0);
        let host = entry & !0x1ff;
        if self.geometry.in_cluster(host) != 0 || host & !OFFSET_MASK != 0 {
            return Err(Need::Corrupt(Corruption {
                message: format!("Refblock offset {host:#x} unaligned (reftable index: {block:#x})"),
                place: None,
                fatal: true,
            }));
        }
        Ok((host != 0).then_some(host))
    }

    /// A cluster's refcount.
    pub(super) fn refcount(&mut self, cluster: u64) -> Step<u64> {
        let (block, index) = self.locate(cluster);
        if self.refblock_offset(block)?.is_none() {
            return Ok(0);
        }
        let order = self.geometry.refcount_order;
        match self.refblocks.get(block) {
            Some(bytes) => Ok(get(bytes, index, order)),
            None => Err(Need::Refblock(block)),
        }
    }

    /// Sets a refcount; the block exists.
    fn set_refcount(&mut self, cluster: u64, value: u64) -> Step<()> {
        let (block, index) = self.locate(cluster);
        let order = self.geometry.refcount_order;
        match self.refblocks.change(block) {
            Some(bytes) => {
                set(bytes, index, order, value);
                Ok(())
            }
            None => Err(Need::Refblock(block)),
        }
    }

    /// Gives up one reference; returns how many are left.
    pub(super) fn drop_reference(&mut self, cluster: u64) -> Step<u64> {
        let count = self.refcount(cluster)?;
        let Some(left) = count.checked_sub(1) else {
            return Err(Need::Corrupt(Corruption {
                message: format!("Refcount of cluster {cluster:#x} is zero, but it is in use"),
                place: Some((cluster << self.geometry.cluster_bits, self.geometry.cluster())),
                fatal: false,
            }));
        };
        self.set_refcount(cluster, left)?;
        if left == 0 {
            self.free_hint = self.free_hint.min(cluster);
            if self
                .compressed_tail
                .is_some_and(|tail| (tail - 1) >> self.geometry.cluster_bits == cluster)
            {
                self.compressed_tail = None;
            }
        }
        Ok(left)
    }

    fn mark_reftable(&mut self, block: u64) {
        let change = self.next_change();
        self.reftable_dirty.insert(block / 64, change);
    }

    fn set_reftable(&mut self, block: u64, host: u64) {
        if let Some(entry) = usize::try_from(block)
            .ok()
            .and_then(|at| self.reftable.get_mut(at))
        {
            *entry = host;
        }
        self.mark_reftable(block);
        self.mark_metadata(host, 1);
    }

    /// The first run of free clusters from `from` on: where, and its length up to `want`. Runs end with a refcount
    /// block unless `whole` asks for all of `want`.
    fn find_free(&mut self, from: u64, want: u64, whole: bool) -> Step<(u64, u64)> {
        let order = self.geometry.refcount_order;
        let entries = self.block_entries();
        let entries_len = usize::try_from(entries).unwrap_or(0);
        let (mut from, mut start, mut run) = (from, from, 0);
        loop {
            let at = start + run;
            if run >= want || (run > 0 && !whole && at & (entries - 1) == 0) {
                return Ok((start, run));
            }
            let (block, index) = self.locate(at);
            if self.refblock_offset(block)?.is_none() {
                run = (run + entries - to_u64(index)).min(want);
                continue;
            }
            let Some(bytes) = self.refblocks.get(block) else {
                return Err(Need::Refblock(block));
            };
            if run == 0 {
                match first_zero(bytes, index, entries_len, order) {
                    Some(free) => {
                        start = (block << self.geometry.refblock_bits()) + to_u64(free);
                        run = 1;
                    }
                    None => {
                        start = (block + 1) << self.geometry.refblock_bits();
                        if from == self.free_hint {
                            // All between is taken: a retry need not look at it again.
                            self.free_hint = start;
                            from = start;
                        }
                    }
                }
                continue;
            }
            if get(bytes, index, order) == 0 {
                run += 1;
            } else if whole {
                start = at + 1;
                run = 0;
            } else {
                return Ok((start, run));
            }
        }
    }

    /// Makes sure that the refcount blocks of these clusters exist and are at hand. True: they did all along.
    pub(super) fn have_blocks(&mut self, first: u64, count: u64) -> Step<bool> {
        let (from, to) = (self.locate(first).0, self.locate(first + count - 1).0);
        if to >= to_u64(self.reftable.len()) {
            self.grow_reftable(to + 1)?;
            return Ok(false);
        }
        for block in from..=to {
            if self.refblock_offset(block)?.is_none() {
                self.make_block(block)?;
                return Ok(false);
            }
        }
        for block in from..=to {
            if !self.refblocks.contains(block) {
                return Err(Need::Refblock(block));
            }
        }
        Ok(true)
    }

    /// Creates a refcount block, or the one that must come before it.
    fn make_block(&mut self, block: u64) -> Step<()> {
        let (cluster, _) = self.find_free(self.free_hint, 1, false)?;
        let bits = self.geometry.cluster_bits;
        let (home, index) = self.locate(cluster);
        if home >= to_u64(self.reftable.len()) {
            return self.grow_reftable(home + 1);
        }
        self.refuse_taken(cluster, 1)?;
        let empty = || vec![0u8; self.geometry.cluster_len()].into_boxed_slice();
        if self.refblock_offset(home)?.is_none() {
            // The block describes itself.
            let mut bytes = empty();
            set(&mut bytes, index, self.geometry.refcount_order, 1);
            self.refblocks.insert(home, bytes);
            self.refblocks.change(home);
            self.set_reftable(home, cluster << bits);
        } else {
            let bytes = empty();
            self.set_refcount(cluster, 1)?;
            self.refblocks.insert(block, bytes);
            self.refblocks.change(block);
            self.set_reftable(block, cluster << bits);
        }
        self.used(cluster, 1);
        Ok(())
    }

    /// Moves the refcount table to a larger place behind all that it covers now.
    fn grow_reftable(&mut self, entries: u64) -> Step<()> {
        let bits = self.geometry.cluster_bits;
        let per_block = self.block_entries();
        let old = to_u64(self.reftable.len());
        let start = entries.max(old) * per_block;
        let table_entries = |clusters: u64| clusters << (bits - 3);
        let mut clusters = (entries.max(old + old / 2) / (1 << (bits - 3))) + 1;
        let blocks = loop {
            let mut blocks = 0;
            // The blocks must cover themselves and the table.
            while blocks * per_block < clusters + blocks {
                blocks += 1;
            }
            if entries.max(old) + blocks <= table_entries(clusters) {
                break blocks;
            }
            clusters += 1;
        };
        if clusters << bits > MAX_REFTABLE_BYTES || beyond_limit(start << bits, (clusters + blocks) << bits) {
            return Err(no_space());
        }
        self.refuse_taken(start, clusters + blocks)?;
        let old_place = (
            self.header.reftable_offset >> bits,
            u64::from(self.header.reftable_clusters),
        );
        self.reftable.resize(
            usize::try_from(table_entries(clusters)).map_err(|_| no_space())?,
            0,
        );
        for nth in 0..blocks {
            let block = start / per_block + nth;
            let mut bytes = vec![0u8; self.geometry.cluster_len()].into_boxed_slice();
            let here = (clusters + blocks).saturating_sub(nth * per_block).min(per_block);
            for index in 0..usize::try_from(here).unwrap_or(0) {
                set(&mut bytes, index, self.geometry.refcount_order, 1);
            }
            self.refblocks.insert(block, bytes);
            self.refblocks.change(block);
            self.set_reftable(block, (start + clusters + nth) << bits);
        }
        self.header.reftable_offset = start << bits;
        self.header.reftable_clusters = u32::try_from(clusters).map_err(|_| no_space())?;
        self.mark_metadata(start << bits, clusters << bits);
        // Moved twice before a write-back: the place between is no longer described on disk, so it is just free.
        match self.reftable_moved {
            None => self.reftable_moved = Some(old_place),
            Some(_) => {
                let (first, count) = old_place;
                self.frees.push(Free {
                    first,
                    count,
                    reason: super::meta::FreeReason::Other,
                });
            }
        }
        self.fresh_from = self.fresh_from.max(start + clusters + blocks);
        Ok(())
    }

    fn refuse_taken(&self, first: u64, count: u64) -> Step<()> {
        let taken = (first..first + count).find(|cluster| self.metadata.contains(cluster));
        if let Some(cluster) = taken {
            let place = (cluster << self.geometry.cluster_bits, self.geometry.cluster());
            return Err(self.overlap(cluster, place));
        }
        Ok(())
    }

    /// Notes that clusters are in use now; tells whether they read as zeroes.
    fn used(&mut self, first: u64, count: u64) -> bool {
        let fresh = first >= self.fresh_from;
        self.fresh_from = self.fresh_from.max(first + count);
        if first == self.free_hint {
            self.free_hint = first + count;
        }
        fresh
    }

    /// Takes up to `want` adjoining clusters: the first, how many, and whether they read as zeroes.
    pub(super) fn take_run(&mut self, want: u64) -> Step<(u64, u64, bool)> {
        loop {
            let (first, count) = self.find_free(self.free_hint, want, false)?;
            if beyond_limit(
                first << self.geometry.cluster_bits,
                count << self.geometry.cluster_bits,
            ) {
                return Err(no_space());
            }
            if !self.have_blocks(first, count)? {
                continue;
            }
            self.refuse_taken(first, count)?;
            // All clusters below are taken: the next search starts here.
            self.free_hint = first;
            for cluster in first..first + count {
                self.set_refcount(cluster, 1)?;
            }
            return Ok((first, count, self.used(first, count)));
        }
    }

    /// Takes exactly `want` adjoining clusters. `cursor` keeps the place of the search over retries; it starts as 0.
    pub(super) fn take_exact(&mut self, want: u64, cursor: &mut u64) -> Step<(u64, bool)> {
        if *cursor == 0 {
            *cursor = self.free_hint;
            if want > self.block_entries() {
                // A run over many blocks: behind the last block all is free.
                let last = self
                    .reftable
                    .iter()
                    .rposition(|entry| *entry != 0)
                    .map_or(0, |at| to_u64(at) + 1);
                *cursor = last * self.block_entries();
            }
        }
        loop {
            let (first, count) = self.find_free((*cursor).max(self.free_hint), want, true)?;
            debug_assert_eq!(count, want);
            *cursor = first;
            if beyond_limit(
                first << self.geometry.cluster_bits,
                count << self.geometry.cluster_bits,
            ) {
                return Err(no_space());
            }
            if !self.have_blocks(first, count)? {
                continue;
            }
            self.refuse_taken(first, count)?;
            for cluster in first..first + count {
                self.set_refcount(cluster, 1)?;
            }
            return Ok((first, self.used(first, count)));
        }
    }

    /// Takes `bytes` for a compressed cluster, beside others where there is room.
    pub(super) fn take_bytes(&mut self, bytes: u64) -> Step<Compressed> {
        let geometry = self.geometry;
        let cluster = geometry.cluster();
        if let Some(tail) = self.compressed_tail {
            let home = tail >> geometry.cluster_bits;
            let room = cluster - geometry.in_cluster(tail);
            let count = self.refcount(home)?;
            let shareable = count > 0 && count < geometry.refcount_max();
            if shareable && bytes <= room {
                self.set_refcount(home, count + 1)?;
                return self.taken_bytes(tail, bytes);
            }
            if shareable {
                // Into the next cluster as well, if that is free.
                let (next, got) = self.find_free(self.free_hint, 1, false)?;
                if got == 1 && next == home + 1 && self.have_blocks(home, 2)? {
                    self.refuse_taken(next, 1)?;
                    if !beyond_limit(next << geometry.cluster_bits, cluster) {
                        self.set_refcount(home, count + 1)?;
                        self.set_refcount(next, 1)?;
                        self.used(next, 1);
                        return self.taken_bytes(tail, bytes);
                    }
                }
            }
        }
        let (first, _, _) = self.take_run(1)?;
        self.taken_bytes(first << geometry.cluster_bits, bytes)
    }

    fn taken_bytes(&mut self, host: u64, bytes: u64) -> Step<Compressed> {
        let end = (host + bytes).next_multiple_of(512);
        self.compressed_tail = (self.geometry.in_cluster(end) != 0).then_some(end);
        if end > self.geometry.compressed_limit() {
            return Err(no_space());
        }
        Ok(Compressed {
            host,
            len: end - host,
        })
    }

    /// Gives clusters back that were taken last and never written to. False: another way must be found.
    pub(super) fn forget_last(&mut self, taken: &Free, fresh: bool) -> bool {
        let clusters = taken.first..taken.first + taken.count;
        for cluster in clusters.clone() {
            if !matches!(self.refcount(cluster), Ok(1)) {
                return false;
            }
        }
        for cluster in clusters {
            if self.set_refcount(cluster, 0).is_err() {
                return false;
            }
        }
        self.free_hint = self.free_hint.min(taken.first);
        if fresh && self.fresh_from == taken.first + taken.count {
            self.fresh_from = taken.first;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_keeps_its_neighbours() {
        for order in 0..=6 {
            let max = if order == 6 {
                u64::MAX
            } else {
                (1u64 << (1 << order)) - 1
            };
            let mut block = vec![0u8; 64];
            let entries = 512 >> order;
            for index in (0..entries).step_by(2) {
                set(&mut block, index, order, max);
            }
            for index in 0..entries {
                assert_eq!(
                    get(&block, index, order),
                    if index % 2 == 0 { max } else { 0 },
                    "order {order}"
                );
            }
            assert_eq!(first_zero(&block, 2, entries, order), Some(3));
        }
    }
}
