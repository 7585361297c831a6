//! Changing who shares what, all at once.
//!
//! Taking or deleting an internal snapshot changes the refcounts of every cluster involved together with the copied
//! flags in the active L2 tables, and each must agree with the other at any moment that a crash may choose. No order
//! of writes in place can do that. So what changes is written beside the old: refcount blocks and their table, the L2
//! tables whose flags change, the active L1 table, the snapshot table. All of it becomes the image by one write of the
//! header's first sector, and only when that is durable does the old become free.
//!
//! Knows nothing of what a snapshot is besides its L1 table.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{decode_table, encode_table, to_u64, to_usize};
use super::check::Counts;
use super::entry::{COPIED, Geometry, Mapping, OFFSET_MASK};
use super::io::Taken;
use super::meta::{Corruption, Free, FreeReason, Need, Step};
use super::snapshots::{MAX_TABLE_BYTES, Snapshots};
use super::{BlockError, ErrorKind, Qcow2, Result, refcount};
use crate::driver::WriteFlags;
use crate::sync::lock;

/// Tables that are all zeroes may lie behind the end of the file, so many clusters at most.
const BEYOND: u64 = 1 << 16;

/// How references change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The active L1 table becomes a snapshot's: all that it leads to gains a reference.
    Gain,
    /// A snapshot's L1 table at this offset, of so many entries, goes: all that it leads to loses one.
    Loss(u64, u32),
}

/// What changes, and where it will be.
struct Plan {
    sharing: Sharing,
    /// References that clusters gain or lose.
    delta: Counts,
    /// The active L1 table as it is now.
    l1: Vec<u64>,
    /// As it will be, but for where the copies will lie.
    l1_after: Vec<u64>,
    l1_offset: u64,
    snapshots_offset: u64,
    /// Entries of it whose L2 table is written anew.
    copies: BTreeSet<usize>,
    /// Refcount blocks that are written anew.
    blocks: BTreeSet<u64>,
}

impl Plan {
    /// What a refcount will be, and whether that gives the cluster up. Those that are given up stay counted until the
    /// switch is durable.
    fn after(&self, cluster: u64, count: u64) -> (u64, bool) {
        let delta = self.delta.get(cluster);
        match self.sharing {
            Sharing::Gain => (count.saturating_add(delta), false),
            Sharing::Loss(..) if delta == 0 || count == 0 => (count, false),
            Sharing::Loss(..) if count > delta => (count - delta, false),
            Sharing::Loss(..) => (1, true),
        }
    }
}

/// The new tables, written but not in use.
struct Written {
    l1_offset: u64,
    l1: Vec<u64>,
    reftable_offset: u64,
    reftable: Vec<u64>,
    snapshots_offset: u64,
    /// Clusters that nothing refers to afterwards.
    gone: Vec<Free>,
}

fn moved_meanwhile() -> BlockError {
    BlockError::new(ErrorKind::Busy, "Refcounts changed meanwhile")
}

