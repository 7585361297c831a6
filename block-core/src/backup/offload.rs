//! Copying between two files on a thread that may wait: inside the kernel (`copy_file_range`), or through memory where
//! the kernel would do no better.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::scratch::with_buffer;

use crate::driver::{HostExtent, WriteMapping};
use crate::error::Result;
use crate::graph::Child;
use crate::sync::lock;

/// How much is read and then written at a time where that is done through memory: it has to fit into a processor's cache.
const PIECE_BYTES: usize = 1 << 20;
/// The file systems (`statfs(2)`) whose `copy_file_range` goes through the page cache in pieces of 64 KiB, for each of
/// which it takes the target file's lock: tmpfs, ext2 to ext4. Two threads then spend half of their time on that lock.
const NO_BETTER: [u64; 2] = [0x0102_1994, 0xEF53];

/// Who may write to a target: a file is written by one thread at a time anyway, and waiting for it in the kernel takes as
/// much of a processor as working does.
#[derive(Debug, Default)]
pub struct Turn(Mutex<()>);

/// Why the kernel did not copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It cannot between these two files.
    Never,
    /// It failed this time.
    Now,
}

/// Copies the first `len` bytes of a reservation's range on a thread of its own.
///
/// The thread owns the reservation: when the caller goes away, the space is given back only after the kernel is done
/// with it.
pub async fn copy(
    from: HostExtent,
    reservation: Reservation,
    len: u64,
    turn: Arc<Turn>,
) -> Result<Reservation, Refused> {
    let work = move || {
        let Some(mapping) = &reservation.mapping else {
            return Err(Refused::Now);
        };
        let to = &mapping.extent;
        if does_no_better(&from.file) && does_no_better(&to.file) {
            through_memory(&from, to, len, &turn)?;
        } else {
            in_kernel(&from, to, len)?;
        }
        Ok(reservation)
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Refused::Now))
}

/// Whether the kernel copies this file just as we can. Files that bypass the page cache are left to it: they want aligned
/// pieces, and several at a time.
fn does_no_better(file: &OwnedFd) -> bool {
    rustix::fs::fstatfs(file)
        .is_ok_and(|system| u64::try_from(system.f_type).is_ok_and(|kind| NO_BETTER.contains(&kind)))
        && rustix::fs::fcntl_getfl(file).is_ok_and(|flags| !flags.contains(OFlags::DIRECT))
}

fn through_memory(from: &HostExtent, to: &HostExtent, len: u64, turn: &Turn) -> Result<(), Refused> {
    let piece = usize::try_from(len).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
    with_buffer(piece, |buffer| {
        let mut done = 0;
        while done < len {
            let left = usize::try_from(len - done).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            let room = buffer.get_mut(..wanted).unwrap_or_default();
            let count = match rustix::io::pread(&from.file, room, from.offset + done) {
                // The source ends before its length.
                Ok(0) => return Err(Refused::Now),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Refused::Now),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            write_all(to, done, bytes, turn)?;
            done += count as u64;
        }
        Ok(())
    })
}

fn write_all(to: &HostExtent, skip: u64, mut bytes: &[u8], turn: &Turn) -> Result<(), Refused> {
    let _turn = lock(&turn.0);
    let mut at = to.offset + skip;
    while !bytes.is_empty() {
        match rustix::io::pwrite(&to.file, bytes, at) {
            Ok(0) => return Err(Refused::Now),
            Ok(count) => {
                at += count as u64;
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(_) => return Err(Refused::Now),
        }
    }
    Ok(())
}

fn in_kernel(from: &HostExtent, to: &HostExtent, len: u64) -> Result<(), Refused> {
    let (mut source, mut target, mut left) = (from.offset, to.offset, len);
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(&from.file, Some(&mut source), &to.file, Some(&mut target), length)
        {
            // The source ends before its length (it became shorter, or its last block is cut off).
            Ok(0) => return Err(Refused::Now),
            Ok(count) => left -= (count as u64).min(left),
            Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::BADF
                | Errno::TXTBSY
                | Errno::PERM,
            ) => return Err(Refused::Never),
            Err(_) => return Err(Refused::Now),
        }
    }
    Ok(())
}

/// Space in the target, given back when it is not committed.
#[derive(Debug)]
pub struct Reservation {
    target: Arc<Child>,
    mapping: Option<WriteMapping>,
}

impl Reservation {
    /// Takes a reservation over.
    pub fn new(target: &Arc<Child>, mapping: WriteMapping) -> Self {
        Self {
            target: Arc::clone(target),
            mapping: Some(mapping),
        }
    }

    /// How many bytes it covers.
    pub fn covers(&self) -> u64 {
        self.mapping.as_ref().map_or(0, |mapping| mapping.len)
    }

    /// Makes the bytes visible at the target's `offset`.
    pub async fn commit(mut self, offset: u64) -> Result<()> {
        match self.mapping.take() {
            Some(mapping) => self.target.commit_write(offset, mapping).await,
            None => Ok(()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.target.abandon_write(mapping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn extent(bytes: &[u8], offset: u64) -> HostExtent {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        HostExtent {
            file: Arc::new(file.into()),
            offset,
        }
    }

    fn content(extent: &HostExtent, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let count = rustix::io::pread(&extent.file, &mut bytes, 0).unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn both_ways_copy_the_same() {
        let source: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
        let (skip, len) = (777, (5 << 19) + 13);
        let from = extent(&source, skip as u64);
        let (memory, kernel) = (extent(b"before", 5), extent(b"before", 5));
        through_memory(&from, &memory, len as u64, &Turn::default()).unwrap();
        let mut expected = b"befor".to_vec();
        expected.extend_from_slice(&source[skip..skip + len]);
        assert!(content(&memory, 4 << 20) == expected);
        // Not every kernel does it; then the slow way is taken.
        if in_kernel(&from, &kernel, len as u64).is_ok() {
            assert!(content(&kernel, 4 << 20) == expected);
        }
    }

    #[test]
    fn a_source_that_is_too_short_is_left_to_the_slow_way() {
        let (from, to) = (extent(&[1; 5000], 4000), extent(b"", 0));
        assert_eq!(
            through_memory(&from, &to, 2000, &Turn::default()),
            Err(Refused::Now)
        );
    }
}
