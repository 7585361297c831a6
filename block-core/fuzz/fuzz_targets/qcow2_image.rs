//! Any bytes as a qcow2 image: opened, read, written, checked. Run with
//! `cargo +nightly fuzz run qcow2_image -- -rss_limit_mb=512`.
//!
//! The bound: memory goes by the file's size, plus at most 32 MiB for the L1 table, 8 MiB for the refcount table,
//! 64 MiB for the bitmap directory (never more than the file holds), and the caches.

#![no_main]

use std::sync::{Arc, Mutex, PoisonError};

use block_core::driver::{
    BlockStatus, Driver, ImageStore, IoFuture, Preallocation, WriteFlags, ZeroFlags,
};
use block_core::drivers::qcow2::{OpenOptions, Qcow2, Storage};
use block_core::{BlockError, Result};
use libfuzzer_sys::fuzz_target;

/// A file in memory that does not grow far.
#[derive(Debug)]
struct Memory(Mutex<Vec<u8>>);

const MAX_LENGTH: u64 = 16 << 20;

impl Memory {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > MAX_LENGTH {
            return Err(BlockError::from_errno(28, "No space left on device"));
        }
        let (start, end) = (offset as usize, end as usize);
        self.with(|bytes| {
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        });
        Ok(())
    }
}

impl Storage for Memory {
    fn length(&self) -> u64 {
        self.with(|bytes| bytes.len() as u64)
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        self.with(|bytes| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let inside = (bytes.len() - start).min(buf.len());
            buf[..inside].copy_from_slice(&bytes[start..start + inside]);
            buf[inside..].fill(0);
        });
        Box::pin(async { Ok(()) })
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], _: WriteFlags) -> IoFuture<'a> {
        let result = self.put(offset, buf);
        Box::pin(async { result })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: ZeroFlags) -> IoFuture<'_> {
        let result = match len {
            0..=MAX_LENGTH => self.put(offset, &vec![0; len as usize]),
            _ => Err(BlockError::from_errno(28, "No space left on device")),
        };
        Box::pin(async { result })
    }

    fn discard(&self, _: u64, _: u64) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn truncate(&self, length: u64, _: Preallocation) -> IoFuture<'_> {
        let fits = length <= MAX_LENGTH;
        if fits {
            self.with(|bytes| bytes.resize(length as usize, 0));
        }
        Box::pin(async move { if fits { Ok(()) } else { Err(BlockError::from_errno(28, "No space left on device")) } })
    }

    fn block_status(&self, _: u64, len: u64, _: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move { Ok(BlockStatus { len, allocated: true, data: true, ..BlockStatus::default() }) })
    }
}

async fn exercise(bytes: &[u8], read_only: bool) {
    let file = Arc::new(Memory(Mutex::new(bytes.to_vec())));
    let options = OpenOptions { read_only, ..OpenOptions::default() };
    let Ok(image) = Qcow2::open(file, options).await else { return };
    let size = image.length();
    let mut buf = vec![0u8; 70_000];
    for offset in [0, size / 2, size.saturating_sub(70_000)] {
        let len = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buf.len());
        if len == 0 {
            continue;
        }
        let _ = image.read(offset, &mut buf[..len]).await;
        let _ = image.block_status(offset, len as u64, true).await;
        if !read_only {
            let _ = image.write(offset, &buf[..len], WriteFlags::default()).await;
            let _ = image.write_zeroes(offset, len as u64, ZeroFlags::default()).await;
            let _ = image.discard(offset, len as u64).await;
        }
    }
    let _ = image.load_bitmaps().await;
    let _ = image.flush().await;
    let _ = image.check(false).await;
    let _ = image.close().await;
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, image)) = data.split_first() else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    runtime.block_on(exercise(image, mode & 1 == 0));
});
