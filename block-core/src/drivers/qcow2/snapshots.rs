//! Internal snapshots: the table, taking one, deleting one.
//!
//! A snapshot shares clusters with the active image: their refcounts go up by one, and the copied flags that would
//! allow writing in place go away. [`super::shadow`] does both at once, so that a crash finds the image as it was or
//! as it is going to be. Deleting one goes the same way.

use super::bytes::{be16, be32, be64, part, to_u64, to_usize};
use super::header::{Header, MAX_L1_BYTES};
use super::shadow::Sharing;
use super::storage::Storage;
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::SnapshotInfo;
use crate::sync::lock;

/// Most bytes of extra data of one snapshot.
const MAX_EXTRA: u32 = 1024;
/// Most bytes of the snapshot table.
pub(super) const MAX_TABLE_BYTES: u64 = 64 << 20;

/// One snapshot.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) l1_offset: u64,
    pub(super) l1_size: u32,
    info: SnapshotInfo,
    /// Extra data beyond what we know, kept as it is.
    more: Vec<u8>,
}

impl Snapshot {
    /// Whether its L1 table can lie where it is said to. One that cannot harms nobody who does not use it.
    pub(super) fn check_l1(&self, cluster: u64) -> Result<()> {
        if u64::from(self.l1_size) * 8 > MAX_L1_BYTES {
            Err(BlockError::new(ErrorKind::Invalid, "Snapshot L1 table too large"))
        } else if !self.l1_offset.is_multiple_of(cluster) || self.l1_offset > 1 << 56 {
            Err(BlockError::new(
                ErrorKind::Invalid,
                "Snapshot L1 table offset invalid",
            ))
        } else {
            Ok(())
        }
    }
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshots {
    list: Vec<Snapshot>,
    /// Bytes of the table on disk: others may write less of each entry than we do.
    table_bytes: u64,
}

impl Snapshots {
    pub(super) fn list(&self) -> &[Snapshot] {
        &self.list
    }

    pub(super) fn infos(&self) -> Vec<SnapshotInfo> {
        self.list.iter().map(|snapshot| snapshot.info.clone()).collect()
    }

    /// Bytes of the table on disk.
    pub(super) fn table_bytes(&self) -> u64 {
        self.table_bytes
    }

    /// The table's bytes as they are going to be on disk.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for snapshot in &self.list {
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
        self.table_bytes = to_u64(out.len());
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
    for nth in 0..header.snapshot_count {
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
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Too much extra metadata in snapshot table entry {nth}"),
            ));
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
        list.push(snapshot);
        at += to_u64((40 + rest.len()).next_multiple_of(8));
    }
    Ok(Snapshots {
        list,
        table_bytes: at - header.snapshots_offset,
    })
}

impl Qcow2 {
    pub(super) fn snapshot_infos(&self) -> Vec<SnapshotInfo> {
        lock(&self.snapshots).infos()
    }

    /// Gets the image to itself with nothing waiting to be written or freed.
    async fn at_rest(&self) -> Result<super::io::Alone<'_>> {
        let alone = self.alone().await?;
        self.clean().await?;
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

    /// After a failure half-way: leaves no leaked clusters behind, if that can be done.
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
        if old.list.len() >= to_usize(u64::from(super::header::MAX_SNAPSHOTS))? {
            return Err(BlockError::from_errno(27, "File too large"));
        }
        if info.name.len() > usize::from(u16::MAX) {
            return Err(BlockError::from_errno(22, "Invalid argument"));
        }
        let ids = old
            .list
            .iter()
            .filter_map(|snapshot| snapshot.info.id.parse::<u64>().ok());
        info.id = (ids.max().unwrap_or(0).saturating_add(1)).to_string();
        let (l1_offset, l1_len, size) = {
            let meta = lock(&self.meta);
            (meta.header.l1_offset, meta.l1.len(), meta.header.size)
        };
        info.disk_bytes = size;
        let mut new = old.clone();
        new.list.push(Snapshot {
            l1_offset,
            l1_size: u32::try_from(l1_len).map_err(|_| BlockError::from_errno(27, "File too large"))?,
            info: info.clone(),
            more: Vec::new(),
        });
        self.switch_over(&old, new, Sharing::Gain).await?;
        self.clean().await?;
        Ok(info)
    }

    /// Deletes a snapshot.
    pub(super) async fn drop_snapshot(&self, id: &str) -> Result<()> {
        self.check_writable()?;
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let old = lock(&self.snapshots).clone();
        let Some(at) = old.list.iter().position(|snapshot| snapshot.info.id == id) else {
            return Err(BlockError::new(ErrorKind::NotFound, "Can't find the snapshot"));
        };
        let _alone = self.at_rest().await?;
        let result = self.drop_snapshot_at_rest(&old, at).await;
        self.set_right(result).await
    }

    async fn drop_snapshot_at_rest(&self, old: &Snapshots, at: usize) -> Result<()> {
        let mut new = old.clone();
        let gone = new.list.remove(at);
        gone.check_l1(lock(&self.meta).geometry.cluster())?;
        self.switch_over(old, new, Sharing::Loss(gone.l1_offset, gone.l1_size))
            .await?;
        self.clean().await
    }
}
