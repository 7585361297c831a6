#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why and ends")]
//! Fleecing from outside: what a copy-before-write node keeps, shows and refuses.

use serde_json::{Value, json};
use tests::{Daemon, Qmp, have, run};

const KIB: u64 = 1024;

/// A disk `a` of 1 MiB, all sevens, and a target `t`.
fn start() -> Daemon {
    Daemon::start(|folder| {
        std::fs::write(folder.join("a.img"), vec![7; 1024 * 1024]).unwrap();
        std::fs::write(folder.join("t.img"), vec![0; 1024 * 1024]).unwrap();
        ["a", "t"]
            .into_iter()
            .flat_map(|name| {
                let file = folder.join(format!("{name}.img"));
                let node = json!({"driver": "raw", "node-name": name, "discard": "unmap",
                                  "file": {"driver": "file", "filename": file, "discard": "unmap"}});
                ["--blockdev".to_owned(), node.to_string()]
            })
            .collect()
    })
}

fn bitmaps(client: &mut Qmp, node: &str) -> Vec<Value> {
    let nodes = client.ok("query-named-block-nodes", json!({"flat": true}));
    nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|each| each["node-name"] == node)
        .and_then(|each| each["dirty-bitmaps"].as_array().cloned())
        .unwrap_or_default()
}

/// Counts of the nameless bitmaps: what may be read, what was saved for the guest, what still would have to be.
fn own_counts(client: &mut Qmp) -> Vec<u64> {
    bitmaps(client, "c")
        .iter()
        .filter(|bitmap| bitmap.get("name").is_none())
        .map(|bitmap| {
            assert_eq!(bitmap["recording"], json!(false));
            assert_eq!(bitmap["granularity"], json!(64 * KIB));
            bitmap["count"].as_u64().unwrap() / KIB
        })
        .collect()
}

fn io(daemon: &Daemon, export: &str, command: &str) -> (bool, String) {
    let output = run("qemu-io", &["-f", "raw", "-c", command, &daemon.nbd_uri(export)]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn a_point_in_time_shows_what_it_holds_and_keeps_its_length() {
    if !have("qemu-io") {
        return;
    }
    let daemon = start();
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "copy-before-write", "node-name": "c", "file": "a", "target": "t"}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "snapshot-access", "node-name": "s", "file": "c", "discard": "unmap"}),
    );
    let refused = client.fails("block_resize", json!({"node-name": "s", "size": 2048 * KIB}));
    assert_eq!(refused, "Image format driver does not support resize");
    assert_eq!(own_counts(&mut client), [1024, 0, 1024]);
    for (export, node) in [("w", "c"), ("s", "s")] {
        client.ok(
            "block-export-add",
            json!({"type": "nbd", "id": export, "name": export, "node-name": node, "writable": true}),
        );
    }
    // Two clusters of the old content, one write after the other.
    assert!(io(&daemon, "w", "write -P 1 0 64k").0);
    assert!(io(&daemon, "w", "write -P 2 100k 4k").0);
    assert!(io(&daemon, "w", "write -P 3 100k 4k").0);
    assert_eq!(own_counts(&mut client), [1024, 128, 896]);
    assert!(io(&daemon, "s", "read -P 7 0 1M").0);
    // What a reader gives back is neither shown nor saved any more.
    assert!(io(&daemon, "s", "discard 512k 128k").0);
    assert_eq!(own_counts(&mut client), [896, 128, 768]);
    assert!(!io(&daemon, "s", "read 512k 4k").0);
    // Nor does what was saved of it take room in the target.
    assert!(io(&daemon, "s", "discard 0 64k").0);
    assert_eq!(own_counts(&mut client), [832, 128, 768]);
    let target = std::fs::read(daemon.folder().join("t.img")).unwrap();
    assert!(target[..64 << 10].iter().all(|byte| *byte == 0));
    assert!(target[64 << 10..128 << 10].iter().all(|byte| *byte == 7));
    // A bitmap of a client stands before them.
    client.ok("block-dirty-bitmap-add", json!({"node": "c", "name": "mine"}));
    let all = bitmaps(&mut client, "c");
    assert_eq!(all.len(), 4);
    assert_eq!(all[0]["name"], "mine");

    client.ok("block-export-del", json!({"id": "w"}));
    client.event("BLOCK_EXPORT_DELETED", |data| data["id"] == "w");
    // The disk may grow; the point in time does not.
    client.ok("block_resize", json!({"node-name": "c", "size": 2048 * KIB}));
    assert!(io(&daemon, "s", "read -P 7 1020k 4k").0);
    assert!(!io(&daemon, "s", "read 1M 4k").0);
    drop(daemon.quit());
}

#[test]
fn options_of_a_copy_before_write_node() {
    let daemon = start();
    let mut client = daemon.client();
    for (node, size) in [("small", 4096), ("big", 1 << 30)] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": size}),
        );
        client.ok("block-dirty-bitmap-add", json!({"node": node, "name": "b"}));
    }
    let mut refused = |more: Value| {
        let mut node = json!({"driver": "copy-before-write", "node-name": "c", "file": "a", "target": "t"});
        for (key, value) in more.as_object().unwrap() {
            node[key] = value.clone();
        }
        client.fails("blockdev-add", node)
    };
    assert_eq!(
        refused(json!({"min-cluster-size": -1})),
        "Cannot create block-copy-state: min-cluster-size too large: 18446744073709551615 > 9223372036854775807"
    );
    assert_eq!(
        refused(json!({"min-cluster-size": 3000})),
        "Cannot create block-copy-state: min-cluster-size needs to be a power of 2"
    );
    for (node, size) in [("small", 4096), ("big", 1 << 30)] {
        assert_eq!(
            refused(json!({"bitmap": {"node": node, "name": "b"}})),
            format!(
                "Cannot create block-copy-state: Failed to merge bitmap 'b' to internal copy-bitmap: Bitmaps are of \
                 different sizes (destination size is 1048576, source size is {size}) and can't be merged"
            )
        );
    }
    drop(daemon.quit());
}

/// A job whose nodes refuse it was there for a moment.
#[test]
fn a_source_that_cannot_be_discarded_from() {
    let daemon = Daemon::start(|folder| {
        std::fs::write(folder.join("a.img"), vec![7; 65536]).unwrap();
        let file = folder.join("a.img");
        let node = json!({"driver": "raw", "node-name": "a", "read-only": true,
                          "file": {"driver": "file", "filename": file}});
        let target = json!({"driver": "null-co", "node-name": "t", "size": 65536});
        ["--blockdev", &node.to_string(), "--blockdev", &target.to_string()]
            .map(str::to_owned)
            .to_vec()
    });
    let mut client = daemon.client();
    let backup = json!({"job-id": "j", "device": "a", "target": "t", "sync": "full", "discard-source": true});
    assert_eq!(
        client.fails("blockdev-backup", backup.clone()),
        "Block node is read-only"
    );
    client.event("JOB_STATUS_CHANGE", |data| data["status"] == "created");
    client.event("JOB_STATUS_CHANGE", |data| data["status"] == "null");
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "a"}),
    );
    assert_eq!(
        client.fails("blockdev-backup", backup),
        "Could not replace node: Block node is read-only"
    );
    assert_eq!(client.ok("query-jobs", json!({})), json!([]));
    drop(daemon.quit());
}
