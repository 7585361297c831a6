//! `file` and `host_device`: bytes of a host file.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::driver::{
    BlockStatus, Driver, DriverInfo, FormatInfo, HostExtent, IoFuture, Limits, Preallocation, WriteFlags,
    WriteMapping, ZeroFlags,
};
use crate::error::{BlockError, Result};
use crate::graph::OpenContext;
use crate::options::FileOptions;

/// What kind of file is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A block device.
    Device,
}

/// Opens a host file.
pub async fn open(context: &OpenContext<'_>, options: &FileOptions, kind: Kind) -> Result<Arc<dyn Driver>> {
    let filename = options.filename.clone();
    let read_only = context.read_only();
    let (file, length) = context
        .graph()
        .handle()
        .spawn_blocking(move || {
            let file = OpenOptions::new()
                .read(true)
                .write(!read_only)
                .custom_flags(0)
                .open(&filename)
                .map_err(|error| BlockError::from(error).context(format!("Could not open '{filename}'")))?;
            let length = seek(&file, SeekFrom::End(0))?;
            Ok::<_, BlockError>((file, length))
        })
        .await
        .map_err(|_| BlockError::from_errno(5, "Input/output error"))??;
    let inline = is_memory(&file);
    Ok(Arc::new(HostFile {
        filename: options.filename.clone(),
        kind,
        file: Arc::new(OwnedFd::from(file)),
        length: AtomicU64::new(length),
        inline,
        handle: context.graph().handle().clone(),
    }))
}

fn is_memory(file: &File) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(TMPFS_MAGIC))
}

#[derive(Debug)]
struct HostFile {
    filename: String,
    kind: Kind,
    file: Arc<OwnedFd>,
    length: AtomicU64,
    /// The file lies in memory: I/O never waits for a device.
    inline: bool,
    handle: tokio::runtime::Handle,
}

impl HostFile {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        match self.handle.spawn_blocking(move || work(&file)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(BlockError::from_errno(125, "Operation canceled")),
        }
    }

    fn grew_to(&self, end: u64) {
        self.length.fetch_max(end, Ordering::Relaxed);
    }
}

fn read_full(file: &OwnedFd, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::pread(file, &mut *buf, offset) {
            // The file became shorter than it was: what is missing reads as zeroes.
            Ok(0) => {
                buf.fill(0);
                return Ok(());
            }
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_full(file: &OwnedFd, mut offset: u64, mut buf: &[u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::pwrite(file, buf, offset) {
            Ok(0) => return Err(io::Error::from_raw_os_error(28)),
            Ok(count) => {
                buf = &buf[count..];
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Driver for HostFile {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Regular => "file",
            Kind::Device => "host_device",
        }
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            if self.inline {
                return Ok(read_full(&self.file, offset, buf)?);
            }
            let mut bounce = vec![0; buf.len()];
            let bounce = self
                .blocking(move |file| {
                    read_full(file, offset, &mut bounce)?;
                    Ok(bounce)
                })
                .await?;
            buf.copy_from_slice(&bounce);
            Ok(())
        })
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        self.inline.then(|| Ok(read_full(&self.file, offset, buf)?))
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            let end = offset + buf.len() as u64;
            if self.inline {
                write_full(&self.file, offset, buf)?;
            } else {
                let bounce = buf.to_vec();
                self.blocking(move |file| write_full(file, offset, &bounce))
                    .await?;
            }
            self.grew_to(end);
            if flags.fua {
                self.flush().await?;
            }
            Ok(())
        })
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        if !self.inline || flags.fua {
            return None;
        }
        let result = write_full(&self.file, offset, buf).map_err(BlockError::from);
        if result.is_ok() {
            self.grew_to(offset + buf.len() as u64);
        }
        Some(result)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.blocking(move |file| {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let zero = FallocateFlags::ZERO_RANGE;
                let first = if flags.may_unmap { punch } else { zero };
                let mut result = fallocate(file, first, offset, len);
                if result.is_err() && !flags.no_fallback {
                    // Without ZERO_RANGE (tmpfs): punch, then allocate again.
                    result = fallocate(file, punch, offset, len);
                    if result.is_ok() {
                        result = fallocate(file, FallocateFlags::empty(), offset, len);
                    }
                }
                Ok(result?)
            })
            .await?;
            self.grew_to(offset + len);
            if flags.fua {
                self.flush().await?;
            }
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            self.blocking(move |file| {
                Ok(fallocate(
                    file,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    offset,
                    len,
                )?)
            })
            .await
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move { self.blocking(|file| Ok(rustix::fs::fdatasync(file)?)).await })
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        let _ = want_host;
        Box::pin(async move {
            let (run, data) = self
                .blocking(move |file| Ok(extent_at(file, offset, len)))
                .await?;
            let host = Some(HostExtent {
                file: Arc::clone(&self.file),
                offset,
            });
            Ok(BlockStatus {
                len: run,
                allocated: true,
                zero: !data,
                data,
                compressed: false,
                host,
            })
        })
    }

    fn truncate(&self, length: u64, _preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            self.blocking(move |file| Ok(rustix::fs::ftruncate(file, length)?))
                .await?;
            self.length.store(length, Ordering::Relaxed);
            Ok(())
        })
    }

    fn host_extent(&self, offset: u64) -> Option<HostExtent> {
        Some(HostExtent {
            file: Arc::clone(&self.file),
            offset,
        })
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async move {
            let extent = HostExtent {
                file: Arc::clone(&self.file),
                offset,
            };
            Ok(Some(WriteMapping {
                extent,
                len,
                token: 0,
            }))
        })
    }

    fn commit_write(&self, mapping: WriteMapping) -> IoFuture<'_> {
        self.grew_to(mapping.extent.offset + mapping.len);
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn info(&self) -> DriverInfo {
        let blocks = rustix::fs::fstat(&self.file)
            .ok()
            .and_then(|stat| u64::try_from(stat.st_blocks).ok());
        DriverInfo {
            filename: self.filename.clone(),
            allocated_bytes: blocks.map(|blocks| blocks.saturating_mul(512)),
            specific: FormatInfo::File {
                extent_size_hint: None,
            },
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The run at `offset`, at most `len` bytes, and whether it is data. Without SEEK_DATA all is data.
fn extent_at(file: &OwnedFd, offset: u64, len: u64) -> (u64, bool) {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => ((data - offset).min(len), false),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => ((hole - offset).min(len), true),
            _ => (len, true),
        },
        Err(rustix::io::Errno::NXIO) => (len, false),
        Err(_) => (len, true),
    }
}
