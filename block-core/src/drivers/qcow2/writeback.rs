//! Bringing metadata to the disk, in an order that a crash may interrupt at any write.
//!
//! 1. Refcount blocks, then what points to new ones. They only count more than is in use so far.
//! 2. A flush: the refcounts, and all data written before, are durable.
//! 3. L2 tables; a flush; L1 entries; a flush.
//! 4. What those tables gave up is freed in memory, once no request can still be using it. The lower refcounts reach
//!    the disk with the next round.
//!
//! All of one round is copied at one instant, so that no table of step 3 refers to clusters that step 1 missed.

use std::sync::atomic::Ordering;

use super::bytes::{encode_table, to_u64};
use super::entry::OFFSET_MASK;
use super::header::{Header, INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY};
use super::meta::{Corruption, Free, FreeReason, Frees, Meta, Need};
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::WriteFlags;
use crate::sync::lock;

/// One piece of a round: where it goes, and how to tell later whether it is still current.
struct Piece {
    key: u64,
    version: u64,
    offset: u64,
    bytes: Vec<u8>,
}

/// All that one round writes.
#[derive(Default)]
struct Round {
    refblocks: Vec<Piece>,
    reftable: Vec<Piece>,
    /// The table's new place, when it moved: offset, clusters, and where it was.
    moved: Option<(u64, u32, (u64, u64))>,
    slices: Vec<Piece>,
    l1: Vec<Piece>,
    /// Where the last of the L2 tables ends that those entries refer to.
    tables_end: u64,
    /// How many entries of the waiting and of the quarantined frees belong to this round.
    frees: usize,
    quarantine: usize,
    barrier: bool,
}

impl Meta {
    /// Copies what is dirty. Without `refcounts` the refcount blocks are left for later (lazy refcounts).
    fn round(&mut self, refcounts: bool) -> Result<Round> {
        let mut round = Round {
            barrier: self.data_first,
            ..Round::default()
        };
        if refcounts || self.refblocks.crowded() || self.reftable_moved.is_some() {
            for key in self.refblocks.dirty_keys() {
                let Some((value, version)) = self.refblocks.peek(key) else {
                    continue;
                };
                let place = self.refblock_offset(key).ok().flatten();
                let offset = place.filter(|offset| self.owns(*offset)).ok_or_else(astray)?;
                round.refblocks.push(Piece {
                    key,
                    version,
                    offset,
                    bytes: value.to_vec(),
                });
            }
            let table = self.header.reftable_offset;
            if let Some(old) = self.reftable_moved {
                round.moved = Some((table, self.header.reftable_clusters, old));
                let bytes = encode_table(&self.reftable);
                round.reftable.push(Piece {
                    key: u64::MAX,
                    version: 0,
                    offset: table,
                    bytes,
                });
            }
            for (key, version) in &self.reftable_dirty {
                let bytes = sector(&self.reftable, *key);
                round.reftable.push(Piece {
                    key: *key,
                    version: *version,
                    offset: table + key * 512,
                    bytes,
                });
            }
        }
        for key in self.l2.dirty_keys() {
            let Some((value, version)) = self.l2.peek(key) else {
                continue;
            };
            let table = self.table(self.slice_l1(key)).ok().flatten();
            let table = table
                .filter(|(host, copied)| *copied && self.owns(*host))
                .ok_or_else(astray)?
                .0;
            let offset = self.slice_offset(table, key);
            round.slices.push(Piece {
                key,
                version,
                offset,
                bytes: encode_table(value),
            });
        }
        for (key, version) in &self.l1_dirty {
            let offset = self.header.l1_offset + key * 512;
            round.l1.push(Piece {
                key: *key,
                version: *version,
                offset,
                bytes: sector(&self.l1, *key),
            });
        }
        let sectors = self
            .l1_dirty
            .keys()
            .filter_map(|key| self.l1.get(usize::try_from(key * 64).ok()?..));
        let last = sectors
            .flat_map(|rest| rest.iter().take(64))
            .map(|entry| entry & OFFSET_MASK)
            .max();
        round.tables_end = last
            .filter(|last| *last != 0)
            .map_or(0, |last| last + self.geometry.cluster());
        round.frees = self.frees.waiting.len();
        round.quarantine = self.frees.quarantine.len();
        self.frees.sealed = round.frees;
        self.data_first = false;
        Ok(round)
    }

    /// Whether a host offset is one that holds metadata, as every offset that a round writes must.
    pub(super) fn owns(&self, offset: u64) -> bool {
        self.metadata.contains(&(offset >> self.geometry.cluster_bits))
    }

