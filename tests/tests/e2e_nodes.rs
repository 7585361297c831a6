#![expect(clippy::expect_used, reason = "a test that cannot go on says why and ends")]
//! What clients see of nodes, exports and snapshots, and which of several mistakes they are told first. Every text and
//! order here is what `qemu-storage-daemon` 10.0.2 answers.

use serde_json::{Value, json};
use tests::{Daemon, Qmp, have, run_ok};

fn node(client: &mut Qmp, name: &str) -> Value {
    let nodes = client.ok("query-named-block-nodes", json!({"flat": true}));
    let nodes = nodes.as_array().expect("a list of nodes");
    nodes
        .iter()
        .find(|node| node["node-name"] == name)
        .expect("the node is there")
        .clone()
}

/// A daemon with `disk`, a qcow2 image of 1 MiB with clusters of 4 KiB, in its file `disk-file`.
fn with_disk() -> Option<Daemon> {
    if !have("qemu-img") {
        eprintln!("skipped: no qemu-img");
        return None;
    }
    Some(Daemon::start(|folder| {
        let path = folder.join("disk.qcow2");
        let path = path.to_str().expect("a plain path");
        run_ok(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "1M"],
        );
        let options = json!({"driver": "qcow2", "node-name": "disk",
            "file": {"driver": "file", "node-name": "disk-file", "filename": path}});
        vec!["--blockdev".to_owned(), options.to_string()]
    }))
}

#[test]
fn what_lies_below_is_seen_through_formats_and_filters() {
    let Some(daemon) = with_disk() else { return };
    let mut client = daemon.client();
    client.ok("object-add", json!({"qom-type": "throttle-group", "id": "g"}));
    for above in [
        json!({"driver": "raw", "node-name": "raw", "file": "disk"}),
        json!({"driver": "throttle", "node-name": "throttle", "throttle-group": "g", "file": "disk"}),
        json!({"driver": "blkdebug", "node-name": "blkdebug", "image": "disk"}),
    ] {
        client.ok("blockdev-add", above.clone());
        let name = above["node-name"].as_str().expect("a name");
        let image = &node(&mut client, name)["image"];
        assert_eq!(image["cluster-size"], json!(4096), "{name}");
        assert_eq!(image["dirty-flag"], json!(false), "{name}");
        // So that a bitmap there gets the granularity of the clusters below.
        client.ok("block-dirty-bitmap-add", json!({"node": name, "name": "b"}));
        assert_eq!(
            node(&mut client, name)["dirty-bitmaps"][0]["granularity"],
            json!(4096)
        );
    }
    // Internal snapshots are taken where they can be kept.
    client.ok(
        "blockdev-snapshot-internal-sync",
        json!({"device": "raw", "name": "monday"}),
    );
    assert_eq!(
        node(&mut client, "blkdebug")["image"]["snapshots"][0]["name"],
        "monday"
    );
    client.ok(
        "blockdev-snapshot-delete-internal-sync",
        json!({"device": "throttle", "name": "monday"}),
    );
    assert_eq!(node(&mut client, "disk")["image"]["snapshots"], Value::Null);
}

#[test]
fn of_several_mistakes_the_first_is_told() {
    let Some(daemon) = with_disk() else { return };
    let mut client = daemon.client();
    let conflict = "Permission conflict on node 'disk-file': permissions 'write' are both required by an unnamed block \
        device (uses node 'disk-file' as 'root' child) and unshared by node 'disk' (uses node 'disk-file' as 'file' child).";
    let export = |node: &str| json!({"type": "nbd", "id": "e", "node-name": node, "writable": true, "bitmaps": ["none"]});
    // Whether the node can be used so, whether there is a server, whether the name is free, whether the bitmaps are there.
    client.ok("nbd-server-stop", json!({}));
    assert_eq!(client.fails("block-export-add", export("disk-file")), conflict);
    assert_eq!(
        client.fails("block-export-add", export("disk")),
        "NBD server not running"
    );
    let path = daemon.folder().join("nbd");
    client.ok(
        "nbd-server-start",
        json!({"addr": {"type": "unix", "data": {"path": path}}}),
    );
    assert_eq!(
        client.fails("block-export-add", export("disk")),
        "Bitmap 'none' is not found"
    );

    // A node that others read is no overlay, whatever its format.
    assert_eq!(
        client.fails(
            "blockdev-snapshot",
            json!({"node": "disk", "overlay": "disk-file"})
        ),
        "The overlay is already in use"
    );

    // A merge looks at one source after the other.
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "other", "size": 2 << 20}),
    );
    for name in ["disk", "other"] {
        client.ok("block-dirty-bitmap-add", json!({"node": name, "name": "b"}));
    }
    let merge = json!({"node": "disk", "target": "b", "bitmaps": [{"node": "other", "name": "b"}, "none"]});
    let sizes = "Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged";
    assert_eq!(client.fails("block-dirty-bitmap-merge", merge.clone()), sizes);
    let action = json!({"actions": [{"type": "block-dirty-bitmap-merge", "data": merge}]});
    assert_eq!(client.fails("transaction", action), sizes);
}

#[test]
fn a_snapshot_file_is_opened_as_its_base_is() {
    let Some(daemon) = with_disk() else { return };
    let mut client = daemon.client();
    let disk = daemon.folder().join("disk.qcow2");
    client.ok("blockdev-del", json!({"node-name": "disk"}));
    client.ok(
        "blockdev-add",
        json!({"driver": "qcow2", "node-name": "disk", "read-only": true, "file": {"driver": "file", "filename": disk}}),
    );
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "disk"}),
    );
    let file = daemon.folder().join("overlay.qcow2");
    client.ok(
        "blockdev-snapshot-sync",
        json!({"node-name": "disk", "snapshot-file": file, "snapshot-node-name": "overlay"}),
    );
    assert_eq!(node(&mut client, "overlay")["ro"], json!(true));
}

#[test]
fn nodes_get_their_names_in_turn() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    let disk = |name: &str| json!({"driver": "null-co", "node-name": name, "size": 1 << 20});
    client.ok(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "r1", "file": disk("r2")}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "blkdebug", "node-name": "d1", "image": disk("d2")}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "copy-before-write", "node-name": "c1", "file": disk("c2"), "target": disk("c3")}),
    );
    // Newest first: a node is named after its `file` and before all else that it opens.
    let nodes = client.ok("query-named-block-nodes", json!({"flat": true}));
    let names: Vec<_> = nodes
        .as_array()
        .expect("a list")
        .iter()
        .map(|node| &node["node-name"])
        .collect();
    assert_eq!(names, ["c3", "c1", "c2", "d2", "d1", "r1", "r2"]);
    // A taken name is told before what the driver finds wrong, and after a `file` that is not there.
    let mut refused = |options: Value| client.fails("blockdev-add", options);
    let taken = "Duplicate nodes with node-name='r1'";
    assert_eq!(
        refused(json!({"driver": "qcow2", "node-name": "r1", "file": "d1"})),
        taken
    );
    assert_eq!(
        refused(json!({"driver": "copy-before-write", "node-name": "r1", "file": "d1", "target": "none"})),
        taken
    );
    assert_eq!(
        refused(json!({"driver": "raw", "node-name": "r1", "file": "none"})),
        "Cannot find device='none' nor node-name='none'"
    );
    assert_eq!(
        refused(json!({"driver": "blkdebug", "node-name": "r1", "image": "none"})),
        taken
    );
}
