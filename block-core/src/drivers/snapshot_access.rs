//! `snapshot-access`: shows the point in time that a copy-before-write node below keeps.

use std::any::Any;
use std::sync::Arc;

use super::copy_before_write::CopyBeforeWrite;
use crate::driver::{
    BlockStatus, Driver, DriverInfo, IoFuture, Limits, Preallocation, WriteFlags, ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Child, ChildRole, Needs, Node, OpenContext, Perm};
use crate::options::NodeRef;

/// Opens one.
pub async fn open(context: &OpenContext<'_>, file: &NodeRef) -> Result<Arc<dyn Driver>> {
    let file = context.child("file", ChildRole::Filtered, file).await?;
    let length = keeper(&file.node()).map_or_else(|| file.length(), CopyBeforeWrite::snapshot_length);
    Ok(Arc::new(SnapshotAccess { file, length }))
}

/// It reads a past that no writer can change.
pub const CHILD_PERMISSIONS: (Perm, Perm) = (Perm::NONE, Perm::ALL);

fn keeper(node: &Node) -> Option<&CopyBeforeWrite> {
    node.driver().as_any().downcast_ref()
}

#[derive(Debug)]
struct SnapshotAccess {
    file: Arc<Child>,
    length: u64,
}

fn not_kept() -> BlockError {
    BlockError::new(ErrorKind::Unsupported, "Operation not supported")
}

impl Driver for SnapshotAccess {
    fn name(&self) -> &'static str {
        "snapshot-access"
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: 1,
            ..Limits::default()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            let node = self.file.node();
            keeper(&node)
                .ok_or_else(not_kept)?
                .read_snapshot(offset, buf)
                .await
        })
    }

    fn write<'a>(&'a self, _offset: u64, _buf: &'a [u8], _flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async { Err(not_kept()) })
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async { Err(not_kept()) })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            let node = self.file.node();
            keeper(&node)
                .ok_or_else(not_kept)?
                .discard_snapshot(offset, len)
                .await
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            let node = self.file.node();
            keeper(&node)
                .ok_or_else(not_kept)?
                .snapshot_status(offset, len)
                .await
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

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async { Ok(()) })
    }

    fn child_permissions(&self, _name: &str, _role: ChildRole, _needs: &Needs) -> (Perm, Perm) {
        CHILD_PERMISSIONS
    }

    fn info(&self) -> DriverInfo {
        DriverInfo {
            filename: self.file.info().filename,
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
