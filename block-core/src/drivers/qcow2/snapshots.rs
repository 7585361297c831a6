//! Internal snapshots: the table, taking one, deleting one.
//!
//! A snapshot shares every table and cluster with the active image: all their refcounts go up by one, and the copied
//! flags that would allow writing in place go away. The flags go first: one that is missing costs a copy, one too
//! many would cost the snapshot. While flags and refcounts differ a version 3 image is marked dirty, so that whoever
//! opens it after a crash sets them right.

use super::bytes::{be16, be32, be64, encode_table, part, to_u64, to_usize};
use super::entry::{COPIED, Mapping, OFFSET_MASK};
use super::header::{Header, MAX_L1_BYTES};
use super::meta::{Free, FreeReason};
use super::storage::Storage;
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::{SnapshotInfo, WriteFlags};
use crate::sync::lock;

/// Most bytes of extra data of one snapshot.
const MAX_EXTRA: u32 = 1024;
/// Most bytes of the snapshot table.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// One snapshot.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) l1_offset: u64,
    pub(super) l1_size: u32,
    info: SnapshotInfo,
    /// Extra data beyond what we know, kept as it is.
    more: Vec<u8>,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshots(Vec<Snapshot>);

impl Snapshots {
    pub(super) fn list(&self) -> &[Snapshot] {
        &self.0
    }

    pub(super) fn infos(&self) -> Vec<SnapshotInfo> {
        self.0.iter().map(|snapshot| snapshot.info.clone()).collect()
    }

