//! The image as a driver in the graph.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backing::backing_options;
use super::header::{COMPATIBLE_LAZY_REFCOUNTS, INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DIRTY};
use super::open::read_header;
use super::storage::Storage;
use super::{BlockError, ErrorKind};
use super::{OpenOptions, Qcow2, Result};
use crate::driver::{
    BlockStatus, Driver, DriverInfo, FormatInfo, ImageStore, IoFuture, Limits, Preallocation, Qcow2Info,
    SnapshotInfo, StoredBitmap, WriteFlags, WriteMapping, ZeroFlags,
};
use crate::event::Event;
use crate::graph::{Child, ChildRole, OpenContext};
use crate::options::{BackingRef, DriverOptions, NodeOptions, NodeRef, Qcow2Options};
use crate::sync::lock;

/// Opens an image as a node.
pub async fn open(context: &OpenContext<'_>, options: &Qcow2Options) -> Result<Arc<dyn Driver>> {
    let file = context.child("file", ChildRole::Storage, &options.file).await?;
    if let Some(NodeRef::Name(name)) = &options.data_file
        && context.graph().find(name.as_str()).is_none()
    {
        return Err(BlockError::new(
            ErrorKind::NotFound,
            format!("Cannot find device='{name}' nor node-name='{name}'"),
        ));
    }
    let mut open_options = OpenOptions::from_node(context.options(), options);
    let graph = Arc::downgrade(context.graph());
    let node = context.options().node_name.clone().unwrap_or_else(|| "".into());
    open_options.on_corruption = Some(Arc::new(move |message, place, fatal| {
        if let Some(graph) = graph.upgrade() {
            let (node, message) = (node.clone(), message.to_owned());
            graph.emit(Event::BlockImageCorrupted {
                node,
                message,
                place,
                fatal,
            });
        }
    }));
    let image = Qcow2::open(file.clone(), open_options).await?;
    context
        .graph()
        .handle()
        .spawn(Qcow2::keep_caches_clean(Arc::downgrade(&image)));
    let backing = match &options.backing {
        BackingRef::None => None,
        BackingRef::Node(node) => Some(node.clone()),
        BackingRef::FromImage => match image.backing_file() {
            Some((name, format)) => {
                let opened = backing_options(context.graph(), &file, &name, format.as_deref());
                Some(opened.map_err(|error| error.context("Could not open backing file"))?)
            }
            None => None,
        },
    };
    if let Some(backing) = backing {
        let child = context.child("backing", ChildRole::Backing, &backing).await?;
        image.set_backing(Some(child));
    }
    Ok(image)
}

/// Whether a file holds a qcow2 image, and the backing file that its header names.
pub async fn probe(file: &dyn Storage) -> Option<Option<String>> {
    read_header(file).await.ok().map(|header| header.backing_file)
}

impl Qcow2 {
    /// Changes between read-only and read-write. Stored bitmaps are the caller's affair: before going read-only,
    /// after becoming writable.
    pub async fn set_read_only(&self, read_only: bool) -> Result<()> {
        if self.read_only.load(Ordering::Acquire) == read_only {
            return Ok(());
        }
        if read_only {
            let _alone = self.alone().await?;
            self.clean().await?;
            self.read_only.store(true, Ordering::Release);
            Ok(())
        } else {
            self.make_writable().await
        }
    }
}

impl Driver for Qcow2 {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn limits(&self) -> Limits {
        let cluster = u32::try_from(lock(&self.meta).geometry.cluster()).unwrap_or(0);
        Limits {
            cluster_bytes: cluster,
            discard_alignment: cluster,
            ..Limits::default()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(self.read_at(offset, buf))
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        self.read_now(offset, buf)
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        if flags.compressed {
            Box::pin(self.write_compressed(offset, buf, flags))
        } else {
            Box::pin(self.write_at(offset, buf, flags))
        }
    }

