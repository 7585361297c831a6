//! The measured messages.

use std::fmt::Write as _;

/// Arguments of a `blockdev-add` of five nodes, one above the other.
pub fn blockdev_add() -> String {
    r#"{"driver": "qcow2", "node-name": "disk0", "discard": "unmap", "cache": {"direct": true, "no-flush": false},
        "lazy-refcounts": true, "l2-cache-size": 8388608, "overlap-check": "cached",
        "file": {"driver": "throttle", "node-name": "disk0-throttle", "throttle-group": "group0",
            "file": {"driver": "copy-on-read", "node-name": "disk0-cor", "bottom": "base",
                "file": {"driver": "raw", "node-name": "disk0-raw", "offset": 1048576, "size": 10737418240,
                    "file": {"driver": "file", "node-name": "disk0-file", "filename": "/var/lib/images/disk0.qcow2",
                             "aio": "io_uring", "locking": "on", "read-only": false}}}},
        "backing": "base-node"}"#
        .to_owned()
}

/// Arguments of a `transaction` of 20 actions: ten bitmaps and ten backups.
pub fn transaction() -> String {
    let mut actions = Vec::new();
    for disk in 0..10 {
        actions.push(format!(
            r#"{{"type": "block-dirty-bitmap-add", "data": {{"node": "disk{disk}", "name": "bitmap{disk}", "granularity": 65536, "persistent": true}}}}"#
        ));
        actions.push(format!(
            r#"{{"type": "blockdev-backup", "data": {{"device": "disk{disk}", "target": "target{disk}", "job-id": "backup{disk}", "sync": "incremental", "bitmap": "bitmap{disk}", "bitmap-mode": "on-success", "speed": 104857600, "auto-finalize": false, "auto-dismiss": false, "on-source-error": "report"}}}}"#
        ));
    }
    format!(r#"[{}]"#, actions.join(", "))
}

/// The reply to a `query-named-block-nodes` with 1,000 nodes.
pub fn named_block_nodes() -> String {
    let mut text = String::from("[");
    for node in 0..1000 {
        let comma = if node > 0 { ", " } else { "" };
        let _ = write!(
            text,
            r#"{comma}{{"iops_rd": 0, "detect_zeroes": "off", "active": true, "image": {{"virtual-size": 10737418240, "filename": "/var/lib/images/disk{node}.qcow2", "cluster-size": 65536, "format": "qcow2", "actual-size": 200704, "format-specific": {{"type": "qcow2", "data": {{"compat": "1.1", "compression-type": "zlib", "lazy-refcounts": false, "refcount-bits": 16, "corrupt": false, "extended-l2": false}}}}, "dirty-flag": false}}, "iops_wr": 0, "ro": false, "children": [{{"node-name": "file{node}", "child": "file"}}], "node-name": "disk{node}", "backing_file_depth": 0, "drv": "qcow2", "iops": 0, "bps_wr": 0, "write_threshold": 0, "dirty-bitmaps": [{{"name": "bitmap0", "recording": true, "persistent": false, "busy": false, "granularity": 65536, "count": 655360}}], "encrypted": false, "bps": 0, "bps_rd": 0, "cache": {{"no-flush": false, "direct": false, "writeback": true}}, "file": "/var/lib/images/disk{node}.qcow2"}}"#
        );
    }
    text.push(']');
    text
}
