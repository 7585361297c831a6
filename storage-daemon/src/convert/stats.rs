//! I/O counters as `query-blockstats` shows them.

use std::sync::Arc;

use block_core::graph::{ChildRole, Node};

use super::nodes::signed;

/// Most levels that are shown below a node.
const MAX_DEPTH: usize = 1000;

/// A node's counters, with those of what holds its image.
///
/// Requests are counted at the users of nodes, which this query never shows here; of a node itself only the
/// highest write is known. All other counters are therefore zero, as clients find them with QEMU's daemon.
pub fn node_stats(node: &Arc<Node>) -> schema::BlockStats {
    below(node, 0)
}

fn below(node: &Arc<Node>, depth: usize) -> schema::BlockStats {
    let child = |wanted: &[ChildRole]| {
        if depth >= MAX_DEPTH {
            return None;
        }
        node.children()
            .iter()
            .find(|child| wanted.contains(&child.role()))
            .map(|child| Box::new(below(&child.node(), depth + 1)))
    };
    schema::BlockStats {
        device: None,
        qdev: None,
        node_name: Some(node.name().as_str().to_owned()),
        stats: counters(signed(node.stats().highest_write())),
        driver_specific: specific(node),
        parent: child(&[ChildRole::Storage, ChildRole::Filtered, ChildRole::Data]),
        // Backing files are shown of devices only.
        backing: None,
    }
}

fn specific(node: &Node) -> Option<schema::BlockStatsSpecific> {
    let discards = node.driver().discard_stats().unwrap_or_default();
    let file = schema::BlockStatsSpecificFile {
        discard_nb_ok: discards.done,
        discard_nb_failed: discards.failed,
        discard_bytes_ok: discards.bytes,
    };
    match node.driver().name() {
        "file" => Some(schema::BlockStatsSpecific::File(file)),
        "host_device" => Some(schema::BlockStatsSpecific::HostDevice(file)),
        _ => None,
    }
}

fn counters(wr_highest_offset: i64) -> schema::BlockDeviceStats {
    schema::BlockDeviceStats {
        rd_bytes: 0,
        wr_bytes: 0,
        zone_append_bytes: 0,
        unmap_bytes: 0,
        rd_operations: 0,
        wr_operations: 0,
        zone_append_operations: 0,
        flush_operations: 0,
        unmap_operations: 0,
        rd_total_time_ns: 0,
        wr_total_time_ns: 0,
        zone_append_total_time_ns: 0,
        flush_total_time_ns: 0,
        unmap_total_time_ns: 0,
        wr_highest_offset,
        rd_merged: 0,
        wr_merged: 0,
        zone_append_merged: 0,
        unmap_merged: 0,
        idle_time_ns: None,
        failed_rd_operations: 0,
        failed_wr_operations: 0,
        failed_zone_append_operations: 0,
        failed_flush_operations: 0,
        failed_unmap_operations: 0,
        invalid_rd_operations: 0,
        invalid_wr_operations: 0,
        invalid_zone_append_operations: 0,
        invalid_flush_operations: 0,
        invalid_unmap_operations: 0,
        account_invalid: false,
        account_failed: false,
        timed_stats: Vec::new(),
        rd_latency_histogram: None,
        wr_latency_histogram: None,
        zone_append_latency_histogram: None,
        flush_latency_histogram: None,
    }
}
