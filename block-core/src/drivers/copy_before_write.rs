//! `copy-before-write`: saves what a guest is about to overwrite.
//!
//! Reads and writes go to `file`; before a write changes a cluster that the [`BlockCopy`] still needs, its old content
//! goes to `target`. What happens when that fails or takes too long is this driver's policy; what is copied when is the
//! copy's.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backup::{BlockCopy, CopyError, CopyOptions, Located};
use crate::bitmap::{BitmapInfo, HBitmap};
use crate::driver::{
    BlockStatus, Driver, DriverInfo, IoFuture, Limits, Preallocation, WriteFlags, ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, Needs, OpenContext, Perm, default_child_permissions};
use crate::options::{CopyBeforeWriteOptions, DEFAULT_CBW_TIMEOUT_S, OnCbwError};
use crate::sync::lock;

/// Opens one.
pub async fn open(context: &OpenContext<'_>, options: &CopyBeforeWriteOptions) -> Result<Arc<dyn Driver>> {
    let file = context.child("file", ChildRole::Filtered, &options.file).await?;
    let target = context
        .child("target", ChildRole::Target, &options.target)
        .await?;
    let bitmap = match &options.bitmap {
        Some((node, name)) => {
            let node = context
                .graph()
                .find(node)
                .ok_or_else(|| BlockError::new(ErrorKind::NotFound, format!("Node '{node}' not found")))?;
            Some((name, node.bitmaps().get(name)?))
        }
        None => None,
    };
    let copy_options = CopyOptions {
        min_cluster_bytes: options.min_cluster_size.unwrap_or(0),
        compress: false,
        discard_source: options.discard_source,
    };
    let copy = BlockCopy::new(&file, &target, copy_options)
        .map_err(|error| error.context("Cannot create block-copy-state"))?;
    let cluster = copy.cluster_bytes();
    let mut access = HBitmap::new(copy.length().div_ceil(cluster));
    if let Some((name, bitmap)) = bitmap {
        bitmap.check_source_of(copy.length()).map_err(|error| {
            error
                .context(format!("Failed to merge bitmap '{name}' to internal copy-bitmap"))
                .context("Cannot create block-copy-state")
        })?;
        let ranges = bitmap.dirty_ranges();
        for (offset, len) in &ranges {
            access.set(offset / cluster, (offset + len).div_ceil(cluster));
        }
        copy.restrict_to(ranges);
    } else {
        access.set(0, u64::MAX);
    }
    Ok(Arc::new(CopyBeforeWrite {
        file,
        copy,
        policy: Mutex::new(Policy {
            on_error: options.on_cbw_error,
            timeout_s: options.cbw_timeout.unwrap_or(match options.on_cbw_error {
                OnCbwError::BreakGuestWrite => 0,
                OnCbwError::BreakSnapshot => DEFAULT_CBW_TIMEOUT_S,
            }),
        }),
        broken: AtomicBool::new(false),
        access: Mutex::new(access),
    }))
}

/// The driver; the graph's other parts reach its copy through [`Driver::as_any`].
#[derive(Debug)]
pub struct CopyBeforeWrite {
    file: Arc<Child>,
    copy: Arc<BlockCopy>,
    policy: Mutex<Policy>,
    /// The point in time is lost: an old cluster could not be saved and was overwritten.
    broken: AtomicBool,
    /// Clusters that readers of the point in time may see.
    access: Mutex<HBitmap>,
}

#[derive(Debug, Clone, Copy)]
struct Policy {
    on_error: OnCbwError,
    /// Seconds; 0 is no limit.
    timeout_s: u32,
}

impl CopyBeforeWrite {
    /// The copy below.
    pub fn copy(&self) -> &Arc<BlockCopy> {
        &self.copy
    }

