//! What the format needs of the nodes below it: the file that holds the image, and the backing node.
//!
//! A trait rather than the graph's edge, so that tests can put a backend below the format that holds, reorders, tears
//! and loses writes. It knows nothing of the format.

use std::fmt;

use crate::Result;
use crate::driver::{BlockStatus, DriverInfo, HostExtent, IoFuture, Preallocation, WriteFlags, ZeroFlags};

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

    /// Where byte `offset` lies in a host file, whether it is allocated or not and also beyond the end.
    fn host_extent(&self, _offset: u64) -> Option<HostExtent> {
        None
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
}