    fn try_write(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        self.write_now(offset, buf, flags)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(self.zero_at(offset, len, flags))
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(self.discard_at(offset, len))
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            if self.read_only.load(Ordering::Acquire) {
                Ok(())
            } else {
                self.file.event("flush_to_os");
                self.write_back(true).await
            }
        })
    }

    fn block_status(&self, offset: u64, len: u64, want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(self.status_at(offset, len, want_host))
    }

    fn truncate(&self, length: u64, preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(self.resize(length, preallocation))
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(self.map_at(offset, len))
    }

    fn commit_write(&self, mapping: WriteMapping) -> IoFuture<'_> {
        Box::pin(self.commit_mapping(mapping.token))
    }

    fn abandon_write(&self, mapping: WriteMapping) {
        self.abandon_mapping(mapping.token);
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async move {
            if self.read_only.load(Ordering::Acquire) {
                return Ok(());
            }
            let _alone = self.alone().await?;
            let broken = lock(&self.meta).broken;
            if broken { Ok(()) } else { self.clean().await }
        })
    }

    fn reopen<'a>(&'a self, node: &'a NodeOptions) -> IoFuture<'a> {
        Box::pin(async move {
            let DriverOptions::Qcow2(qcow2) = &node.driver else {
                return Err(BlockError::new(ErrorKind::Invalid, "Cannot change the driver"));
            };
            let old = self.options.load_full();
            let options = OpenOptions {
                on_corruption: old.on_corruption.clone(),
                ..OpenOptions::from_node(node, qcow2)
            };
            let read_only = options.read_only;
            self.change_options(options)?;
            let changed = self.set_read_only(read_only).await;
            if changed.is_err() {
                self.options.store(old);
            }
            changed
        })
    }

    fn change_child(&self, name: &str, child: Option<Arc<Child>>) -> Result<()> {
        if name == "backing" {
            self.set_backing(child.map(|child| child as Arc<dyn Storage>));
            Ok(())
        } else {
            Err(BlockError::new(
                ErrorKind::Unsupported,
                "Cannot change this child",
            ))
        }
    }

    fn info(&self) -> DriverInfo {
        let below = self.file.info();
        let bitmaps = self.bitmap_infos();
        let meta = lock(&self.meta);
        let header = &meta.header;
        let v3 = header.version >= 3;
        DriverInfo {
            filename: below.filename,
            allocated_bytes: below.allocated_bytes,
            cluster_bytes: u32::try_from(meta.geometry.cluster()).ok(),
            dirty: Some(header.has(INCOMPATIBLE_DIRTY)),
            backing_file: header
                .backing_file
                .clone()
                .map(|name| (name, header.backing_format.clone())),
            specific: FormatInfo::Qcow2(Qcow2Info {
                compat: if v3 { "1.1" } else { "0.10" }.to_owned(),
                lazy_refcounts: v3.then_some(header.compatible & COMPATIBLE_LAZY_REFCOUNTS != 0),
                corrupt: v3.then_some(header.has(INCOMPATIBLE_CORRUPT)),
                extended_l2: v3.then_some(false),
                refcount_bits: 1 << header.refcount_order,
                compression_type: header.compression.as_str().to_owned(),
                bitmaps,
            }),
        }
    }

    fn image_store(&self) -> Option<&dyn ImageStore> {
        Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ImageStore for Qcow2 {
    fn can_store_bitmap(&self, name: &str, granularity_bytes: u32) -> Result<()> {
        self.can_store(name, granularity_bytes)
    }

    fn load_bitmaps(&self) -> IoFuture<'_, Vec<StoredBitmap>> {
        Box::pin(self.load())
    }

    fn store_bitmaps(&self, bitmaps: Vec<StoredBitmap>) -> IoFuture<'_> {
        Box::pin(self.store(bitmaps))
    }

    fn remove_bitmap<'a>(&'a self, name: &'a str) -> IoFuture<'a> {
        Box::pin(self.remove(name))
    }

    fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.snapshot_infos()
    }

    fn create_snapshot(&self, info: SnapshotInfo) -> IoFuture<'_, SnapshotInfo> {
        Box::pin(self.take_snapshot(info))
    }

    fn delete_snapshot<'a>(&'a self, id: &'a str) -> IoFuture<'a> {
        Box::pin(self.drop_snapshot(id))
    }
}
