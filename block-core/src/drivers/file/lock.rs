//! Image locks: what one process does with an image, told to the others through locked bytes of the file.
//!
//! The bytes are part of the format between processes: a QEMU on the same image sees them. Byte 100 + N is locked by
//! everyone who uses permission N, byte 200 + N by everyone who does not let others use it. All locks are shared
//! ones; to see whether somebody holds one, an exclusive lock is tested for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::Perm;

const USED_BASE: i64 = 100;
const UNSHARED_BASE: i64 = 200;

/// What is locked for one set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) used: Perm,
    pub(super) unshared: Perm,
}

impl Held {
    pub(super) const NOTHING: Self = Self {
        used: Perm::NONE,
        unshared: Perm::NONE,
    };

    pub(super) fn new(perm: Perm, shared: Perm) -> Self {
        Self {
            used: perm,
            unshared: !shared,
        }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self {
            used: self.used | other.used,
            unshared: self.unshared | other.unshared,
        }
    }
}

/// Every permission with its number and its name.
fn bits() -> impl Iterator<Item = (i64, Perm, &'static str)> {
    (0i64..)
        .zip(Perm::NAMES)
        .map(|(number, (bit, name))| (number, bit, name))
}

/// Locks what `wanted` has and `held` has not; unlocks the reverse.
pub(super) fn change(file: &OwnedFd, held: Held, wanted: Held) -> io::Result<()> {
    for (number, bit, _) in bits() {
        for (base, had, wants) in [
            (USED_BASE, held.used.contains(bit), wanted.used.contains(bit)),
            (
                UNSHARED_BASE,
                held.unshared.contains(bit),
                wanted.unshared.contains(bit),
            ),
        ] {
            if wants && !had {
                control(file, libc::F_OFD_SETLK, libc::F_RDLCK, base + number)?;
            } else if had && !wants {
                control(file, libc::F_OFD_SETLK, libc::F_UNLCK, base + number)?;
            }
        }
    }
    Ok(())
}

/// Whether another user of the file stands against `wanted`.
pub(super) fn check(file: &OwnedFd, wanted: Held, filename: &str) -> Result<()> {
    let busy = |text: String| {
        BlockError::new(ErrorKind::Busy, text)
            .with_hint(format!("Is another process using the image [{filename}]?"))
    };
    for (number, bit, name) in bits() {
        if wanted.used.contains(bit) && is_locked(file, UNSHARED_BASE + number)? {
            return Err(busy(format!("Failed to get \"{name}\" lock")));
        }
    }
    for (number, bit, name) in bits() {
        if wanted.unshared.contains(bit) && is_locked(file, USED_BASE + number)? {
            return Err(busy(format!("Failed to get shared \"{name}\" lock")));
        }
    }
    Ok(())
}

/// Whether this kernel and file system know locks that belong to an open file.
pub(super) fn is_supported(file: &OwnedFd) -> bool {
    is_locked(file, USED_BASE).is_ok()
}

fn is_locked(file: &OwnedFd, byte: i64) -> io::Result<bool> {
    Ok(control(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)? != libc::F_UNLCK)
}

/// One lock operation on one byte; gives the kind of lock that the kernel reports back.
fn control(file: &OwnedFd, command: i32, kind: i32, byte: i64) -> io::Result<i32> {
    let narrow =
        |value: i32| libc::c_short::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let mut lock = libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        // SAFETY: the descriptor is open, and the kernel reads and writes one `flock`, which `lock` is.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
        if result != -1 {
            return Ok(i32::from(lock.l_type));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
