//! Bitmaps, seen from outside.

use serde_json::json;
use tests::Daemon;

#[test]
fn a_checksum_tells_bitmaps_apart() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for node in ["a", "t"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": 4 << 20}),
        );
    }
    for name in ["b", "c"] {
        client.ok(
            "block-dirty-bitmap-add",
            json!({"node": "a", "name": name, "granularity": 65536}),
        );
    }
    let mut hash = |node: &str, name: &str| {
        client.ok(
            "x-debug-block-dirty-bitmap-sha256",
            json!({"node": node, "name": name}),
        )["sha256"]
            .clone()
    };
    // SHA-256 of the one word that sixty-four bits take, all zeroes.
    let empty = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc";
    assert_eq!(hash("a", "b"), empty);
    assert_eq!(hash("a", "c"), empty);
    // A cancelled backup with this mode leaves what it has not copied: with this
    // limit all of the disk but the first request, which is a quarter of it.
    client.ok(
        "blockdev-backup",
        json!({"job-id": "j", "device": "a", "target": "t", "sync": "full", "bitmap": "b",
            "bitmap-mode": "always", "speed": 1, "auto-finalize": false}),
    );
    client.ok("job-cancel", json!({"id": "j"}));
    client.job_end("j");
    let mut hash = |name: &str| {
        client.ok(
            "x-debug-block-dirty-bitmap-sha256",
            json!({"node": "a", "name": name}),
        )["sha256"]
            .clone()
    };
    let other = hash("b");
    assert_ne!(other, empty);
    assert_eq!(hash("c"), empty);
    client.ok(
        "block-dirty-bitmap-merge",
        json!({"node": "a", "target": "c", "bitmaps": ["b"]}),
    );
    let mut hash = |name: &str| {
        client.ok(
            "x-debug-block-dirty-bitmap-sha256",
            json!({"node": "a", "name": name}),
        )["sha256"]
            .clone()
    };
    assert_eq!(hash("c"), other);
    assert_eq!(
        client.fails(
            "x-debug-block-dirty-bitmap-sha256",
            json!({"node": "a", "name": "zz"})
        ),
        "Dirty bitmap 'zz' not found"
    );
    assert_eq!(
        client.fails(
            "x-debug-block-dirty-bitmap-sha256",
            json!({"node": "zz", "name": "b"})
        ),
        "Node 'zz' not found"
    );
}
