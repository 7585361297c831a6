//! Nodes as `query-named-block-nodes` shows them.

use std::sync::Arc;

use block_core::driver::{FormatInfo, Qcow2Info};
use block_core::graph::{Child, ChildRole, Node};
use block_core::options::DetectZeroes;

/// How many backing files are followed. A chain cannot be circular; this bounds the recursion all the same.
const MAX_CHAIN: usize = 1000;

/// A node; `flat` leaves out what is below it.
pub fn device_info(node: &Arc<Node>, flat: bool) -> schema::BlockDeviceInfo {
    let info = node.driver().info();
    let options = node.options();
    let backing = child_below(node);
    let backing_file = backing
        .as_ref()
        .filter(|child| child.role() == ChildRole::Backing)
        .map(|child| child.node().filename());
    let bitmaps = super::jobs::dirty_bitmaps(node);
    let image = image_info(node, info, flat, 0);
    schema::BlockDeviceInfo {
        // Found once: a description is some work.
        file: image.base.filename.clone(),
        node_name: Some(node.name().as_str().to_owned()),
        ro: node.is_read_only(),
        drv: node.driver().name().to_owned(),
        backing_file,
        backing_file_depth: if flat { 0 } else { depth(node) },
        active: true,
        encrypted: false,
        detect_zeroes: match options.detect_zeroes {
            DetectZeroes::Off => schema::BlockdevDetectZeroesOptions::Off,
            DetectZeroes::On => schema::BlockdevDetectZeroesOptions::On,
            DetectZeroes::Unmap => schema::BlockdevDetectZeroesOptions::Unmap,
        },
        bps: 0,
        bps_rd: 0,
        bps_wr: 0,
        iops: 0,
        iops_rd: 0,
        iops_wr: 0,
        image,
        bps_max: None,
        bps_rd_max: None,
        bps_wr_max: None,
        iops_max: None,
        iops_rd_max: None,
        iops_wr_max: None,
        bps_max_length: None,
        bps_rd_max_length: None,
        bps_wr_max_length: None,
        iops_max_length: None,
        iops_rd_max_length: None,
        iops_wr_max_length: None,
        iops_size: None,
        group: None,
        cache: schema::BlockdevCacheInfo {
            writeback: true,
            direct: options.cache.direct.unwrap_or(false),
            no_flush: options.cache.no_flush.unwrap_or(false),
        },
        // Shown as the signed number of the same bits, as clients know it.
        write_threshold: node.write_threshold().cast_signed(),
        dirty_bitmaps: (!bitmaps.is_empty()).then_some(bitmaps),
    }
}

/// The child whose content shows through: the backing file, or what a filter filters.
pub fn child_below(node: &Arc<Node>) -> Option<Arc<Child>> {
    let filter = is_filter(node.driver().name());
    node.children()
        .into_iter()
        .find(|child| child.role() == ChildRole::Backing || (filter && child.role() == ChildRole::Filtered))
}

/// Filters show what is below them as if they were not there.
pub fn is_filter(driver: &str) -> bool {
    matches!(driver, "throttle" | "blkdebug" | "copy-before-write")
}

fn depth(node: &Arc<Node>) -> i64 {
    let mut depth = 0;
    let mut at = Arc::clone(node);
    while let Some(child) = child_below(&at) {
        depth += 1;
        at = child.node();
    }
    depth
}

fn image_info(
    node: &Arc<Node>,
    info: block_core::driver::DriverInfo,
    flat: bool,
    level: usize,
) -> schema::ImageInfo {
    let below = if flat || level >= MAX_CHAIN {
        None
    } else {
        child_below(node)
    };
    let snapshot_node = node.snapshot_node();
    let store = snapshot_node
        .as_ref()
        .and_then(|node| node.driver().image_store());
    let snapshots: Vec<_> = match store {
        Some(store) => store.snapshots().into_iter().map(snapshot_info).collect(),
        None => Vec::new(),
    };
    let (backing_filename, backing_format) = match info.backing_file {
        Some((name, format)) => (Some(name), format),
        None => (None, None),
    };
    let full_backing_filename = backing_filename
        .as_deref()
        .and_then(|name| resolve(&info.filename, name));
    schema::ImageInfo {
        base: schema::BlockNodeInfo {
            format: node.driver().name().to_owned(),
            filename: node.filename(),
            dirty_flag: info.dirty,
            actual_size: info.allocated_bytes.map(signed),
            virtual_size: signed(node.length()),
            cluster_size: info.cluster_bytes.map(i64::from),
            encrypted: None,
            compressed: None,
            backing_filename,
            full_backing_filename,
            backing_filename_format: backing_format,
            snapshots: (!snapshots.is_empty()).then_some(snapshots),
            format_specific: specific(info.specific),
        },
        backing_image: below.map(|child| {
            let below = child.node();
            let info = below.driver().info();
            Box::new(image_info(&below, info, flat, level + 1))
        }),
    }
}

