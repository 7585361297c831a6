//! Copying between two files inside the kernel (`copy_file_range`).

use std::sync::Arc;

use rustix::io::Errno;

use crate::driver::{HostExtent, WriteMapping};
use crate::error::Result;
use crate::graph::Child;

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
pub async fn copy(from: HostExtent, reservation: Reservation, len: u64) -> Result<Reservation, Refused> {
    let work = move || copy_now(&from, &reservation, len).map(|()| reservation);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Refused::Now))
}

fn copy_now(from: &HostExtent, reservation: &Reservation, len: u64) -> Result<(), Refused> {
    let Some(mapping) = &reservation.mapping else {
        return Err(Refused::Now);
    };
    let to = &mapping.extent;
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