    /// Moves what may be freed one step on. `busy` counts the requests under way by parity.
    fn age_frees(&mut self, busy: impl Fn(usize) -> u64) {
        // Twice: what becomes durable now may be past its grace at once.
        for _ in 0..2 {
            if self
                .frees
                .grace
                .as_ref()
                .is_some_and(|(parity, _)| busy(*parity) == 0)
                && let Some((_, mut list)) = self.frees.grace.take()
            {
                self.frees.ready.append(&mut list);
            }
            if self.frees.grace.is_none() && !self.frees.durable.is_empty() {
                let parity = self.epoch;
                self.epoch = 1 - parity;
                self.frees.grace = Some((parity, std::mem::take(&mut self.frees.durable)));
            }
        }
    }
}

impl Frees {
    /// The first entries of a round are gone from the disk's tables.
    fn made_durable(&mut self, waiting: usize, quarantine: usize) {
        let waiting = waiting.min(self.waiting.len());
        let quarantine = quarantine.min(self.quarantine.len());
        self.durable.extend(self.waiting.drain(..waiting));
        self.durable.extend(self.quarantine.drain(..quarantine));
        self.sealed = 0;
    }
}

fn astray() -> BlockError {
    BlockError::new(
        ErrorKind::Corrupt,
        "Metadata would be written outside of its place",
    )
}

/// 512 bytes of a table.
fn sector(table: &[u64], key: u64) -> Vec<u8> {
    let start = usize::try_from(key * 64).unwrap_or(usize::MAX);
    let mut bytes = encode_table(
        table
            .get(start..)
            .map_or(&[][..], |rest| rest.get(..64).unwrap_or(rest)),
    );
    bytes.truncate(512);
    bytes
}

impl Qcow2 {
    /// Brings all metadata to the disk. With `durable` everything written before is durable afterwards, data included.
    pub(super) async fn write_back(&self, durable: bool) -> Result<()> {
        self.write_back_with(durable, false).await
    }

    /// As [`write_back`](Self::write_back); `refcounts` also brings refcounts that lazy refcounts would leave.
    pub(super) async fn write_back_with(&self, durable: bool, refcounts: bool) -> Result<()> {
        // Held over awaits: nothing below waits for a request or for another round.
        let _turn = self.turn.lock().await;
        if self.unsettled.load(Ordering::Acquire) {
            // An earlier round was dropped or failed: a write of it may come late and must not undo ours.
            self.file.flush().await?;
            self.unsettled.store(false, Ordering::Release);
        }
        if self.header_unsettled.load(Ordering::Acquire) {
            // A header write was begun and not seen to end: the disk may refer to tables that we do not use.
            self.update_header(|_| {}).await?;
            self.file.flush().await?;
        }
        let lazy = !refcounts && self.lazy_refcounts();
        let round = {
            let mut meta = lock(&self.meta);
            let idle = !meta.is_dirty() && meta.frees.waiting.is_empty() && meta.frees.quarantine.is_empty();
            if idle { None } else { Some(meta.round(!lazy)?) }
        };
        let Some(round) = round else {
            if durable {
                self.file.flush_event();
                self.file.flush().await?;
            }
            return self.settle().await;
        };
        if lazy && (!round.slices.is_empty() || !round.l1.is_empty()) {
            self.mark_dirty().await?;
        }
        self.unsettled.store(true, Ordering::Release);
        let result = self.write_round(&round, durable).await;
        {
            let mut meta = lock(&self.meta);
            if let Err(error) = result {
                meta.data_first |= round.barrier;
                meta.frees.sealed = 0;
                return Err(error);
            }
            self.unsettled.store(false, Ordering::Release);
            meta.frees.made_durable(round.frees, round.quarantine);
        }
        self.settle().await
    }

