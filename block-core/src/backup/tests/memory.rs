//! A driver in memory that fails, holds and delays on demand.

use std::any::Any;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::driver::{BlockStatus, Driver, IoFuture, Preallocation, WriteFlags, ZeroFlags};
use crate::error::{BlockError, Result};
use crate::sync::lock;

/// Bytes in memory.
#[derive(Debug)]
pub struct Memory {
    data: Mutex<Vec<u8>>,
    /// The length does not change with the data's capacity.
    length: AtomicU64,
    /// Errno that writes fail with; 0 is none.
    pub fail_writes: AtomicI32,
    /// Errno that reads fail with; 0 is none.
    pub fail_reads: AtomicI32,
    /// Errno that questions for block status fail with that reach beyond a cluster; 0 is none.
    pub fail_status: AtomicI32,
    /// So many writes fail, then no more; 0 is all.
    pub failures: AtomicU32,
    /// Requests wait.
    pub hold: AtomicBool,
    released: Notify,
    /// Never answers at once, so that requests interleave.
    pub slow: bool,
    /// Length of each block-status answer; 0 is all that was asked.
    pub granule: u64,
    /// An overlay whose backing file is not open.
    below: Mutex<Option<Below>>,
}

/// What an overlay hides, and will show when its backing file is opened.
#[derive(Debug)]
struct Below {
    content: Vec<u8>,
    /// Which units the overlay holds itself.
    held: Vec<bool>,
}

/// Bytes of an overlay that it holds or does not.
const OVERLAY_UNIT: usize = 4096;

impl Memory {
    pub fn new(length: u64, fill: u8) -> Self {
        Self {
            data: Mutex::new(vec![fill; usize::try_from(length).unwrap()]),
            length: AtomicU64::new(length),
            fail_writes: AtomicI32::new(0),
            fail_reads: AtomicI32::new(0),
            fail_status: AtomicI32::new(0),
            failures: AtomicU32::new(0),
            hold: AtomicBool::new(false),
            released: Notify::new(),
            slow: false,
            granule: 0,
            below: Mutex::new(None),
        }
    }

    /// Never answers at once.
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// An overlay without its backing file: what it does not hold reads as zeroes for now.
    pub fn overlay(self) -> Self {
        let content = self.content();
        *lock(&self.below) = Some(Below {
            held: vec![false; content.len().div_ceil(OVERLAY_UNIT)],
            content,
        });
        self
    }

    pub fn replace(&self, content: &[u8]) {
        if let Some(below) = &mut *lock(&self.below) {
            below.content.copy_from_slice(content);
            below.held.fill(false);
            lock(&self.data).fill(0);
        } else {
            lock(&self.data).copy_from_slice(content);
        }
    }

    /// What it shows; an overlay with its backing file opened.
    pub fn content(&self) -> Vec<u8> {
        let mut content = lock(&self.data).clone();
        if let Some(below) = &*lock(&self.below) {
            let units = content.chunks_mut(OVERLAY_UNIT);
            for ((here, there), held) in units.zip(below.content.chunks(OVERLAY_UNIT)).zip(&below.held) {
                if !held {
                    here.copy_from_slice(there);
                }
            }
        }
        content
    }

    fn hold_range(&self, offset: u64, len: usize) {
        if let Some(below) = &mut *lock(&self.below) {
            let range = at(offset, len);
            below.held[range.start / OVERLAY_UNIT..range.end.div_ceil(OVERLAY_UNIT)].fill(true);
        }
    }

    async fn pass(&self) {
        if self.slow {
            tokio::task::yield_now().await;
        }
        loop {
            let released = self.released.notified();
            let mut released = std::pin::pin!(released);
            released.as_mut().enable();
            if !self.hold.load(Ordering::SeqCst) {
                return;
            }
            released.await;
        }
    }

    fn fault(&self, errno: &AtomicI32) -> Result<()> {
        let number = errno.load(Ordering::SeqCst);
        if number == 0 {
            return Ok(());
        }
        if self.failures.load(Ordering::SeqCst) > 0 && self.failures.fetch_sub(1, Ordering::SeqCst) == 1 {
            errno.store(0, Ordering::SeqCst);
        }
        Err(BlockError::from_errno(number, "injected"))
    }
}

fn at(offset: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + len
}

impl Driver for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }
    fn length(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }
    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            self.pass().await;
            self.fault(&self.fail_reads)?;
            let len = buf.len();
            buf.copy_from_slice(&lock(&self.data)[at(offset, len)]);
            Ok(())
        })
    }
    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], _flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.pass().await;
            self.fault(&self.fail_writes)?;
            lock(&self.data)[at(offset, buf.len())].copy_from_slice(buf);
            self.hold_range(offset, buf.len());
            Ok(())
        })
    }
    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.pass().await;
            self.fault(&self.fail_writes)?;
            let len = usize::try_from(len).unwrap();
            lock(&self.data)[at(offset, len)].fill(0);
            self.hold_range(offset, len);
            Ok(())
        })
    }
    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        self.write_zeroes(offset, len, ZeroFlags::default())
    }
    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }
    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            if len > 65536 {
                self.fault(&self.fail_status)?;
            }
            let len = if self.granule > 0 {
                len.min(self.granule)
            } else {
                len
            };
            if let Some(below) = &*lock(&self.below) {
                let units = &below.held[usize::try_from(offset).unwrap() / OVERLAY_UNIT..];
                if units.first() == Some(&false) {
                    let run = units.iter().position(|held| *held).unwrap_or(units.len());
                    let end =
                        offset / OVERLAY_UNIT as u64 * OVERLAY_UNIT as u64 + (run * OVERLAY_UNIT) as u64;
                    return Ok(BlockStatus {
                        len: (end - offset).min(len),
                        zero: true,
                        ..BlockStatus::default()
                    });
                }
            }
            let data = lock(&self.data);
            let bytes = &data[at(offset, usize::try_from(len).unwrap())];
            let zero = bytes.first() == Some(&0);
            let run = bytes
                .iter()
                .position(|byte| (*byte == 0) != zero)
                .map_or(len, |at| at as u64);
            Ok(BlockStatus {
                len: run,
                allocated: true,
                zero,
                data: !zero,
                ..BlockStatus::default()
            })
        })
    }
    fn truncate(&self, _length: u64, _preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async { Err(BlockError::from_errno(95, "no")) })
    }
    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
