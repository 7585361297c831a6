//! Changing the length of the disk, and allocating up front.

use std::sync::atomic::Ordering;

use super::bytes::{encode_table, to_u64, to_usize};
use super::header::MAX_L1_BYTES;
use super::io::Hold;
use super::meta::{Free, FreeReason, Place, ZeroMode};
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::{Preallocation, WriteFlags, ZeroFlags};
use crate::sync::lock;

fn invalid(message: &str) -> BlockError {
    BlockError::new(ErrorKind::Invalid, message)
}

/// Takes the new size back out of memory if it did not come to be.
struct Growing<'a> {
    image: &'a Qcow2,
    old: u64,
    done: bool,
}

impl Growing<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.image.meta).header.size = self.old;
        }
    }
}

impl Qcow2 {
    pub(super) async fn resize(&self, length: u64, preallocation: Preallocation) -> Result<()> {
        self.check_writable()?;
        if !length.is_multiple_of(512) {
            return Err(invalid("The new size must be a multiple of 512"));
        }
        // Held over awaits: only operations of this kind wait for it, and none is started from inside another.
        let _operation = self.operations.lock().await;
        let _alone = self.alone().await?;
        let (old, snapshots, version) = {
            let meta = lock(&self.meta);
            (
                meta.header.size,
                meta.header.snapshot_count,
                meta.geometry.version,
            )
        };
        if snapshots > 0 && version < 3 {
            return Err(BlockError::new(
                ErrorKind::Unsupported,
                "Can't resize a v2 image which has snapshots",
            ));
        }
        if length < old {
            if preallocation != Preallocation::Off {
                return Err(invalid("Preallocation can't be used for shrinking an image"));
            }
            self.shrink(old, length).await
        } else {
            self.grow(old, length, preallocation).await
        }
    }

    async fn shrink(&self, old: u64, new: u64) -> Result<()> {
        let (cluster, coverage) = {
            let meta = lock(&self.meta);
            (meta.geometry.cluster(), meta.geometry.l2_coverage())
        };
        let first = new.div_ceil(cluster);
        let end = old.div_ceil(cluster);
        self.zero_clusters(first, end.saturating_sub(first), ZeroMode::Forget)
            .await
            .map_err(|error| error.context("Failed to discard cropped clusters"))?;
        // Tables that map nothing of the disk any more.
        {
            let mut meta = lock(&self.meta);
            let slices = 1u64 << (meta.geometry.l2_bits() - meta.geometry.slice_bits);
            for l1_index in new.div_ceil(coverage)..to_u64(meta.l1.len()) {
                let Some((host, _)) = meta.table(l1_index).ok().flatten() else {
                    continue;
                };
                for key in l1_index * slices..(l1_index + 1) * slices {
                    meta.l2.remove(key);
                }
                let change = meta.next_change();
                if let Some(entry) = usize::try_from(l1_index).ok().and_then(|at| meta.l1.get_mut(at)) {
                    *entry = 0;
                }
                meta.l1_dirty.insert(l1_index / 64, change);
                let first = host >> meta.geometry.cluster_bits;
                meta.frees.push(Free {
                    first,
                    count: 1,
                    reason: FreeReason::Other,
                });
            }
        }
        self.write_back(true).await?;
        self.update_header(|header| header.size = new).await?;
        // At once: a request that is dropped below must not leave the two apart.
        self.length.store(new, Ordering::Release);
        self.file.flush().await?;
        self.write_back(true).await?;
        self.cut_tail().await
    }