    /// Bytes of the table on disk.
    pub(super) fn table_bytes(&self) -> u64 {
        to_u64(self.encode().len())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for snapshot in &self.0 {
            let info = &snapshot.info;
            out.extend_from_slice(&snapshot.l1_offset.to_be_bytes());
            out.extend_from_slice(&snapshot.l1_size.to_be_bytes());
            out.extend_from_slice(&u16::try_from(info.id.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&u16::try_from(info.name.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&info.date.0.to_be_bytes());
            out.extend_from_slice(&info.date.1.to_be_bytes());
            out.extend_from_slice(&info.vm_clock_nanoseconds.to_be_bytes());
            out.extend_from_slice(&u32::try_from(info.vm_state_bytes).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(
                &u32::try_from(24 + snapshot.more.len())
                    .unwrap_or(24)
                    .to_be_bytes(),
            );
            out.extend_from_slice(&info.vm_state_bytes.to_be_bytes());
            out.extend_from_slice(&info.disk_bytes.to_be_bytes());
            out.extend_from_slice(&info.icount.unwrap_or(u64::MAX).to_be_bytes());
            out.extend_from_slice(&snapshot.more);
            out.extend_from_slice(info.id.as_bytes());
            out.extend_from_slice(info.name.as_bytes());
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    }
}

fn unreadable() -> BlockError {
    BlockError::new(ErrorKind::Invalid, "Could not read snapshots")
}

/// Reads the snapshot table.
pub(super) async fn read_snapshots(file: &dyn Storage, header: &Header) -> Result<Snapshots> {
    let mut list = Vec::new();
    let mut at = header.snapshots_offset;
    let cluster = 1u64 << header.cluster_bits;
    for _ in 0..header.snapshot_count {
        let mut fixed = [0u8; 40];
        // Entries beyond the file's end would be all zeroes: none is, so the count is wrong.
        if at.saturating_add(40) > file.length() || at - header.snapshots_offset > MAX_TABLE_BYTES {
            return Err(unreadable());
        }
        file.read(at, &mut fixed)
            .await
            .map_err(|error| error.context("Could not read snapshots"))?;
        let id_len = usize::from(be16(&fixed, 12)?);
        let name_len = usize::from(be16(&fixed, 14)?);
        let extra_len = be32(&fixed, 36)?;
        if extra_len > MAX_EXTRA {
            return Err(unreadable());
        }
        let extra_len = to_usize(u64::from(extra_len))?;
        let mut rest = vec![0u8; extra_len + id_len + name_len];
        file.read(at + 40, &mut rest)
            .await
            .map_err(|error| error.context("Could not read snapshots"))?;
        let text = |at, len| part(&rest, at, len).map(|text| String::from_utf8_lossy(text).into_owned());
        let extra = |at: usize| {
            if extra_len >= at + 8 {
                be64(&rest, at).ok()
            } else {
                None
            }
        };
        let snapshot = Snapshot {
            l1_offset: be64(&fixed, 0)?,
            l1_size: be32(&fixed, 8)?,
            info: SnapshotInfo {
                id: text(extra_len, id_len)?,
                name: text(extra_len + id_len, name_len)?,
                vm_state_bytes: extra(0).unwrap_or(u64::from(be32(&fixed, 32)?)),
                date: (be32(&fixed, 16)?, be32(&fixed, 20)?),
                vm_clock_nanoseconds: be64(&fixed, 24)?,
                icount: extra(16).filter(|icount| *icount != u64::MAX),
                disk_bytes: extra(8).unwrap_or(header.size),
            },
            more: part(&rest, 24.min(extra_len), extra_len.saturating_sub(24))?.to_vec(),
        };
        let l1_bytes = u64::from(snapshot.l1_size) * 8;
        if !snapshot.l1_offset.is_multiple_of(cluster)
            || l1_bytes > MAX_L1_BYTES
            || snapshot.l1_offset > 1 << 62
        {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                "Snapshot L1 table offset invalid",
            ));
        }
        list.push(snapshot);
        at += to_u64((40 + rest.len()).next_multiple_of(8));
    }
    Ok(Snapshots(list))
}

impl Qcow2 {
    pub(super) fn snapshot_infos(&self) -> Vec<SnapshotInfo> {
        lock(&self.snapshots).infos()
    }

    /// Gets the image to itself with nothing waiting to be written or freed, and marked dirty where it can be.
    async fn at_rest(&self) -> Result<super::io::Alone<'_>> {
        let alone = self.alone().await?;
        self.clean().await?;
        if lock(&self.meta).geometry.version >= 3 {
            self.mark_dirty().await?;
        }
        Ok(alone)
    }

    /// Takes a snapshot; the id is chosen here.
    pub(super) async fn take_snapshot(&self, info: SnapshotInfo) -> Result<SnapshotInfo> {
        self.check_writable()?;
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let _alone = self.at_rest().await?;
        let result = self.take_snapshot_at_rest(info).await;
        self.set_right(result).await
    }

    /// After a failure half-way: leaves no wrong refcount or flag behind, if that can be done.
    async fn set_right<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let repaired = match self.clean().await {
                Ok(()) => self.check(true).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = repaired {
                tracing::warn!(%error, "qcow2 image is left with leaked clusters");
            }
        }
        result
    }

