//! Holes, zeroes and lengths of host files.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ftruncate, seek};

use super::Kind;
use crate::driver::{Preallocation, ZeroFlags};
use crate::engine::write_full;
use crate::error::{BlockError, ErrorKind, Result};

/// Whether the file lies in memory (tmpfs).
pub(super) fn is_memory(file: &OwnedFd) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(TMPFS_MAGIC))
}

/// Gives the space of a range back; it reads as zeroes then.
pub(super) fn punch(file: &OwnedFd, offset: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        len,
    )?)
}

/// Takes space for a range that was never written. A file system that cannot do that writes holes as it goes.
pub(super) fn take(file: &OwnedFd, offset: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), offset, len).map_err(io::Error::from) {
        Err(error) if lacks(&error) => Ok(()),
        result => result,
    }
}

/// Whether the file system merely lacks a way to do something.
fn lacks(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
    )
}

/// Makes a range read as zeroes. `length` is the file's length as far as known: a hole does not make a file longer.
pub(super) fn write_zeroes(
    file: &OwnedFd,
    kind: Kind,
    offset: u64,
    len: u64,
    length: u64,
    flags: ZeroFlags,
) -> io::Result<()> {
    let end = offset + len;
    if flags.may_unmap {
        match punch(file, offset, len) {
            Ok(()) => {
                if kind == Kind::Regular && end > length {
                    // Writing the last byte makes the file longer and, unlike `ftruncate`, never shorter when
                    // somebody else has made it longer still.
                    write_full(file, end - 1, &[0])?;
                }
                return Ok(());
            }
            Err(error) if lacks(&error) => {}
            Err(error) => return Err(error),
        }
    }
    match fallocate(file, FallocateFlags::ZERO_RANGE, offset, len).map_err(io::Error::from) {
        Err(error) if lacks(&error) => {}
        result => return result,
    }
    // Without ZERO_RANGE (tmpfs): a hole, and then space for it.
    let refilled = punch(file, offset, len)
        .and_then(|()| fallocate(file, FallocateFlags::empty(), offset, len).map_err(io::Error::from));
    match refilled {
        Err(error) if lacks(&error) => {}
        result => return result,
    }
    if flags.no_fallback {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    fill(file, offset, end)
}

/// Writes zero bytes.
fn fill(file: &OwnedFd, mut offset: u64, end: u64) -> io::Result<()> {
    // Aligned, for files that are open for direct I/O.
    let zeroes = crate::engine::Buffer::new(1 << 20);
    while offset < end {
        let part = usize::try_from(end - offset)
            .unwrap_or(usize::MAX)
            .min(zeroes.len());
        write_full(file, offset, &zeroes[..part])?;
        offset += part as u64;
    }
    Ok(())
}

/// The run at `offset`, at most `len` bytes, and whether it is data. Without SEEK_DATA all is data.
pub(super) fn extent_at(file: &OwnedFd, offset: u64, len: u64) -> (u64, bool) {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => ((data - offset).min(len), false),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => ((hole - offset).min(len), true),
            _ => (len, true),
        },
        // Nothing but a hole up to the end.
        Err(rustix::io::Errno::NXIO) => (len, false),
        Err(_) => (len, true),
    }
}

/// Changes the length of a regular file.
pub(super) fn truncate(
    file: &OwnedFd,
    current: u64,
    length: u64,
    preallocation: Preallocation,
) -> Result<()> {
    if length < current && preallocation != Preallocation::Off {
        return Err(BlockError::new(
            ErrorKind::Unsupported,
            "Preallocation can't be used for shrinking files",
        ));
    }
    let resize = || {
        ftruncate(file, length).map_err(|error| BlockError::from(error).context("Failed to resize the file"))
    };
    match preallocation {
        Preallocation::Off => resize(),
        Preallocation::Metadata => Err(BlockError::new(
            ErrorKind::Unsupported,
            "Unsupported preallocation mode 'metadata'",
        )),
        Preallocation::Falloc if length == current => Ok(()),
        Preallocation::Falloc => {
            let result = fallocate(file, FallocateFlags::empty(), current, length - current);
            result.map_err(|error| {
                // The file keeps its old length.
                let _ = ftruncate(file, current);
                BlockError::from(error).context("Could not preallocate data for the new file")
            })
        }
        Preallocation::Full => {
            resize()?;
            fill(file, current, length)
                .and_then(|()| rustix::fs::fsync(file).map_err(io::Error::from))
                .map_err(|error| {
                    let _ = ftruncate(file, current);
                    BlockError::from(error).context("Could not write zeros for preallocation")
                })
        }
    }
}
