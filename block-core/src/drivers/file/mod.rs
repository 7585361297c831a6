//! `file` and `host_device`: bytes of a host file.
//!
//! What can be done without waiting is done at once (`RWF_NOWAIT`, or any I/O on a file system in memory); the rest
//! goes through an [`Engine`] with buffers of its own.

mod lock;
mod space;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustix::fs::{FileType, SeekFrom, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

use crate::driver::{
    BlockStatus, DiscardStats, Driver, DriverInfo, FormatInfo, HostExtent, IoFuture, Limits, Preallocation,
    WriteFlags, WriteMapping, ZeroFlags,
};
use crate::engine::{Buffer, Engine, Op, read_full, write_full};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{OpenContext, Perm};
use crate::options::{AioBackend, DriverOptions, FileOptions, NodeOptions};
use crate::sync::lock as locked;

use lock::Held;

/// Takes the image lock of somebody who is about to empty the file and to give it another length. It holds until the
/// file is closed.
pub fn lock_for_creation(file: &OwnedFd, filename: &str) -> Result<()> {
    let wanted = Held::new(Perm::WRITE | Perm::RESIZE, Perm::ALL.without(Perm::RESIZE));
    if lock::is_supported(file) {
        lock::change(file, Held::NOTHING, wanted)?;
        lock::check(file, wanted, filename)?;
    }
    Ok(())
}

/// What kind of file is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A block device.
    Device,
}

impl Kind {
    /// The name of the driver.
    fn driver(self) -> &'static str {
        match self {
            Self::Regular => "file",
            Self::Device => "host_device",
        }
    }
}

/// Opens a host file.
pub async fn open(context: &OpenContext<'_>, options: &FileOptions, kind: Kind) -> Result<Arc<dyn Driver>> {
    let direct = context.options().cache.direct == Some(true);
    check_options(options, kind, direct)?;
    let engines = context.graph().engines();
    let engine = engines.choose(options.aio);
    let (filename, read_only) = (options.filename.clone(), context.read_only());
    let fall_back = context.options().auto_read_only == Some(true);
    let (open, length, forced) = call(&*engine, move || {
        match open_file(&filename, kind, read_only, direct) {
            Err(error)
                if fall_back
                    && !read_only
                    && matches!(error.errno(), libc::EACCES | libc::EPERM | libc::EROFS) =>
            {
                open_file(&filename, kind, true, direct).map(|(open, length)| (open, length, true))
            }
            result => result.map(|(open, length)| (open, length, false)),
        }
    })
    .await?;
    if forced {
        context.force_read_only();
    }
    let locking = options.locking != Some(false)
        && context.options().force_share != Some(true)
        && lock::is_supported(&open.file);
    Ok(Arc::new(HostFile {
        filename: options.filename.clone(),
        kind,
        open: ArcSwap::from_pointee(open),
        length: AtomicU64::new(length),
        engine,
        locks: Mutex::new(Locks {
            enabled: locking,
            held: Held::NOTHING,
            wanted: Held::NOTHING,
        }),
        can_nowait_read: AtomicBool::new(true),
        can_nowait_write: AtomicBool::new(true),
        can_discard: AtomicBool::new(true),
        discards: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
    }))
}

fn check_options(options: &FileOptions, kind: Kind, direct: bool) -> Result<()> {
    let filename = &options.filename;
    if filename.is_empty() {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            format!("The '{}' block driver requires a file name", kind.driver()),
        ));
    }
    if let Some(number) = filename.strip_prefix("/dev/fdset/") {
        // Such names stand for descriptors that were passed to a monitor, which is not offered.
        return Err(if number.parse::<i64>().is_ok() {
            BlockError::from_errno(
                libc::ENOSYS,
                format!("Could not open '{filename}': Function not implemented"),
            )
        } else {
            BlockError::new(ErrorKind::Invalid, format!("Could not parse fdset {filename}"))
        });
    }
    if options.aio == Some(AioBackend::Native) && !direct {
        return Err(BlockError::new(
            ErrorKind::Invalid,
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        ));
    }
    Ok(())
}