    async fn take_snapshot_at_rest(&self, mut info: SnapshotInfo) -> Result<SnapshotInfo> {
        let old = lock(&self.snapshots).clone();
        if old.0.len() >= to_usize(u64::from(super::header::MAX_SNAPSHOTS))? {
            return Err(BlockError::from_errno(27, "File too large"));
        }
        if info.name.len() > usize::from(u16::MAX) {
            return Err(BlockError::from_errno(22, "Invalid argument"));
        }
        let highest = old
            .0
            .iter()
            .filter_map(|snapshot| snapshot.info.id.parse::<u64>().ok())
            .max();
        info.id = (highest.unwrap_or(0) + 1).to_string();
        let (l1, bits, size) = {
            let meta = lock(&self.meta);
            (meta.l1.clone(), meta.geometry.cluster_bits, meta.header.size)
        };
        info.disk_bytes = size;
        // 1. Flags: nothing may be written in place any more.
        self.clear_copied(&l1).await?;
        // 2. References. From here on a failure leaves leaks, and the dirty mark to find them.
        self.add_references(&l1).await?;
        // 3. The snapshot's own L1 table, and the new snapshot table.
        let mut bytes = encode_table(&l1.iter().map(|entry| entry & !COPIED).collect::<Vec<_>>());
        let l1_run = self
            .take((to_u64(bytes.len())).div_ceil(1 << bits).max(1))
            .await?;
        bytes.resize(to_usize(l1_run.count << bits)?, 0);
        self.file
            .write(l1_run.first << bits, &bytes, WriteFlags::default())
            .await?;
        let l1_size = u32::try_from(l1.len()).map_err(|_| BlockError::from_errno(27, "File too large"))?;
        let l1_offset = l1_run.first << bits;
        let mut snapshots = old.clone();
        snapshots.0.push(Snapshot {
            l1_offset,
            l1_size,
            info: info.clone(),
            more: Vec::new(),
        });
        self.switch_snapshots(&old, snapshots, vec![l1_run]).await?;
        self.clean().await?;
        Ok(info)
    }

    /// Writes the snapshot table anew and makes it the image's. `taken` belongs to it.
    async fn switch_snapshots(
        &self,
        old: &Snapshots,
        new: Snapshots,
        mut taken: Vec<super::io::Taken<'_>>,
    ) -> Result<()> {
        let (bits, old_offset) = {
            let meta = lock(&self.meta);
            (meta.geometry.cluster_bits, meta.header.snapshots_offset)
        };
        let mut bytes = new.encode();
        if to_u64(bytes.len()) > MAX_TABLE_BYTES {
            return Err(BlockError::from_errno(27, "File too large"));
        }
        let mut offset = 0;
        if !bytes.is_empty() {
            let run = self.take(to_u64(bytes.len()).div_ceil(1 << bits)).await?;
            offset = run.first << bits;
            bytes.resize(to_usize(run.count << bits)?, 0);
            self.file.write(offset, &bytes, WriteFlags::default()).await?;
            taken.push(run);
        }
        self.write_back_with(true, true).await?;
        {
            let mut meta = lock(&self.meta);
            for run in &taken {
                meta.mark_metadata(run.first << bits, run.count << bits);
            }
        }
        // The header on disk may refer to the new clusters from the next line on, whatever comes of it.
        taken.into_iter().for_each(super::io::Taken::keep);
        let count = u32::try_from(new.0.len()).unwrap_or(0);
        self.update_header(|header| {
            header.snapshot_count = count;
            header.snapshots_offset = offset;
        })
        .await?;
        self.file.flush().await?;
        let old_bytes = old.table_bytes();
        if old_bytes > 0 {
            let count = old_bytes.div_ceil(1 << bits);
            let free = Free {
                first: old_offset >> bits,
                count,
                reason: FreeReason::Snapshot,
            };
            lock(&self.meta).frees.push(free);
        }
        *lock(&self.snapshots) = new;
        Ok(())
    }

