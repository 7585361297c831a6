//! Checking refcounts and copied flags against what the tables refer to, and repairing them.
//!
//! Runs on an image at rest: nothing dirty, no request under way.

use std::collections::BTreeMap;

use super::bytes::{decode_table, encode_table, to_u64, to_usize};
use super::entry::{COPIED, Mapping, OFFSET_MASK};
use super::meta::Need;
use super::{BlockError, ErrorKind, Qcow2, Result, refcount};
use crate::driver::WriteFlags;
use crate::sync::lock;

/// References to clusters, counted in pieces so that memory goes by what is referred to, not by offsets.
#[derive(Default)]
pub(super) struct Counts(BTreeMap<u64, Box<[u32]>>);

const PIECE: u64 = 4096;

impl Counts {
    pub(super) fn add(&mut self, cluster: u64) {
        let piece = self
            .0
            .entry(cluster / PIECE)
            .or_insert_with(|| vec![0; usize::try_from(PIECE).unwrap_or(0)].into_boxed_slice());
        if let Some(count) = usize::try_from(cluster % PIECE)
            .ok()
            .and_then(|at| piece.get_mut(at))
        {
            *count = count.saturating_add(1);
        }
    }

    /// Takes one of those added back.
    pub(super) fn take_one(&mut self, cluster: u64) {
        let at = usize::try_from(cluster % PIECE).unwrap_or(0);
        if let Some(count) = self
            .0
            .get_mut(&(cluster / PIECE))
            .and_then(|piece| piece.get_mut(at))
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn get(&self, cluster: u64) -> u64 {
        let piece = self.0.get(&(cluster / PIECE));
        let at = usize::try_from(cluster % PIECE).unwrap_or(0);
        piece
            .and_then(|piece| piece.get(at))
            .copied()
            .map_or(0, u64::from)
    }

    fn used(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(key, piece)| {
            let start = key * PIECE;
            let counts = piece.iter().enumerate().filter(|(_, count)| **count > 0);
            counts.map(move |(at, _)| start + to_u64(at))
        })
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Clusters counted higher than they are referred to.
    pub leaks: u64,
    /// Clusters counted lower than they are referred to, and wrong copied flags.
    pub corruptions: u64,
    /// Entries that cannot be, and references beyond the file; these are not repaired.
    pub broken: u64,
}

impl Qcow2 {
    /// Checks the image, and with `repair` sets refcounts and flags right. The image must be at rest.
    pub async fn check(&self, repair: bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let mut counts = self.count_references(&mut report).await?;
        if repair && report.broken > 0 {
            return Err(BlockError::new(
                ErrorKind::Corrupt,
                "Entries refer to where nothing can be",
            ));
        }
        if repair {
            let missing = self.uncounted(&counts);
            if !missing.is_empty() {
                report.corruptions += to_u64(missing.len());
                self.make_missing_blocks(&missing).await?;
                counts = self.count_references(&mut CheckReport::default()).await?;
            }
        }
        self.check_refcounts(&counts, &mut report, repair).await?;
        report.corruptions += self.check_copied(repair).await?;
        Ok(report)
    }

    async fn count_references(&self, report: &mut CheckReport) -> Result<Counts> {
        let mut counts = Counts::default();
        let (header, l1, reftable, bits) = {
            let meta = lock(&self.meta);
            (
                meta.header.clone(),
                meta.l1.clone(),
                meta.reftable.clone(),
                meta.geometry.cluster_bits,
            )
        };
        // One more cluster than the file has: its last one may not be written whole.
        let end = self.file.length().div_ceil(1 << bits) + 1;
        let span = |counts: &mut Counts, report: &mut CheckReport, offset: u64, bytes: u64| {
            let first = offset >> bits;
            let clusters = bytes.div_ceil(1 << bits);
            if first.saturating_add(clusters) > end {
                report.broken += 1;
                return;
            }
            (first..first + clusters).for_each(|cluster| counts.add(cluster));
        };
        span(&mut counts, report, 0, 1);
        span(
            &mut counts,
            report,
            header.l1_offset,
            u64::from(header.l1_size) * 8,
        );
        span(
            &mut counts,
            report,
            header.reftable_offset,
            u64::from(header.reftable_clusters) << bits,
        );
        for entry in reftable
            .iter()
            .map(|entry| entry & !0x1ff)
            .filter(|entry| *entry != 0)
        {
            span(&mut counts, report, entry, 1);
        }
        self.count_tree(&l1, end, &mut counts, report).await?;
        let snapshots = lock(&self.snapshots).clone();
        span(
            &mut counts,
            report,
            header.snapshots_offset,
            snapshots.table_bytes(),
        );
        for snapshot in snapshots.list() {
            if snapshot.check_l1(1 << bits).is_err() {
                report.broken += 1;
                continue;
            }
            let bytes = u64::from(snapshot.l1_size) * 8;
            span(&mut counts, report, snapshot.l1_offset, bytes);
            let mut table = vec![0u8; to_usize(bytes)?];
            self.read_file(snapshot.l1_offset, &mut table).await?;
            self.count_tree(&decode_table(&table), end, &mut counts, report)
                .await?;
        }
        for (offset, bytes) in self.bitmap_spans().await? {
            span(&mut counts, report, offset, bytes);
        }
        Ok(counts)
    }