    /// Gives the unused end of the file back.
    async fn cut_tail(&self) -> Result<()> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let mut end = self.file.length().div_ceil(1 << bits);
        while end > 0 {
            if self.step(|meta| meta.refcount(end - 1)).await? > 0 {
                break;
            }
            end -= 1;
        }
        let settled = {
            let meta = lock(&self.meta);
            meta.frees.quarantine.is_empty() && !meta.unsettled
        };
        if self.file.grows_zeroed() && settled && end << bits < self.file.length() {
            self.file.truncate(end << bits, Preallocation::Off).await?;
            let mut meta = lock(&self.meta);
            meta.fresh_from = meta.fresh_from.min(end);
            meta.free_hint = meta.free_hint.min(end);
        }
        Ok(())
    }

    async fn grow(&self, old: u64, new: u64, preallocation: Preallocation) -> Result<()> {
        let (cluster, needed, have) = {
            let meta = lock(&self.meta);
            (
                meta.geometry.cluster(),
                meta.geometry.l1_entries(new),
                to_u64(meta.l1.len()),
            )
        };
        if needed > MAX_L1_BYTES / 8 || new > i64::MAX.unsigned_abs() {
            return Err(BlockError::from_errno(
                27,
                "Failed to grow the L1 table: File too large",
            ));
        }
        if needed > have {
            self.grow_l1(needed)
                .await
                .map_err(|error| error.context("Failed to grow the L1 table"))?;
        }
        // The disk's last cluster may hold bytes behind its end, from when it was longer.
        let edge = new.min(old.next_multiple_of(cluster));
        if old < edge {
            let zeroes = vec![0u8; to_usize(edge - old)?];
            if !self.reads_zero(old, edge - old).await? {
                self.write_inside(old, &zeroes, WriteFlags::default()).await?;
            }
        }
        let growing = Growing {
            image: self,
            old: lock(&self.meta).header.size,
            done: false,
        };
        let backing = self.backing.load().as_ref().map_or(0, |backing| backing.length());
        if edge < new.min(backing) {
            // What the backing file has there must not show through.
            let (first, end) = (edge / cluster, new.min(backing).div_ceil(cluster));
            if lock(&self.meta).geometry.version >= 3 {
                lock(&self.meta).header.size = new;
                self.zero_clusters(first, end - first, ZeroMode::Unmap).await?;
            } else {
                return Err(BlockError::new(
                    ErrorKind::Unsupported,
                    "Failed to zero out the new area",
                ));
            }
        }
        if preallocation != Preallocation::Off {
            lock(&self.meta).header.size = new;
            self.preallocate(old, new, preallocation).await?;
        }
        self.write_back(true).await?;
        self.update_header(|header| header.size = new)
            .await
            .map_err(|error| error.context("Failed to update the image size"))?;
        growing.done();
        self.length.store(new, Ordering::Release);
        self.file.flush().await
    }

    /// Moves the L1 table to a place with room for `entries`.
    async fn grow_l1(&self, entries: u64) -> Result<()> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let clusters = (entries * 8).div_ceil(1 << bits);
        let taken = self.take(clusters).await?;
        // Everything dirty is out, so that memory and the new table agree; nobody else is at work.
        self.write_back(true).await?;
        let host = taken.first << bits;
        let (table, old) = {
            let mut meta = lock(&self.meta);
            let mut table = meta.l1.clone();
            table.resize(to_usize(entries)?, 0);
            meta.mark_metadata(host, clusters << bits);
            let old_clusters = (u64::from(meta.header.l1_size) * 8).div_ceil(1 << bits);
            (table, (meta.header.l1_offset >> bits, old_clusters))
        };
        let mut bytes = encode_table(&table);
        bytes.resize(to_usize(clusters << bits)?, 0);
        self.file.event("l1_grow_write_table");
        self.file.write(host, &bytes, WriteFlags::default()).await?;
        self.file.flush().await?;
        let size = u32::try_from(entries).map_err(|_| invalid("File too large"))?;
        self.file.event("l1_grow_activate_table");
        // From here on the disk's header may refer to the new table, whatever happens.
        taken.keep();
        self.update_header(|header| {
            header.l1_offset = host;
            header.l1_size = size;
        })
        .await?;
        let mut meta = lock(&self.meta);
        meta.l1 = table;
        if old.1 > 0 {
            meta.frees.push(Free {
                first: old.0,
                count: old.1,
                reason: FreeReason::Other,
            });
        }
        Ok(())
    }

    /// Allocates clusters for a range of the disk.
    async fn preallocate(&self, from: u64, to: u64, mode: Preallocation) -> Result<()> {
        let mut at = from;
        let mut end = 0;
        while at < to {
            let left = to - at;
            let place = self
                .step(|meta| meta.plan_write(at, left, 0, true))
                .await
                .map_err(|error| error.context("Failed to allocate data clusters"))?;
            match place {
                Place::There { len, .. } => at += len,
                Place::New { allocation, len } => {
                    let cluster = lock(&self.meta).geometry.cluster();
                    let (host, total, fresh) =
                        (allocation.host, allocation.count * cluster, allocation.fresh);
                    let hold = Hold::new(self, allocation);
                    match mode {
                        Preallocation::Off | Preallocation::Metadata if fresh => {}
                        Preallocation::Full => self.write_zero_bytes(host, total).await?,
                        _ => self.file.write_zeroes(host, total, ZeroFlags::default()).await?,
                    }
                    hold.commit().await?;
                    end = end.max(host + total);
                    at += len;
                }
            }
        }
        if self.file.length() < end {
            self.file
                .truncate(end, Preallocation::Off)
                .await
                .map_err(|error| error.context("Failed to resize underlying file"))?;
        }
        Ok(())
    }

    async fn write_zero_bytes(&self, host: u64, len: u64) -> Result<()> {
        let zeroes = vec![0u8; to_usize(len.min(1 << 20))?];
        let mut at = 0;
        while at < len {
            let part = to_usize((len - at).min(to_u64(zeroes.len())))?;
            self.file
                .write(
                    host + at,
                    zeroes.get(..part).unwrap_or(&zeroes),
                    WriteFlags::default(),
                )
                .await?;
            at += to_u64(part);
        }
        Ok(())
    }
}
