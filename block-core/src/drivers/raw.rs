//! `raw`: the bytes of another node as they are, or a window into them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver::{
    BlockStatus, Driver, DriverInfo, HostExtent, IoFuture, Limits, Preallocation, WriteFlags, WriteMapping,
    ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, OpenContext};
use crate::options::{DriverOptions, NodeOptions, RawOptions};
use crate::types::SECTOR_BYTES;

/// Opens one.
pub async fn open(context: &OpenContext<'_>, options: &RawOptions) -> Result<Arc<dyn Driver>> {
    let whole = options.offset == 0 && options.size.is_none();
    let role = if whole {
        ChildRole::Filtered
    } else {
        ChildRole::Data
    };
    let file = context.child("file", role, &options.file).await?;
    check_window(&file, options)?;
    let raw = Raw {
        file,
        offset: AtomicU64::new(0),
        size: AtomicU64::new(UP_TO_THE_END),
    };
    raw.set_window(options);
    Ok(Arc::new(raw))
}

/// Stands for a window without a size of its own.
const UP_TO_THE_END: u64 = u64::MAX;

/// Whether the window lies inside the file.
fn check_window(file: &Child, options: &RawOptions) -> Result<()> {
    let real = file.length();
    let invalid = |text: String| Err(BlockError::new(ErrorKind::Invalid, text));
    if real < options.offset {
        return invalid(format!(
            "Offset ({}) cannot be greater than size of the containing file ({real})",
            options.offset
        ));
    }
    let Some(size) = options.size else { return Ok(()) };
    if real - options.offset < size {
        // Two blanks: clients compare with the text that QEMU has.
        return invalid(format!(
            "The sum of offset ({}) and size ({size}) has to be smaller or equal to the  actual size of the \
             containing file ({real})",
            options.offset
        ));
    }
    if size % SECTOR_BYTES != 0 {
        return invalid("Specified size is not multiple of 512".to_owned());
    }
    Ok(())
}

#[derive(Debug)]
struct Raw {
    file: Arc<Child>,
    /// The window changes only at reopen, while no request is in flight.
    offset: AtomicU64,
    size: AtomicU64,
}

impl Raw {
    fn set_window(&self, options: &RawOptions) {
        self.offset.store(options.offset, Ordering::Relaxed);
        self.size
            .store(options.size.unwrap_or(UP_TO_THE_END), Ordering::Relaxed);
    }

    fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    fn size(&self) -> Option<u64> {
        Some(self.size.load(Ordering::Relaxed)).filter(|size| *size != UP_TO_THE_END)
    }

    /// Where a guest offset lies in the file. Ranges come checked against the length of the node or, when nothing
    /// limits it, against the largest length.
    fn at(&self, offset: u64) -> Result<u64> {
        self.offset()
            .checked_add(offset)
            .ok_or_else(|| BlockError::from_errno(22, "Invalid argument"))
    }

    /// A window does not grow by writing past its end.
    fn writable(&self, offset: u64, len: u64) -> Result<u64> {
        match self.size() {
            Some(size) if offset.saturating_add(len) > size => {
                Err(BlockError::from_errno(28, "No space left on device"))
            }
            _ => self.at(offset),
        }
    }
}

impl Driver for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn length(&self) -> u64 {
        let rest = self.file.length().saturating_sub(self.offset());
        self.size().map_or(rest, |size| size.min(rest))
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: 1,
            ..self.file.limits()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            self.file.event("read_aio");
            self.file.read(self.at(offset)?, buf).await
        })
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        match self.at(offset) {
            Ok(at) => self.file.try_read(at, buf),
            Err(error) => Some(Err(error)),
        }
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.file.event("write_aio");
            self.file
                .write(self.writable(offset, buf.len() as u64)?, buf, flags)
                .await
        })
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        match self.writable(offset, buf.len() as u64) {
            Ok(at) => self.file.try_write(at, buf, flags),
            Err(error) => Some(Err(error)),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.file
                .write_zeroes(self.writable(offset, len)?, len, flags)
                .await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move { self.file.discard(self.writable(offset, len)?, len).await })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            self.file.event("flush_to_os");
            self.file.flush_event();
            self.file.flush().await
        })
    }

    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            // Through the layers below: `raw` holds everything that it shows, whichever of them has it, if one has.
            let mut status = self.file.node().status_above(None, self.at(offset)?, len).await?;
            status.allocated |= status.zero || status.data;
            Ok(status)
        })
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            if self.size().is_some() {
                return Err(BlockError::new(
                    ErrorKind::Unsupported,
                    "Cannot resize fixed-size raw disks",
                ));
            }
            self.file.truncate(self.at(length)?, preallocation).await
        })
    }

    fn host_extent(&self, offset: u64) -> Option<HostExtent> {
        self.file.host_extent(self.at(offset).ok()?)
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async move { self.file.map_for_write(self.writable(offset, len)?, len).await })
    }

    fn commit_write(&self, mapping: WriteMapping) -> IoFuture<'_> {
        Box::pin(async move { self.file.commit_write(mapping.extent.offset, mapping).await })
    }

    fn abandon_write(&self, mapping: WriteMapping) {
        self.file.abandon_write(mapping);
    }

    fn reopen<'a>(&'a self, options: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async move {
            let DriverOptions::Raw(raw) = &options.driver else {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    "Cannot change the option 'driver'",
                ));
            };
            check_window(&self.file, raw)?;
            self.set_window(raw);
            Ok(())
        })
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn debug_event(&self, event: &str) {
        self.file.event(event);
    }

    fn info(&self) -> DriverInfo {
        let below = self.file.info();
        DriverInfo {
            filename: below.filename,
            allocated_bytes: below.allocated_bytes,
            cluster_bytes: below.cluster_bytes,
            dirty: below.dirty,
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