impl Qcow2 {
    /// Makes `new` the image's snapshots and changes the refcounts with it. The image is at rest and nobody else's.
    pub(super) async fn switch_over(
        &self,
        old: &Snapshots,
        mut new: Snapshots,
        sharing: Sharing,
    ) -> Result<()> {
        let mut table = new.encode();
        if to_u64(table.len()) > MAX_TABLE_BYTES {
            return Err(BlockError::from_errno(27, "File too large"));
        }
        let plan = self.plan_sharing(sharing).await?;
        let bits = lock(&self.meta).geometry.cluster_bits;
        let clusters = |bytes: usize| to_u64(bytes).div_ceil(1 << bits);
        // The table that the image has now becomes the snapshot's.
        let moves_l1 = plan.l1_after != plan.l1 || (sharing == Sharing::Gain && !plan.l1.is_empty());
        // Everything that is needed is taken and counted in the old way first: until the switch it is only leaked.
        let copies = self.take_some(to_u64(plan.copies.len())).await?;
        let blocks = self.take_some(to_u64(plan.blocks.len())).await?;
        let l1_run = self
            .take_some(if moves_l1 { clusters(plan.l1.len() * 8) } else { 0 })
            .await?;
        let table_run = self.take_some(clusters(table.len())).await?;
        let reftable_run = loop {
            let wanted = u64::from(lock(&self.meta).header.reftable_clusters);
            let run = self.take(wanted).await?;
            if u64::from(lock(&self.meta).header.reftable_clusters) == wanted {
                break run;
            }
        };
        let turn = self.turn_at_rest().await?;
        let place = |run: &Option<Taken<'_>>| run.as_ref().map_or(0, |run| run.first << bits);
        let mut written = Written {
            l1_offset: plan.l1_offset,
            l1: plan.l1_after.clone(),
            reftable_offset: reftable_run.first << bits,
            reftable: lock(&self.meta).reftable.clone(),
            snapshots_offset: place(&table_run),
            gone: Vec::new(),
        };
        self.write_blocks(&plan, place(&blocks), &mut written).await?;
        self.write_whole(written.reftable_offset, &encode_table(&written.reftable))
            .await?;
        self.write_copies(&plan, place(&copies), &mut written).await?;
        if let Some(run) = &l1_run {
            written.l1_offset = run.first << bits;
            let mut bytes = encode_table(&written.l1);
            bytes.resize(to_usize(run.count << bits)?, 0);
            self.write_whole(written.l1_offset, &bytes).await?;
        }
        if let Some(run) = &table_run {
            table.resize(to_usize(run.count << bits)?, 0);
            self.write_whole(run.first << bits, &table).await?;
        }
        self.file.flush().await?;
        {
            let mut meta = lock(&self.meta);
            for run in [&copies, &blocks, &l1_run, &table_run]
                .into_iter()
                .flatten()
                .chain([&reftable_run])
            {
                meta.mark_metadata(run.first << bits, run.count << bits);
            }
        }
        // The header on disk may refer to the new clusters from the next line on, whatever comes of it.
        for run in [copies, blocks, l1_run, table_run]
            .into_iter()
            .flatten()
            .chain([reftable_run])
        {
            run.keep();
        }
        let count = u32::try_from(new.list().len()).unwrap_or(0);
        self.update_header(|header| {
            header.l1_offset = written.l1_offset;
            header.reftable_offset = written.reftable_offset;
            header.snapshot_count = count;
            header.snapshots_offset = written.snapshots_offset;
        })
        .await?;
        // No await between the header's write and this: memory and disk are never seen apart.
        self.adopt(&plan, written, old, new, moves_l1);
        drop(turn);
        self.file.flush().await
    }

    /// Writes everything back until nothing is dirty, and keeps others from doing so.
    async fn turn_at_rest(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        // What a round frees is dirty after it; a dropped mapping may add to that now and then.
        const ROUNDS: usize = 16;
        for _ in 0..ROUNDS {
            self.write_back_with(true, true).await?;
            // Held over awaits until the switch: no other write-back may change a refcount while copies of them are
            // made. Nothing that runs under it writes back or waits for a request.
            let turn = self.turn.lock().await;
            let settled = {
                let meta = lock(&self.meta);
                !meta.is_dirty() && meta.reftable_moved.is_none()
            };
            if settled {
                return Ok(turn);
            }
        }
        Err(moved_meanwhile())
    }