    async fn write_round(&self, round: &Round, durable: bool) -> Result<()> {
        let mut wrote = round.barrier;
        if !round.refblocks.is_empty() {
            self.file.event("refblock_update_part");
            self.write_pieces(&round.refblocks).await?;
            wrote = true;
        }
        if !round.reftable.is_empty() {
            // A refcount block is in place before anything points to it.
            self.file.flush().await?;
            self.file.event("reftable_update");
            self.write_pieces(&round.reftable).await?;
            if let Some((offset, clusters, old)) = round.moved {
                self.file.flush().await?;
                self.update_header(|header| {
                    header.reftable_offset = offset;
                    header.reftable_clusters = clusters;
                })
                .await?;
                let mut meta = lock(&self.meta);
                // It may have moved on meanwhile: then the newer place is written by the next round, and the one just
                // written was put among the frees when that move was made.
                meta.reftable_moved = (meta.header.reftable_offset != offset).then_some((0, 0));
                if old.1 > 0 {
                    meta.frees.push(Free {
                        first: old.0,
                        count: old.1,
                        reason: FreeReason::Other,
                    });
                }
            }
            wrote = true;
        }
        if wrote && !(round.slices.is_empty() && round.l1.is_empty()) {
            self.file.flush().await?;
        }
        if !round.slices.is_empty() {
            self.file.event("l2_update");
            self.write_pieces(&round.slices).await?;
        }
        if !round.l1.is_empty() {
            if !round.slices.is_empty() {
                self.file.flush().await?;
            }
            self.file.event("l1_update");
            self.reach(round.tables_end).await?;
            self.write_pieces(&round.l1).await?;
        }
        if durable {
            self.file.flush_event();
        }
        self.file.flush().await?;
        let mut meta = lock(&self.meta);
        for piece in &round.refblocks {
            meta.refblocks.written(piece.key, piece.version);
        }
        for piece in &round.slices {
            meta.l2.written(piece.key, piece.version);
        }
        for piece in &round.l1 {
            if meta.l1_dirty.get(&piece.key) == Some(&piece.version) {
                meta.l1_dirty.remove(&piece.key);
            }
        }
        for piece in &round.reftable {
            if meta.reftable_dirty.get(&piece.key) == Some(&piece.version) {
                meta.reftable_dirty.remove(&piece.key);
            }
        }
        Ok(())
    }

    /// Makes the file reach up to the end of an L2 table. One in fresh space that holds nothing was never written, and
    /// must not lie beyond the file all the same.
    async fn reach(&self, end: u64) -> Result<()> {
        if self.file.length() >= end {
            return Ok(());
        }
        // Nothing was ever written there: nothing is overwritten.
        self.file
            .write(end.saturating_sub(512), &[0; 512], WriteFlags::default())
            .await
    }

    /// Writes pieces, those that adjoin in one go.
    async fn write_pieces(&self, pieces: &[Piece]) -> Result<()> {
        /// The longest single write of metadata.
        const MAX_RUN: usize = 1 << 20;
        let mut rest = pieces.iter().peekable();
        while let Some(first) = rest.next() {
            let next_at = |bytes: &[u8]| first.offset + to_u64(bytes.len());
            if rest
                .peek()
                .is_none_or(|next| next.offset != next_at(&first.bytes))
            {
                self.file
                    .write(first.offset, &first.bytes, WriteFlags::default())
                    .await?;
                continue;
            }
            let mut bytes = first.bytes.clone();
            while let Some(next) =
                rest.next_if(|next| next.offset == next_at(&bytes) && bytes.len() < MAX_RUN)
            {
                bytes.extend_from_slice(&next.bytes);
            }
            self.file
                .write(first.offset, &bytes, WriteFlags::default())
                .await?;
        }
        Ok(())
    }

    /// Frees in memory what may be freed by now. Called by the holder of `turn`.
    async fn settle(&self) -> Result<()> {
        loop {
            let next = {
                let mut meta = lock(&self.meta);
                meta.age_frees(|parity| {
                    self.busy
                        .get(parity)
                        .map_or(0, |busy| busy.load(Ordering::Acquire))
                });
                meta.frees.ready.last().copied()
            };
            let Some(free) = next else { return Ok(()) };
            if self.passes_discard(free.reason) {
                self.discard_freed(free).await?;
            }
            let step = {
                let mut meta = lock(&self.meta);
                release(&mut meta)
            };
            match step {
                Ok(()) => {}
                Err(Need::Refblock(block)) => self.load_refblock(block).await?,
                Err(Need::Corrupt(corruption)) => {
                    // The reference is gone already: nothing is left to give up.
                    lock(&self.meta).frees.ready.pop();
                    let _ = self.corrupted(&corruption).await;
                }
                Err(Need::Fail(error)) => return Err(error),
                Err(_) => return Err(BlockError::new(ErrorKind::Io, "Refcounts cannot be lowered")),
            }
        }
    }

    fn passes_discard(&self, reason: FreeReason) -> bool {
        let options = self.options.load();
        match reason {
            FreeReason::Request => options.pass_discard_request.unwrap_or(options.discard_unmap),
            FreeReason::Snapshot => options.pass_discard_snapshot.unwrap_or(true),
            FreeReason::Other => options.pass_discard_other.unwrap_or(false),
        }
    }