    /// Takes the copied flags off the active image.
    async fn clear_copied(&self, l1: &[u64]) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        for (l1_index, entry) in l1.iter().enumerate() {
            let offset = entry & OFFSET_MASK;
            if offset == 0 || geometry.in_cluster(offset) != 0 {
                continue;
            }
            let mut table = self.read_table(offset).await?;
            let mut changed = false;
            for raw in &mut table {
                let kept = match Mapping::decode(&geometry, *raw) {
                    Ok(Mapping::Data { host, .. }) => Mapping::Data { host, copied: false }.encode(&geometry),
                    Ok(Mapping::Zero { host, .. }) => Mapping::Zero { host, copied: false }.encode(&geometry),
                    _ => continue,
                };
                changed |= kept != *raw;
                *raw = kept;
            }
            if changed {
                self.write_table(to_u64(l1_index), offset, &table).await?;
            }
        }
        {
            let mut meta = lock(&self.meta);
            for l1_index in 0..meta.l1.len() {
                let change = meta.next_change();
                if let Some(entry) = meta.l1.get_mut(l1_index)
                    && *entry & COPIED != 0
                {
                    *entry &= !COPIED;
                    meta.l1_dirty.insert(to_u64(l1_index) / 64, change);
                }
            }
        }
        self.write_back_with(true, true).await
    }

    /// Adds one reference to all that an L1 table refers to.
    async fn add_references(&self, l1: &[u64]) -> Result<()> {
        let geometry = lock(&self.meta).geometry;
        let bits = geometry.cluster_bits;
        for offset in l1
            .iter()
            .map(|entry| entry & OFFSET_MASK)
            .filter(|offset| *offset != 0)
        {
            let crowded = lock(&self.meta).refblocks.crowded();
            if crowded {
                self.write_back_with(true, true).await?;
            }
            let table = self.read_table(offset).await?;
            self.step(|meta| meta.add_reference(offset >> bits)).await?;
            for raw in table {
                let (first, count) = match Mapping::decode(&geometry, raw) {
                    Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) => {
                        (host >> bits, 1)
                    }
                    Ok(Mapping::Compressed(at)) => at.host_clusters(&geometry),
                    _ => continue,
                };
                for cluster in first..first + count {
                    self.step(|meta| meta.add_reference(cluster)).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes a snapshot.
    pub(super) async fn drop_snapshot(&self, id: &str) -> Result<()> {
        self.check_writable()?;
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let old = lock(&self.snapshots).clone();
        let Some(at) = old.0.iter().position(|snapshot| snapshot.info.id == id) else {
            return Err(BlockError::new(ErrorKind::NotFound, "Can't find the snapshot"));
        };
        let _alone = self.at_rest().await?;
        let result = self.drop_snapshot_at_rest(&old, at).await;
        self.set_right(result).await
    }

    async fn drop_snapshot_at_rest(&self, old: &Snapshots, at: usize) -> Result<()> {
        let mut new = old.clone();
        let gone = new.0.remove(at);
        self.switch_snapshots(old, new, Vec::new()).await?;
        // Nothing on disk refers to the snapshot any more: its references go.
        let geometry = lock(&self.meta).geometry;
        let bits = geometry.cluster_bits;
        let l1_bytes = u64::from(gone.l1_size) * 8;
        let mut bytes = vec![0u8; to_usize(l1_bytes)?];
        self.read_file(gone.l1_offset, &mut bytes).await?;
        let free = |first, count| Free {
            first,
            count,
            reason: FreeReason::Snapshot,
        };
        for entry in super::bytes::decode_table(&bytes) {
            let offset = entry & OFFSET_MASK;
            if offset == 0 || geometry.in_cluster(offset) != 0 {
                continue;
            }
            let table = self.read_table(offset).await?;
            let waiting = {
                let mut meta = lock(&self.meta);
                for raw in table {
                    let (first, count) = match Mapping::decode(&geometry, raw) {
                        Ok(Mapping::Data { host, .. } | Mapping::Zero { host: Some(host), .. }) => {
                            (host >> bits, 1)
                        }
                        Ok(Mapping::Compressed(at)) => at.host_clusters(&geometry),
                        _ => continue,
                    };
                    meta.frees.push(free(first, count));
                }
                meta.frees.push(free(offset >> bits, 1));
                meta.frees.waiting.len() > 4096 || meta.refblocks.crowded()
            };
            if waiting {
                self.write_back_with(true, true).await?;
            }
        }
        lock(&self.meta)
            .frees
            .push(free(gone.l1_offset >> bits, l1_bytes.div_ceil(1 << bits).max(1)));
        self.write_back_with(true, true).await?;
        self.write_back_with(true, true).await?;
        // What only the active image has now may be written in place again.
        self.check_copied(true).await?;
        self.clean().await
    }
}
