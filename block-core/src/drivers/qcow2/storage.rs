//! What the format needs of the nodes below it: the file that holds the image, and the backing node.
//!
//! A trait rather than the graph's edge, so that tests can put a backend below the format that holds, reorders, tears
//! and loses writes. It knows nothing of the format.

use std::fmt;

use crate::Result;
use crate::driver::{BlockStatus, DriverInfo, IoFuture, Preallocation, WriteFlags, WriteMapping, ZeroFlags};
use crate::graph::Child;

/// A node below the format.
///
/// The image file's bytes beyond its [`length`](Storage::length) read as zeroes, and writes beyond it make it longer.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The length in bytes.
    fn length(&self) -> u64;

    /// Fills `buf` from `offset`.
    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a>;

    /// Reads if that needs no waiting.
    fn try_read(&self, _offset: u64, _buf: &mut [u8]) -> Option<Result<()>> {
        None
    }

    /// Writes `buf` at `offset`.
    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a>;

    /// Writes if that needs no waiting.
    fn try_write(&self, _offset: u64, _buf: &[u8], _flags: WriteFlags) -> Option<Result<()>> {
        None
    }

    /// Makes a range read as zeroes.
    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_>;

    /// Tells that a range's content is not needed any more.
    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_>;

    /// Makes every completed write durable.
    fn flush(&self) -> IoFuture<'_>;

    /// Changes the length.
    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_>;

    /// What lies at `offset`.
    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus>;

    /// Host space for a write that the caller makes by itself; see [`Driver::map_for_write`](crate::driver::Driver).
    fn map_for_write(&self, _offset: u64, _len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async { Ok(None) })
    }

    /// The write into a mapping made for `offset` is done.
    fn commit_write(&self, _offset: u64, _mapping: WriteMapping) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// A mapping is not needed.
    fn abandon_write(&self, _mapping: WriteMapping) {}

    /// See [`Driver::wants_space`](crate::driver::Driver::wants_space).
    fn wants_space(&self) -> bool {
        false
    }

    /// See [`Driver::take_space`](crate::driver::Driver::take_space).
    fn take_space(&self, _offset: u64, _len: u64) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    /// How many bytes from `offset` on, at most `len`, read as zeroes without looking at data, through all layers.
    fn zero_run(&self, offset: u64, len: u64) -> IoFuture<'_, u64> {
        Box::pin(async move {
            let status = self.block_status(offset, len, false).await?;
            Ok(if status.zero { status.len.min(len) } else { 0 })
        })
    }

    /// Space that a write beyond the end skips, or makes, reads as zeroes (regular files; not devices).
    fn grows_zeroed(&self) -> bool {
        true
    }

    /// What the driver says of itself.
    fn info(&self) -> DriverInfo {
        DriverInfo::default()
    }

    /// Tells what is about to be done, for fault injection: an event's name in the schema's words.
    fn event(&self, _event: &str) {}

    /// As [`event`](Self::event): a flush of the image reaches the disk.
    fn flush_event(&self) {}
}

impl Storage for Child {
    fn length(&self) -> u64 {
        Child::length(self)
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(Child::read(self, offset, buf))
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        Child::try_read(self, offset, buf)
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(Child::write(self, offset, buf, flags))
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        Child::try_write(self, offset, buf, flags)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(Child::write_zeroes(self, offset, len, flags))
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(Child::discard(self, offset, len))
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(Child::flush(self))
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(Child::truncate(self, length, preallocation))
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(Child::block_status(self, offset, len, want_host))
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(Child::map_for_write(self, offset, len))
    }

    fn commit_write(&self, offset: u64, mapping: WriteMapping) -> IoFuture<'_> {
        Box::pin(Child::commit_write(self, offset, mapping))
    }

    fn abandon_write(&self, mapping: WriteMapping) {
        Child::abandon_write(self, mapping);
    }

    fn wants_space(&self) -> bool {
        self.node().driver().wants_space()
    }

    fn take_space(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move { self.node().driver().take_space(offset, len).await })
    }

    fn zero_run(&self, offset: u64, len: u64) -> IoFuture<'_, u64> {
        Box::pin(async move {
            let status = self.node().status_above(None, offset, len).await?;
            Ok(if status.zero { status.len.min(len) } else { 0 })
        })
    }

    fn grows_zeroed(&self) -> bool {
        // Only a regular file is known to grow with zeroes; a device has an end, and old content up to it.
        self.node().driver().name() == "file"
    }

    fn info(&self) -> DriverInfo {
        Child::info(self)
    }

    fn flush_event(&self) {
        Child::flush_event(self);
    }

    fn event(&self, event: &str) {
        Child::event(self, event);
    }
}