/// A backing file's name as it is to be opened: names in images are relative to the image.
pub fn resolve(image: &str, backing: &str) -> Option<String> {
    let has_protocol = |name: &str| {
        name.split_once(':')
            .is_some_and(|(protocol, _)| !protocol.contains('/'))
    };
    if backing.starts_with('/') || has_protocol(backing) {
        return Some(backing.to_owned());
    }
    if has_protocol(image) {
        return None;
    }
    Some(match image.rfind('/') {
        Some(slash) => format!("{}/{backing}", image.get(..slash).unwrap_or_default()),
        None => backing.to_owned(),
    })
}

fn specific(info: FormatInfo) -> Option<schema::ImageInfoSpecific> {
    match info {
        FormatInfo::None => None,
        FormatInfo::File { extent_size_hint } => Some(schema::ImageInfoSpecific::File(
            schema::ImageInfoSpecificFileWrapper {
                data: schema::ImageInfoSpecificFile { extent_size_hint },
            },
        )),
        FormatInfo::Qcow2(qcow2) => Some(schema::ImageInfoSpecific::Qcow2(
            schema::ImageInfoSpecificQCow2Wrapper {
                data: qcow2_info(qcow2),
            },
        )),
    }
}

fn qcow2_info(info: Qcow2Info) -> schema::ImageInfoSpecificQCow2 {
    let bitmaps: Vec<_> = info
        .bitmaps
        .into_iter()
        .map(|bitmap| {
            let flag = |set: bool, flag| set.then_some(flag);
            schema::Qcow2BitmapInfo {
                name: bitmap.name,
                granularity: bitmap.granularity_bytes,
                flags: [
                    flag(bitmap.in_use, schema::Qcow2BitmapInfoFlags::InUse),
                    flag(bitmap.auto, schema::Qcow2BitmapInfoFlags::Auto),
                ]
                .into_iter()
                .flatten()
                .collect(),
            }
        })
        .collect();
    schema::ImageInfoSpecificQCow2 {
        compat: info.compat,
        data_file: None,
        data_file_raw: None,
        extended_l2: info.extended_l2,
        lazy_refcounts: info.lazy_refcounts,
        corrupt: info.corrupt,
        refcount_bits: i64::from(info.refcount_bits),
        encrypt: None,
        bitmaps: (!bitmaps.is_empty()).then_some(bitmaps),
        compression_type: if info.compression_type == "zstd" {
            schema::Qcow2CompressionType::Zstd
        } else {
            schema::Qcow2CompressionType::Zlib
        },
    }
}

/// An internal snapshot.
pub fn snapshot_info(info: block_core::driver::SnapshotInfo) -> schema::SnapshotInfo {
    const NANOSECONDS: u64 = 1_000_000_000;
    schema::SnapshotInfo {
        id: info.id,
        name: info.name,
        vm_state_size: signed(info.vm_state_bytes),
        date_sec: i64::from(info.date.0),
        date_nsec: i64::from(info.date.1),
        vm_clock_sec: signed(info.vm_clock_nanoseconds / NANOSECONDS),
        vm_clock_nsec: signed(info.vm_clock_nanoseconds % NANOSECONDS),
        icount: info.icount.map(signed),
    }
}

/// The schema's plain integers have a sign; sizes that do not fit are impossible and shown as the largest.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn backing_names_are_relative_to_the_image() {
        assert_eq!(resolve("top.qcow2", "base.qcow2").as_deref(), Some("base.qcow2"));
        assert_eq!(
            resolve("/a/b/top.qcow2", "base.qcow2").as_deref(),
            Some("/a/b/base.qcow2")
        );
        assert_eq!(
            resolve("/a/top.qcow2", "/base.qcow2").as_deref(),
            Some("/base.qcow2")
        );
        assert_eq!(
            resolve("/a/top.qcow2", "nbd:host:1").as_deref(),
            Some("nbd:host:1")
        );
        assert_eq!(resolve("json:{}", "base.qcow2"), None);
        assert_eq!(resolve("/a/top", "x/y:z").as_deref(), Some("/a/x/y:z"));
    }
}
