//! `null-co` and `null-aio`: swallows writes, reads zeroes or leaves buffers as they are.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::driver::{BlockStatus, Driver, DriverInfo, IoFuture, Preallocation, WriteFlags, ZeroFlags};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::OpenContext;
use crate::options::{DriverOptions, NodeOptions, NullOptions};

/// Opens one.
pub fn open(context: &OpenContext<'_>, options: &NullOptions) -> Result<Arc<dyn Driver>> {
    Ok(Arc::new(Null {
        name: match &context.options().driver {
            DriverOptions::NullAio(_) => "null-aio",
            _ => "null-co",
        },
        length: AtomicU64::new(options.size),
        latency: Duration::from_nanos(options.latency_ns),
        read_zeroes: options.read_zeroes,
    }))
}

#[derive(Debug)]
struct Null {
    name: &'static str,
    length: AtomicU64,
    latency: Duration,
    read_zeroes: bool,
}

impl Null {
    fn wait(&self) -> IoFuture<'_> {
        Box::pin(async {
            if !self.latency.is_zero() {
                tokio::time::sleep(self.latency).await;
            }
            Ok(())
        })
    }

    fn fill(&self, buf: &mut [u8]) {
        // Without `read-zeroes` the content is undefined; it must still not be what the process had in memory.
        buf.fill(0);
    }
}

impl Driver for Null {
    fn name(&self) -> &'static str {
        self.name
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    fn read<'a>(&'a self, _offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        self.fill(buf);
        self.wait()
    }

    fn try_read(&self, _offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        if !self.latency.is_zero() {
            return None;
        }
        self.fill(buf);
        Some(Ok(()))
    }

    fn write<'a>(&'a self, _offset: u64, _buf: &'a [u8], _flags: WriteFlags) -> IoFuture<'a> {
        self.wait()
    }

    fn try_write(&self, _offset: u64, _buf: &[u8], _flags: WriteFlags) -> Option<Result<()>> {
        self.latency.is_zero().then_some(Ok(()))
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: ZeroFlags) -> IoFuture<'_> {
        self.wait()
    }

    fn discard(&self, _offset: u64, _len: u64) -> IoFuture<'_> {
        self.wait()
    }

    fn flush(&self) -> IoFuture<'_> {
        self.wait()
    }

    fn block_status(&self, _offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        let zero = self.read_zeroes;
        Box::pin(async move {
            Ok(BlockStatus {
                len,
                // Whose content is undefined holds nothing.
                allocated: zero,
                zero,
                ..BlockStatus::default()
            })
        })
    }

    fn truncate(&self, _length: u64, _preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async {
            Err(BlockError::new(
                ErrorKind::Unsupported,
                "Image format driver does not support resize",
            ))
        })
    }

    fn reopen<'a>(&'a self, options: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async move {
            let (DriverOptions::NullCo(null) | DriverOptions::NullAio(null)) = &options.driver else {
                return Err(BlockError::new(
                    ErrorKind::Invalid,
                    "Cannot change the option 'driver'",
                ));
            };
            let changed = if null.size != self.length() {
                "size"
            } else if Duration::from_nanos(null.latency_ns) != self.latency {
                "latency-ns"
            } else if null.read_zeroes != self.read_zeroes {
                "read-zeroes"
            } else {
                return Ok(());
            };
            Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Cannot change the option '{changed}'"),
            ))
        })
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn info(&self) -> DriverInfo {
        DriverInfo {
            filename: format!("{}://", self.name),
            allocated_bytes: Some(0),
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