    /// Tells the file of clusters whose last reference goes: before they can be handed out again.
    async fn discard_freed(&self, free: Free) -> Result<()> {
        let mut at = free.first;
        while at < free.first + free.count {
            let run = {
                let mut meta = lock(&self.meta);
                let bits = meta.geometry.cluster_bits;
                let mut end = at;
                let need = loop {
                    if end >= free.first + free.count {
                        break None;
                    }
                    match meta.refcount(end) {
                        Ok(1) => end += 1,
                        Ok(_) => break None,
                        Err(Need::Refblock(block)) => break Some(block),
                        Err(_) => return Ok(()),
                    }
                };
                (end, need, bits)
            };
            let (end, need, bits) = run;
            if end > at {
                // A hint: the file may not be able to.
                let _ = self.file.discard(at << bits, (end - at) << bits).await;
            }
            at = match need {
                Some(block) => {
                    self.load_refblock(block).await?;
                    end
                }
                None => end.max(at + 1),
            };
        }
        Ok(())
    }

    /// Changes the header, in memory and on disk. Not flushed.
    pub(super) async fn update_header(&self, change: impl Fn(&mut Header)) -> Result<()> {
        // Held over awaits: only header writes wait for it, and nothing below waits for one.
        let mut disk = self.disk_header.lock().await;
        if self.header_unsettled.load(Ordering::Acquire) {
            self.file.flush().await?;
        }
        let mut header = disk.header.clone();
        change(&mut header);
        let after = header.encode()?;
        self.header_unsettled.store(true, Ordering::Release);
        // What lies behind the first sector goes first: the first sector switches over to it as a whole.
        let split = after.len().min(512);
        let (head, tail) = after.split_at(split);
        if !tail.is_empty() && disk.tail.as_deref() != Some(tail) {
            self.file
                .write(to_u64(split), tail, WriteFlags::default())
                .await?;
            self.file.flush().await?;
            disk.tail = Some(tail.to_vec());
        }
        self.file.write(0, head, WriteFlags::default()).await?;
        self.header_unsettled.store(false, Ordering::Release);
        disk.header = header;
        let mut meta = lock(&self.meta);
        let (offset, clusters) = (meta.header.reftable_offset, meta.header.reftable_clusters);
        change(&mut meta.header);
        // The table's place in memory may be ahead of the disk's.
        meta.header.reftable_offset = offset;
        meta.header.reftable_clusters = clusters;
        Ok(())
    }

    /// Sets the dirty bit on disk: refcounts may be behind from now on.
    pub(super) async fn mark_dirty(&self) -> Result<()> {
        let set = lock(&self.meta).header.has(INCOMPATIBLE_DIRTY);
        if !set {
            self.update_header(|header| header.incompatible |= INCOMPATIBLE_DIRTY)
                .await?;
            self.file.flush().await?;
        }
        Ok(())
    }

    /// Writes all back and takes the dirty bit away.
    pub(super) async fn clean(&self) -> Result<()> {
        self.write_back_with(true, true).await?;
        // What the first round freed.
        self.write_back_with(true, true).await?;
        let set = lock(&self.meta).header.has(INCOMPATIBLE_DIRTY);
        if set {
            self.update_header(|header| header.incompatible &= !INCOMPATIBLE_DIRTY)
                .await?;
            self.file.flush().await?;
        }
        Ok(())
    }

    /// Notes a corruption: marks the image, tells who wants to know, and gives the error that requests see.
    pub(super) async fn corrupted(&self, corruption: &Corruption) -> BlockError {
        let error = BlockError::from_errno(5, "Input/output error");
        // Reading a broken image does no damage: only a writer is stopped.
        let fatal = corruption.fatal && !self.read_only.load(Ordering::Acquire);
        let (first, version) = {
            let mut meta = lock(&self.meta);
            let first = !meta.broken && (fatal || !meta.told);
            meta.broken |= fatal;
            meta.told = true;
            (first, meta.geometry.version)
        };
        if !first {
            return error;
        }
        tracing::warn!(message = %corruption.message, fatal, "qcow2 image is corrupt");
        if let Some(tell) = &self.options.load().on_corruption {
            tell(&corruption.message, corruption.place, fatal);
        }
        if fatal && version >= 3 {
            let marked = self
                .update_header(|header| header.incompatible |= INCOMPATIBLE_CORRUPT)
                .await;
            if marked.is_ok() {
                let _ = self.file.flush().await;
            }
        }
        error
    }
}

/// Gives up references of the last ready entry, cluster by cluster from its end.
fn release(meta: &mut Meta) -> Result<(), Need> {
    while let Some(mut free) = meta.frees.ready.last().copied() {
        let cluster = free.first + free.count - 1;
        let left = meta.drop_reference(cluster)?;
        if left == 0 {
            meta.metadata.remove(&cluster);
        }
        free.count -= 1;
        if free.count == 0 {
            meta.frees.ready.pop();
            return Ok(());
        }
        if let Some(last) = meta.frees.ready.last_mut() {
            *last = free;
        }
    }
    Ok(())
}