    async fn take_some(&self, count: u64) -> Result<Option<Taken<'_>>> {
        Ok(if count == 0 {
            None
        } else {
            Some(self.take(count).await?)
        })
    }

    async fn write_whole(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write(offset, bytes, WriteFlags::default()).await
    }

    /// Finds out what changes.
    async fn plan_sharing(&self, sharing: Sharing) -> Result<Plan> {
        let (mut plan, geometry) = {
            let meta = lock(&self.meta);
            let plan = Plan {
                sharing,
                delta: Counts::default(),
                l1: meta.l1.clone(),
                l1_after: Vec::new(),
                l1_offset: meta.header.l1_offset,
                snapshots_offset: meta.header.snapshots_offset,
                copies: BTreeSet::new(),
                blocks: BTreeSet::new(),
            };
            (plan, meta.geometry)
        };
        match sharing {
            Sharing::Gain => {
                let l1 = plan.l1.clone();
                self.count_shared(&l1, &mut plan).await?;
            }
            Sharing::Loss(offset, entries) => {
                let bytes = u64::from(entries) * 8;
                let mut table = vec![0u8; to_usize(bytes)?];
                self.read_file(offset, &mut table).await?;
                self.count_shared(&decode_table(&table), &mut plan).await?;
                let first = offset >> geometry.cluster_bits;
                for cluster in first..first + geometry.clusters(bytes) {
                    self.count_one(cluster, &mut plan).await?;
                }
            }
        }
        for (at, entry) in plan.l1.clone().iter().enumerate() {
            let table = entry & OFFSET_MASK;
            if table == 0 || geometry.in_cluster(table) != 0 {
                continue;
            }
            let raw = self.read_table(table).await?;
            if self.with_flags(&plan, &geometry, &raw).await? == raw {
                continue;
            }
            plan.copies.insert(at);
            let cluster = table >> geometry.cluster_bits;
            // The copy takes this table's place: the active image's reference to it goes.
            match sharing {
                Sharing::Gain => plan.delta.take_one(cluster),
                Sharing::Loss(..) => plan.delta.add(cluster),
            }
            plan.blocks.insert(cluster >> geometry.refblock_bits());
        }
        for at in 0..plan.l1.len() {
            let entry = plan.l1.get(at).copied().unwrap_or(0);
            let table = entry & OFFSET_MASK;
            let after = if plan.copies.contains(&at) {
                COPIED
            } else if table == 0 || geometry.in_cluster(table) != 0 {
                entry
            } else {
                let cluster = table >> geometry.cluster_bits;
                let count = self.step(|meta| meta.refcount(cluster)).await?;
                let alone = plan.after(cluster, count).0 == 1;
                table | if alone { COPIED } else { 0 }
            };
            plan.l1_after.push(after);
        }
        Ok(plan)
    }

    /// Counts what an L1 table leads to.
    async fn count_shared(&self, l1: &[u64], plan: &mut Plan) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        let bits = geometry.cluster_bits;
        for table in l1.iter().map(|entry| entry & OFFSET_MASK) {
            if table == 0 || geometry.in_cluster(table) != 0 {
                continue;
            }
            self.count_one(table >> bits, plan).await?;
            for raw in self.read_table(table).await? {
                let (first, count) = match Mapping::decode(&geometry, raw) {
                    Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) => {
                        (host >> bits, 1)
                    }
                    Ok(Mapping::Compressed(at)) => at.host_clusters(&geometry),
                    _ => continue,
                };
                for cluster in first..first + count {
                    self.count_one(cluster, plan).await?;
                }
            }
        }
        Ok(())
    }

    async fn count_one(&self, cluster: u64, plan: &mut Plan) -> Result<()> {
        let gains = plan.sharing == Sharing::Gain;
        let delta = plan.delta.get(cluster);
        // What lies far beyond the file cannot be counted in memory that goes by the file's size.
        let end = self.file.length() >> lock(&self.meta).geometry.cluster_bits;
        let inside = cluster < end.saturating_add(BEYOND);
        let counted = self
            .step(|meta| -> Step<bool> {
                let count = meta.refcount(cluster)?;
                if gains && count > 0 && delta >= meta.geometry.refcount_max().saturating_sub(count) {
                    return Err(Need::Fail(BlockError::new(
                        ErrorKind::Invalid,
                        "Invalid argument",
                    )));
                }
                if (count == 0 || !inside) && gains {
                    return Err(Need::Corrupt(Corruption {
                        message: format!("Refcount of cluster {cluster:#x} is zero, but it is in use"),
                        place: Some((cluster << meta.geometry.cluster_bits, meta.geometry.cluster())),
                        fatal: false,
                    }));
                }
                Ok(count > 0)
            })
            .await?;
        if counted && inside {
            plan.delta.add(cluster);
            let bits = lock(&self.meta).geometry.refblock_bits();
            plan.blocks.insert(cluster >> bits);
        }
        Ok(())
    }

    /// An L2 table with its copied flags as they will be right.
    async fn with_flags(&self, plan: &Plan, geometry: &Geometry, table: &[u64]) -> Result<Vec<u64>> {
        let mut out = Vec::with_capacity(table.len());
        for raw in table {
            let Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) =
                Mapping::decode(geometry, *raw)
            else {
                out.push(*raw);
                continue;
            };
            let cluster = host >> geometry.cluster_bits;
            let count = self.step(|meta| meta.refcount(cluster)).await?;
            let alone = plan.after(cluster, count).0 == 1;
            out.push(if alone { raw | COPIED } else { raw & !COPIED });
        }
        Ok(out)
    }

    /// Writes the refcount blocks that change to their new places.
    async fn write_blocks(&self, plan: &Plan, start: u64, written: &mut Written) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        let entries = 1u64 << geometry.refblock_bits();
        for (nth, block) in plan.blocks.iter().enumerate() {
            let mut bytes = self
                .step(|meta| match meta.refblocks.get(*block) {
                    Some(bytes) => Ok(bytes.clone()),
                    None => Err(Need::Refblock(*block)),
                })
                .await?;
            for index in 0..to_usize(entries)? {
                let cluster = block * entries + to_u64(index);
                let count = refcount::get(&bytes, index, geometry.refcount_order);
                let (after, gone) = plan.after(cluster, count);
                if after != count {
                    refcount::set(&mut bytes, index, geometry.refcount_order, after);
                }
                if gone {
                    push_cluster(&mut written.gone, cluster);
                }
            }
            let host = start + (to_u64(nth) << geometry.cluster_bits);
            self.file.event("refblock_update_part");
            self.write_whole(host, &bytes).await?;
            let Some(entry) = written.reftable.get_mut(to_usize(*block)?) else {
                return Err(moved_meanwhile());
            };
            *entry = host;
        }
        Ok(())
    }

    /// Writes the L2 tables that change to their new places.
    async fn write_copies(&self, plan: &Plan, start: u64, written: &mut Written) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        let mut host = start;
        for at in &plan.copies {
            let table = plan.l1.get(*at).copied().unwrap_or(0) & OFFSET_MASK;
            let raw = self.read_table(table).await?;
            let raw = self.with_flags(plan, &geometry, &raw).await?;
            self.file.event("l2_alloc_write");
            self.write_whole(host, &encode_table(&raw)).await?;
            if let Some(entry) = written.l1.get_mut(*at) {
                *entry |= host;
            }
            host += geometry.cluster();
        }
        Ok(())
    }

    /// The new tables are the image's: memory follows, and the old ones wait for being freed.
    fn adopt(&self, plan: &Plan, written: Written, old: &Snapshots, new: Snapshots, moves_l1: bool) {
        let mut meta = lock(&self.meta);
        let bits = meta.geometry.cluster_bits;
        let mut frees = BTreeMap::new();
        let reftable_clusters = u64::from(meta.header.reftable_clusters);
        frees.insert(meta.header.reftable_offset >> bits, reftable_clusters);
        for block in &plan.blocks {
            if let Ok(Some(host)) = meta.refblock_offset(*block) {
                frees.insert(host >> bits, 1);
            }
            meta.refblocks.remove(*block);
        }
        if old.table_bytes() > 0 {
            frees.insert(
                plan.snapshots_offset >> bits,
                old.table_bytes().div_ceil(1 << bits),
            );
        }
        let l1_clusters = (to_u64(plan.l1.len()) * 8).div_ceil(1 << bits);
        let slices = 1u64 << (meta.geometry.l2_bits() - meta.geometry.slice_bits);
        for at in &plan.copies {
            for key in to_u64(*at) * slices..(to_u64(*at) + 1) * slices {
                meta.l2.remove(key);
            }
        }
        if moves_l1 && plan.sharing != Sharing::Gain {
            frees.insert(plan.l1_offset >> bits, l1_clusters);
        }
        meta.header.reftable_offset = written.reftable_offset;
        meta.reftable = written.reftable;
        meta.l1 = written.l1;
        for (first, count) in frees {
            meta.frees.push(Free {
                first,
                count,
                reason: FreeReason::Other,
            });
        }
        for free in written.gone {
            meta.frees.push(free);
        }
        drop(meta);
        *lock(&self.snapshots) = new;
    }
}

fn push_cluster(list: &mut Vec<Free>, cluster: u64) {
    match list.last_mut() {
        Some(last) if last.first + last.count == cluster => last.count += 1,
        _ => list.push(Free {
            first: cluster,
            count: 1,
            reason: FreeReason::Snapshot,
        }),
    }
}