/// Runs work whose errors are ours on an engine.
async fn call<T: Send + 'static>(
    engine: &dyn Engine,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    engine.call(move || Ok(work())).await?
}

fn open_file(filename: &str, kind: Kind, read_only: bool, direct: bool) -> Result<(OpenFile, u64)> {
    let could_not = |error: BlockError| error.context(format_args!("Could not open '{filename}'"));
    let mut flags = libc::O_CLOEXEC;
    if direct {
        flags |= libc::O_DIRECT;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(flags)
        .open(filename);
    let file = match file {
        Ok(file) => OwnedFd::from(file),
        Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(BlockError::from_errno(
                libc::EINVAL,
                format!("Could not open '{filename}': filesystem does not support O_DIRECT"),
            ));
        }
        Err(error) => return Err(could_not(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| could_not(error.into()))?;
    let found = FileType::from_raw_mode(stat.st_mode);
    match kind {
        Kind::Regular if found != FileType::RegularFile => {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("'file' driver requires '{filename}' to be a regular file"),
            ));
        }
        Kind::Device if !matches!(found, FileType::BlockDevice | FileType::CharacterDevice) => {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!(
                    "'host_device' driver requires '{filename}' to be either a character or block device"
                ),
            ));
        }
        Kind::Regular | Kind::Device => {}
    }
    let length = seek(&file, SeekFrom::End(0))
        .map_err(|error| BlockError::from(error).context("Could not refresh total sector count"))?;
    let alignment = if direct { probe_alignment(&file) } else { 1 };
    let inline = !direct && space::is_memory(&file);
    Ok((
        OpenFile {
            file: Arc::new(file),
            read_only,
            direct,
            inline,
            alignment,
        },
        length,
    ))
}

/// The smallest unit in which the file can be read directly.
fn probe_alignment(file: &OwnedFd) -> u32 {
    let mut buffer = Buffer::new(4096);
    if rustix::io::pread(file, &mut buffer[..1], 0).is_ok() {
        // Where a single byte can be read (from a hole, or past the end) nothing is learned.
        return 4096;
    }
    [512u16, 1024, 2048]
        .into_iter()
        .find(|unit| rustix::io::pread(file, &mut buffer[..usize::from(*unit)], 0).is_ok())
        .map_or(4096, u32::from)
}

/// The open file; another one takes its place at reopen.
#[derive(Debug)]
struct OpenFile {
    file: Arc<OwnedFd>,
    read_only: bool,
    direct: bool,
    /// The file lies in memory: I/O never waits for a device.
    inline: bool,
    alignment: u32,
}

#[derive(Debug)]
struct Locks {
    enabled: bool,
    held: Held,
    /// What a prepared change wants.
    wanted: Held,
}

#[derive(Debug)]
struct HostFile {
    filename: String,
    kind: Kind,
    open: ArcSwap<OpenFile>,
    length: AtomicU64,
    engine: Arc<dyn Engine>,
    locks: Mutex<Locks>,
    /// Cleared when the file system says that it cannot.
    can_nowait_read: AtomicBool,
    can_nowait_write: AtomicBool,
    can_discard: AtomicBool,
    /// Discards that were done, that failed, and bytes of the former.
    discards: [AtomicU64; 3],
}