    /// Clusters in use that are not counted at all, for lack of a refcount block.
    fn uncounted(&self, counts: &Counts) -> Vec<u64> {
        let meta = lock(&self.meta);
        let (blocks, entries) = (to_u64(meta.reftable.len()), 1u64 << meta.geometry.refblock_bits());
        counts
            .used()
            .filter(|cluster| {
                let block = cluster / entries;
                block >= blocks || !matches!(meta.refblock_offset(block), Ok(Some(_)))
            })
            .collect()
    }

    /// Makes the refcount blocks that these clusters lack, behind the end of the file: what is counted there is free,
    /// whatever else is wrong.
    async fn make_missing_blocks(&self, clusters: &[u64]) -> Result<()> {
        {
            let mut meta = lock(&self.meta);
            let bits = meta.geometry.cluster_bits;
            meta.free_hint = self.file.length().div_ceil(1 << bits);
        }
        for cluster in clusters {
            while !self.step(|meta| meta.have_blocks(*cluster, 1)).await? {
                if lock(&self.meta).refblocks.crowded() {
                    self.write_back_with(true, true).await?;
                }
            }
        }
        self.write_back_with(true, true).await
    }

    async fn count_tree(
        &self,
        l1: &[u64],
        end: u64,
        counts: &mut Counts,
        report: &mut CheckReport,
    ) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        let bits = geometry.cluster_bits;
        let add = |counts: &mut Counts, report: &mut CheckReport, first: u64, count: u64| {
            if first.saturating_add(count) > end {
                report.broken += 1;
            } else {
                (first..first + count).for_each(|cluster| counts.add(cluster));
            }
        };
        for table in l1
            .iter()
            .map(|entry| entry & OFFSET_MASK)
            .filter(|table| *table != 0)
        {
            if geometry.in_cluster(table) != 0 || table >> bits >= end {
                report.broken += 1;
                continue;
            }
            add(counts, report, table >> bits, 1);
            for raw in self.read_table(table).await? {
                match Mapping::decode(&geometry, raw) {
                    Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) => {
                        add(counts, report, host >> bits, 1);
                    }
                    Ok(Mapping::Compressed(at)) => {
                        let (first, count) = at.host_clusters(&geometry);
                        add(counts, report, first, count);
                    }
                    Ok(_) => {}
                    Err(_) => report.broken += 1,
                }
            }
        }
        Ok(())
    }

    /// An L2 table as it lies on disk.
    pub(super) async fn read_table(&self, offset: u64) -> Result<Vec<u64>> {
        let mut bytes = vec![0u8; lock(&self.meta).geometry.cluster_len()];
        self.read_file(offset, &mut bytes).await?;
        Ok(decode_table(&bytes))
    }

    async fn check_refcounts(&self, counts: &Counts, report: &mut CheckReport, repair: bool) -> Result<()> {
        let (blocks, geometry) = {
            let meta = lock(&self.meta);
            (to_u64(meta.reftable.len()), meta.geometry)
        };
        let entries = 1u64 << geometry.refblock_bits();
        if !repair {
            report.corruptions += to_u64(self.uncounted(counts).len());
        }
        for block in 0..blocks {
            let place = lock(&self.meta).refblock_offset(block);
            let Ok(place) = place else {
                report.broken += 1;
                continue;
            };
            if place.is_none() {
                continue;
            }
            let room = lock(&self.meta).refblocks.crowded();
            if room {
                self.write_back_with(true, true).await?;
            }
            let (wrong, leaks, low) = self
                .step(|meta| {
                    let order = meta.geometry.refcount_order;
                    let Some(bytes) = meta.refblocks.get(block) else {
                        return Err(Need::Refblock(block));
                    };
                    let (mut wrong, mut leaks, mut low) = (Vec::new(), 0, 0);
                    for index in 0..entries {
                        let at = usize::try_from(index).unwrap_or(0);
                        let (is, should) = (
                            refcount::get(bytes, at, order),
                            counts.get(block * entries + index),
                        );
                        if is != should {
                            wrong.push((at, should));
                            *(if is > should { &mut leaks } else { &mut low }) += 1;
                        }
                    }
                    if repair && !wrong.is_empty() {
                        let Some(bytes) = meta.refblocks.change(block) else {
                            return Err(Need::Refblock(block));
                        };
                        for (at, should) in &wrong {
                            refcount::set(bytes, *at, order, *should);
                        }
                        for (at, _) in wrong.iter().filter(|(_, should)| *should == 0) {
                            let cluster = block * entries + to_u64(*at);
                            meta.metadata.remove(&cluster);
                            meta.free_hint = meta.free_hint.min(cluster);
                        }
                    }
                    Ok((wrong.len(), leaks, low))
                })
                .await?;
            debug_assert_eq!(to_u64(wrong), leaks + low);
            report.leaks += leaks;
            report.corruptions += low;
        }
        if repair {
            self.write_back_with(true, true).await?;
        }
        Ok(())
    }

    /// Compares copied flags with refcounts; returns how many are wrong. The caches hold nothing dirty.
    pub(super) async fn check_copied(&self, repair: bool) -> Result<u64> {
        let (l1, geometry) = {
            let meta = lock(&self.meta);
            (meta.l1.clone(), meta.geometry)
        };
        let bits = geometry.cluster_bits;
        let mut wrong = 0;
        for (l1_index, entry) in l1.iter().enumerate() {
            let offset = entry & OFFSET_MASK;
            if offset == 0 || geometry.in_cluster(offset) != 0 {
                continue;
            }
            let alone = self.step(|meta| meta.refcount(offset >> bits)).await? == 1;
            let mut table = self.read_table(offset).await?;
            let mut changed = false;
            for raw in &mut table {
                let Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) =
                    Mapping::decode(&geometry, *raw)
                else {
                    continue;
                };
                let right = self.step(|meta| meta.refcount(host >> bits)).await? == 1;
                if right != (*raw & COPIED != 0) {
                    wrong += 1;
                    changed = true;
                    *raw ^= COPIED;
                }
            }
            if changed && repair {
                self.write_table(to_u64(l1_index), offset, &table).await?;
            }
            if alone != (*entry & COPIED != 0) {
                wrong += 1;
                if repair {
                    let mut meta = lock(&self.meta);
                    let change = meta.next_change();
                    if let Some(entry) = meta.l1.get_mut(l1_index) {
                        *entry ^= COPIED;
                    }
                    meta.l1_dirty.insert(to_u64(l1_index) / 64, change);
                }
            }
        }
        if repair && wrong > 0 {
            self.write_back_with(true, true).await?;
        }
        Ok(wrong)
    }

    /// Writes an L2 table of the active image past the cache, and forgets what is cached of it.
    pub(super) async fn write_table(&self, l1_index: u64, offset: u64, table: &[u64]) -> Result<()> {
        if !lock(&self.meta).owns(offset) {
            return Err(BlockError::new(
                ErrorKind::Corrupt,
                "Metadata would be written outside of its place",
            ));
        }
        self.file
            .write(offset, &encode_table(table), WriteFlags::default())
            .await?;
        let mut meta = lock(&self.meta);
        let slices = 1u64 << (meta.geometry.l2_bits() - meta.geometry.slice_bits);
        for key in l1_index * slices..(l1_index + 1) * slices {
            meta.l2.remove(key);
        }
        Ok(())
    }

    /// Sets an image right that was not closed cleanly.
    pub(super) async fn repair_dirty(&self) -> Result<()> {
        self.check(true)
            .await
            .map_err(|error| error.context("Could not repair dirty image"))?;
        self.clean().await
    }
}
