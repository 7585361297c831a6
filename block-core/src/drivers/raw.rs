//! `raw`: the bytes of another node as they are, or a window into them.

use std::any::Any;
use std::sync::Arc;

use crate::driver::{
    BlockStatus, Driver, DriverInfo, HostExtent, IoFuture, Limits, Preallocation, WriteFlags, WriteMapping,
    ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, OpenContext};
use crate::options::RawOptions;

/// Opens one.
pub async fn open(context: &OpenContext<'_>, options: &RawOptions) -> Result<Arc<dyn Driver>> {
    let whole = options.offset == 0 && options.size.is_none();
    let role = if whole {
        ChildRole::Filtered
    } else {
        ChildRole::Data
    };
    let file = context.child("file", role, &options.file).await?;
    let real = file.length();
    if real < options.offset {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            format!(
                "Offset ({}) cannot be greater than size of the containing file ({real})",
                options.offset
            ),
        ));
    }
    if let Some(size) = options.size {
        if real - options.offset < size {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!(
                    "The sum of offset ({}) and size ({size}) has to be smaller or equal to the actual size of the \
                     containing file ({real})",
                    options.offset
                ),
            ));
        }
    }
    Ok(Arc::new(Raw {
        file,
        offset: options.offset,
        size: options.size,
    }))
}

#[derive(Debug)]
struct Raw {
    file: Arc<Child>,
    offset: u64,
    size: Option<u64>,
}

impl Raw {
    /// Where a guest offset lies in the file. Ranges come checked against the length of the node or, when nothing
    /// limits it, against the largest length.
    fn at(&self, offset: u64) -> Result<u64> {
        self.offset
            .checked_add(offset)
            .ok_or_else(|| BlockError::from_errno(22, "Invalid argument"))
    }

    /// A window does not grow by writing past its end.
    fn writable(&self, offset: u64, len: u64) -> Result<u64> {
        match self.size {
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
        let rest = self.file.length().saturating_sub(self.offset);
        self.size.map_or(rest, |size| size.min(rest))
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: 1,
            ..self.file.limits()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move { self.file.read(self.at(offset)?, buf).await })
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        match self.at(offset) {
            Ok(at) => self.file.try_read(at, buf),
            Err(error) => Some(Err(error)),
        }
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
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
        Box::pin(self.file.flush())
    }

    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            // Through the layers below: `raw` holds everything that it shows, whichever of them has it.
            let mut status = self.file.node().status_above(None, self.at(offset)?, len).await?;
            status.allocated = true;
            Ok(status)
        })
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            if self.size.is_some() {
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
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