    /// Whether the point in time was given up.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Judges a failed copy: the guest's write goes on or not.
    fn judge(&self, result: Result<(), CopyError>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(failure) => match lock(&self.policy).on_error {
                OnCbwError::BreakGuestWrite => Err(failure.error),
                OnCbwError::BreakSnapshot => {
                    if !self.broken.swap(true, Ordering::SeqCst) {
                        tracing::warn!(error = %failure.error, "the point in time was given up for a guest's write");
                    }
                    self.copy.give_up(&failure.error);
                    Ok(())
                }
            },
        }
    }

    async fn before_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.is_broken() {
            return Ok(());
        }
        if let Some(result) = self.copy.try_before_write(offset, len) {
            return self.judge(result);
        }
        let within = match lock(&self.policy).timeout_s {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        };
        let result = self.copy.before_write_within(offset, len, within).await;
        self.judge(result)
    }

    fn check_access(&self, offset: u64, len: u64) -> Result<()> {
        let cluster = self.copy.cluster_bytes();
        let denied = lock(&self.access)
            .next_clear(offset / cluster, (offset + len).div_ceil(cluster))
            .is_some();
        if denied || self.is_broken() {
            Err(BlockError::from_errno(13, "Permission denied"))
        } else {
            Ok(())
        }
    }

    /// Reads the point in time.
    pub async fn read_snapshot(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            self.check_access(at, rest.len() as u64)?;
            let located = self.copy.locate(at, rest.len() as u64).await;
            let len = match &located {
                Located::Target(len) | Located::Source(len, _) => *len,
            };
            let len = usize::try_from(len).unwrap_or(rest.len()).clamp(1, rest.len());
            let (now, later) = rest.split_at_mut(len);
            match &located {
                Located::Target(_) => self.copy.ends().1.read(at, now).await?,
                Located::Source(..) => {
                    self.file.read(at, now).await?;
                    // Broken meanwhile: the guard may have come too late.
                    self.check_access(at, len as u64)?;
                }
            }
            drop(located);
            at += len as u64;
            rest = later;
        }
        Ok(())
    }

    /// What the point in time holds at `offset`.
    pub async fn snapshot_status(&self, offset: u64, len: u64) -> Result<BlockStatus> {
        // All of it, as clients know it: who asks for the state of what it may not read is told so.
        self.check_access(offset, len)?;
        let located = self.copy.locate(offset, len).await;
        let mut status = match &located {
            Located::Target(len) => self.copy.ends().1.block_status(offset, *len, false).await?,
            Located::Source(len, _) => self.file.block_status(offset, *len, false).await?,
        };
        status.host = None;
        Ok(status)
    }

    /// The reader will not ask for this range again: its whole clusters are not saved any more, and what was saved of
    /// them is given back by the target.
    pub async fn discard_snapshot(&self, offset: u64, len: u64) -> Result<()> {
        let cluster = self.copy.cluster_bytes();
        let first = offset.div_ceil(cluster);
        let end = offset.saturating_add(len);
        let last = if end >= self.copy.length() {
            self.copy.length().div_ceil(cluster)
        } else {
            end / cluster
        };
        if first >= last {
            return Ok(());
        }
        lock(&self.access).clear(first, last);
        self.copy.forget(first, last);
        let start = first * cluster;
        let end = (last * cluster).min(self.copy.length());
        self.copy.ends().1.discard(start, end - start).await
    }

    /// The length of the point in time.
    pub fn snapshot_length(&self) -> u64 {
        self.copy.length()
    }
}

impl Driver for CopyBeforeWrite {
    fn name(&self) -> &'static str {
        "copy-before-write"
    }

    fn length(&self) -> u64 {
        self.file.length()
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: 1,
            ..self.file.limits()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(self.file.read(offset, buf))
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        self.file.try_read(offset, buf)
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.before_write(offset, buf.len() as u64).await?;
            self.file.write(offset, buf, flags).await
        })
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        if !self.is_broken() {
            let result = self.copy.try_before_write(offset, buf.len() as u64)?;
            if let Err(error) = self.judge(result) {
                return Some(Err(error));
            }
        }
        self.file.try_write(offset, buf, flags)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.before_write(offset, len).await?;
            self.file.write_zeroes(offset, len, flags).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            self.before_write(offset, len).await?;
            self.file.discard(offset, len).await
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(self.file.flush())
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(self.file.block_status(offset, len, want_host))
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        // The point in time keeps its length: what is added later is not part of it.
        Box::pin(self.file.truncate(length, preallocation))
    }

    fn close(&self) -> IoFuture<'_> {
        self.copy.retire();
        Box::pin(async { Ok(()) })
    }

    fn child_permissions(&self, _name: &str, role: ChildRole, needs: &Needs) -> (Perm, Perm) {
        let (mut perm, mut shared) = default_child_permissions(role, needs);
        if role == ChildRole::Filtered && needs.has_parents {
            // Old data is read as soon as somebody may write; whoever wrote past this node would overwrite it unsaved.
            perm = perm | Perm::CONSISTENT_READ;
            if self.copy.discards_source() {
                perm = perm | Perm::WRITE;
            }
            shared = shared.without(Perm::WRITE).without(Perm::RESIZE);
        }
        (perm, shared)
    }

    fn own_bitmaps(&self) -> Vec<BitmapInfo> {
        let cluster = self.copy.cluster_bytes();
        let shown = |clusters: u64| BitmapInfo {
            name: None,
            granularity_bytes: u32::try_from(cluster).unwrap_or(u32::MAX),
            dirty_bytes: clusters.saturating_mul(cluster),
            recording: false,
            busy: false,
            persistent: false,
            inconsistent: false,
        };
        let (saved, remaining) = self.copy.counts();
        let readable = lock(&self.access).count();
        vec![shown(readable), shown(saved), shown(remaining)]
    }

    fn debug_event(&self, event: &str) {
        self.file.event(event);
    }

    fn info(&self) -> DriverInfo {
        let below = self.file.info();
        DriverInfo {
            filename: below.filename,
            cluster_bytes: below.cluster_bytes,
            dirty: below.dirty,
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
