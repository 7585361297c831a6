//! Making a host file to hold an image.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use super::file::lock_for_creation;
use crate::driver::Preallocation;
use crate::error::{BlockError, ErrorKind, Result};
use crate::types::SECTOR_BYTES;

/// Bytes written at once for full preallocation.
const CHUNK_BYTES: usize = 64 << 10;

/// A file to make.
#[derive(Debug, Clone, Default)]
pub struct CreateFile {
    /// Its path.
    pub filename: String,
    /// Its length in bytes.
    pub size: u64,
    /// How much space is taken at once.
    pub preallocation: Preallocation,
    /// Switch off copy-on-write where the file system has it.
    pub nocow: bool,
    /// Preferred size of an extent; a hint that file systems may ignore.
    pub extent_size_hint: Option<u64>,
}

/// Makes the file; one that is there already is emptied first.
pub async fn create(options: &CreateFile) -> Result<()> {
    let options = options.clone();
    match tokio::task::spawn_blocking(move || create_now(&options)).await {
        Ok(result) => result,
        Err(error) => Err(BlockError::new(
            ErrorKind::Io,
            format!("Could not create the file: {error}"),
        )),
    }
}

fn create_now(options: &CreateFile) -> Result<()> {
    let CreateFile { filename, size, .. } = options;
    let size = *size;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(filename)
        .map_err(|error| BlockError::from(error).context(format!("Could not create '{filename}'")))?;
    // Nobody may be using what is about to be emptied.
    let file = OwnedFd::from(file);
    lock_for_creation(&file, filename)?;
    let file = File::from(file);
    // Emptied rather than truncated to size: what it held must not show in the new image.
    file.set_len(0)
        .map_err(|error| failed("Failed to clear the file", error))?;
    if options.nocow {
        switch_off_cow(&file);
    }
    match options.preallocation {
        Preallocation::Falloc if size > 0 => {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
                .map_err(|error| failed("Could not preallocate data for the new file", error.into()))
        }
        Preallocation::Full => write_zeroes(&file, size)
            .map_err(|error| failed("Could not write zeros for preallocation", error)),
        // Known only now that the file is there, as it is with QEMU.
        Preallocation::Metadata => Err(BlockError::new(
            ErrorKind::Unsupported,
            "Unsupported preallocation mode: metadata",
        )),
        _ if size > i64::MAX.unsigned_abs() => Err(BlockError::from_errno(
            22,
            "Could not resize file: Invalid argument",
        )),
        _ => {
            file.set_len(size)
                .map_err(|error| failed("Could not resize file", error))?;
            write_first_block(&file, size)
        }
    }
}

/// Host file systems tell how direct I/O must be aligned only where there is a block. One that is there from the start
/// also makes a file of less than a sector a sector long.
fn write_first_block(file: &File, size: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    const MOST: [u8; 4096] = [0; 4096];
    let len = match size {
        0 => return Ok(()),
        1..4096 => usize::try_from(SECTOR_BYTES).unwrap_or(MOST.len()),
        _ => MOST.len(),
    };
    file.write_all_at(MOST.get(..len).unwrap_or(&MOST), 0)
        .map_err(|error| failed("Could not resize file", error))
}

fn write_zeroes(mut file: &File, size: u64) -> std::io::Result<()> {
    let zeroes = vec![0; CHUNK_BYTES];
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all(zeroes.get(..now).unwrap_or_default())?;
        left -= u64::try_from(now).unwrap_or(left);
    }
    file.sync_all()
}

fn failed(what: &str, error: std::io::Error) -> BlockError {
    BlockError::from(error).context(what)
}

/// A wish only: file systems without it are fine too.
fn switch_off_cow(file: &File) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(file) {
        let _ = rustix::fs::ioctl_setflags(file, flags | rustix::fs::IFlags::NOCOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(size: u64, preallocation: Preallocation) -> Result<u64> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, b"old content that must go").unwrap();
        let options = CreateFile {
            filename: path.display().to_string(),
            size,
            preallocation,
            ..CreateFile::default()
        };
        create_now(&options)?;
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
        Ok(u64::try_from(bytes.len()).unwrap())
    }

    #[test]
    fn length_and_old_content() {
        assert_eq!(made(1, Preallocation::Off).unwrap(), 512);
        assert_eq!(made(513, Preallocation::Off).unwrap(), 513);
        assert_eq!(made(4097, Preallocation::Off).unwrap(), 4097);
        assert_eq!(made(0, Preallocation::Falloc).unwrap(), 0);
        assert_eq!(made(100_000, Preallocation::Falloc).unwrap(), 100_000);
        assert_eq!(made(102_400, Preallocation::Full).unwrap(), 102_400);
        let error = made(1, Preallocation::Metadata).unwrap_err();
        assert_eq!(error.to_string(), "Unsupported preallocation mode: metadata");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let options = CreateFile {
            filename: "/nonexistent/x".into(),
            ..CreateFile::default()
        };
        let error = create_now(&options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Could not create '/nonexistent/x': No such file or directory"
        );
    }
}