impl HostFile {
    fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.open.load().file)
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = self.file();
        Ok(self.engine.call(move || work(&file)).await?)
    }

    fn grew_to(&self, end: u64) {
        if self.length.load(Ordering::Relaxed) < end {
            self.length.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// How many bytes were read at once.
    fn read_now(&self, open: &OpenFile, offset: u64, buf: &mut [u8]) -> Option<io::Result<usize>> {
        if open.inline {
            return Some(read_full(&open.file, offset, buf).map(|()| buf.len()));
        }
        if open.direct || !self.can_nowait_read.load(Ordering::Relaxed) {
            return None;
        }
        match preadv2(
            &open.file,
            &mut [IoSliceMut::new(buf)],
            offset,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(count) => Some(Ok(count)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.can_nowait_read.store(false, Ordering::Relaxed);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// How many bytes were written at once.
    fn write_now(&self, open: &OpenFile, offset: u64, buf: &[u8]) -> Option<io::Result<usize>> {
        if open.inline {
            return Some(write_full(&open.file, offset, buf).map(|()| buf.len()));
        }
        if open.direct || !self.can_nowait_write.load(Ordering::Relaxed) {
            return None;
        }
        match pwritev2(&open.file, &[IoSlice::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Some(Ok(count)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.can_nowait_write.store(false, Ordering::Relaxed);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    async fn read_slow(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let op = Op::Read {
            file: self.file(),
            offset,
            buffer: Buffer::new(buf.len()),
        };
        let outcome = self.engine.run(op).await;
        outcome.result?;
        if let Some(bounce) = outcome.buffer {
            buf.copy_from_slice(&bounce);
        }
        Ok(())
    }

    async fn write_slow(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let op = Op::Write {
            file: self.file(),
            offset,
            buffer: Buffer::copy_of(buf),
        };
        self.engine.run(op).await.result?;
        Ok(())
    }

    /// Replaces the open file and takes the locks along.
    fn exchange(&self, new: OpenFile) -> Result<()> {
        let locks = locked(&self.locks);
        if locks.enabled {
            // Both files stand for this process: what one holds must not count against the other, so that nothing is
            // checked here.
            lock::change(&new.file, Held::NOTHING, locks.held)?;
        }
        let old = self.open.swap(Arc::new(new));
        if locks.enabled {
            // A request that is just done may hold the old file a moment longer: its locks must not wait for that.
            let _ = lock::change(&old.file, locks.held, Held::NOTHING);
        }
        self.can_nowait_read.store(true, Ordering::Relaxed);
        self.can_nowait_write.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Driver for HostFile {
    fn name(&self) -> &'static str {
        self.kind.driver()
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.open.load().alignment,
            ..Limits::default()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            let done = match self.read_now(&self.open.load(), offset, buf) {
                Some(result) => result?,
                None => 0,
            };
            if done == buf.len() {
                return Ok(());
            }
            self.read_slow(offset + done as u64, &mut buf[done..]).await
        })
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        match self.read_now(&self.open.load(), offset, buf)? {
            Ok(count) if count == buf.len() => Some(Ok(())),
            // The rest is on the device, or beyond the end: the slow way sorts that out.
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            let done = match self.write_now(&self.open.load(), offset, buf) {
                Some(result) => result?,
                None => 0,
            };
            if done < buf.len() {
                self.write_slow(offset + done as u64, &buf[done..]).await?;
            }
            self.grew_to(offset + buf.len() as u64);
            if flags.fua {
                self.flush().await?;
            }
            Ok(())
        })
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        let open = self.open.load();
        // Only where all of it is sure to be done: half a write must not be repeated by the slow way, whose caller
        // may be told of an error after bytes were changed in between.
        if flags.fua || !open.inline {
            return None;
        }
        match self.write_now(&open, offset, buf)? {
            Ok(_) => {
                self.grew_to(offset + buf.len() as u64);
                Some(Ok(()))
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            let length = self.length();
            let kind = self.kind;
            let ends = self
                .call(move |file| space::write_zeroes(file, kind, offset, len, length, flags))
                .await;
            ends?;
            if self.kind == Kind::Regular {
                self.grew_to(offset + len);
            }
            if flags.fua {
                self.flush().await?;
            }
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            let [done, failed, bytes] = &self.discards;
            if !self.can_discard.load(Ordering::Relaxed) {
                return Ok(());
            }
            match self.call(move |file| space::punch(file, offset, len)).await {
                Ok(()) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(len, Ordering::Relaxed);
                    Ok(())
                }
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    if error.errno() == libc::EOPNOTSUPP {
                        // Advice that cannot be taken is no failure.
                        self.can_discard.store(false, Ordering::Relaxed);
                        return Ok(());
                    }
                    Err(error)
                }
            }
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            let op = Op::Sync { file: self.file() };
            self.engine.run(op).await.result?;
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            let open = self.open.load_full();
            let (run, data) = if open.inline {
                space::extent_at(&open.file, offset, len)
            } else {
                self.call(move |file| Ok(space::extent_at(file, offset, len)))
                    .await?
            };
            let host = Some(HostExtent {
                file: Arc::clone(&open.file),
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

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            let current = self.length();
            if self.kind == Kind::Device {
                if length > current {
                    return Err(BlockError::new(ErrorKind::Invalid, "Cannot grow device files"));
                }
                return Ok(());
            }
            let file = self.file();
            call(&*self.engine, move || {
                space::truncate(&file, current, length, preallocation)
            })
            .await?;
            self.length.store(length, Ordering::Relaxed);
            Ok(())
        })
    }

    fn wants_space(&self) -> bool {
        self.kind == Kind::Regular && !self.open.load().inline
    }

    fn take_space(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            self.call(move |file| space::take(file, offset, len)).await?;
            self.length.fetch_max(offset + len, Ordering::Relaxed);
            Ok(())
        })
    }

    fn host_extent(&self, offset: u64) -> Option<HostExtent> {
        Some(HostExtent {
            file: self.file(),
            offset,
        })
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async move {
            let open = self.open.load();
            if open.direct {
                return Ok(None);
            }
            let extent = HostExtent {
                file: Arc::clone(&open.file),
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

    fn prepare_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        let mut locks = locked(&self.locks);
        if !locks.enabled {
            return Ok(());
        }
        let wanted = Held::new(perm, shared);
        locks.wanted = wanted;
        let file = self.file();
        let held = locks.held;
        // Lock first, look afterwards: of two processes that come at the same time at least one sees the other.
        let result = lock::change(&file, held, held.union(wanted))
            .map_err(BlockError::from)
            .and_then(|()| {
                lock::check(
                    &file,
                    Held {
                        used: wanted.used,
                        unshared: wanted.unshared,
                    },
                    &self.filename,
                )
            });
        if result.is_err() {
            // Gives back what was just taken; a failure leaves more locked than needed, which is safe.
            let _ = lock::change(&file, held.union(wanted), held);
        }
        result
    }

    fn commit_permissions(&self) {
        let mut locks = locked(&self.locks);
        if locks.enabled {
            let _ = lock::change(&self.file(), locks.held.union(locks.wanted), locks.wanted);
            locks.held = locks.wanted;
        }
    }

    fn abort_permissions(&self) {
        let mut locks = locked(&self.locks);
        if locks.enabled {
            let _ = lock::change(&self.file(), locks.held.union(locks.wanted), locks.held);
            locks.wanted = locks.held;
        }
    }

    fn reopen<'a>(&'a self, options: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async move {
            let (DriverOptions::File(file) | DriverOptions::HostDevice(file)) = &options.driver else {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    "Cannot change the option 'driver'",
                ));
            };
            if file.filename != self.filename {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    "Cannot change the option 'filename'",
                ));
            }
            let read_only = options.read_only == Some(true);
            let direct = options.cache.direct == Some(true);
            check_options(file, self.kind, direct)?;
            {
                let open = self.open.load();
                if open.read_only == read_only && open.direct == direct {
                    return Ok(());
                }
            }
            let (filename, kind) = (self.filename.clone(), self.kind);
            let (open, _) = call(&*self.engine, move || {
                open_file(&filename, kind, read_only, direct)
            })
            .await?;
            self.exchange(open)
        })
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async move {
            let mut locks = locked(&self.locks);
            if locks.enabled {
                lock::change(&self.file(), locks.held, Held::NOTHING)?;
                locks.held = Held::NOTHING;
            }
            Ok(())
        })
    }

    fn discard_stats(&self) -> Option<DiscardStats> {
        let [done, failed, bytes] = &self.discards;
        Some(DiscardStats {
            done: done.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        })
    }

    fn info(&self) -> DriverInfo {
        let stat = rustix::fs::fstat(&self.open.load().file).ok();
        let blocks = stat.and_then(|stat| u64::try_from(stat.st_blocks).ok());
        DriverInfo {
            filename: self.filename.clone(),
            allocated_bytes: blocks.map(|blocks| blocks.saturating_mul(512)),
            dirty: Some(false),
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
