//! What a transaction holds up: the nodes that it touches, and nothing and nobody else.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Daemon, Qmp};

/// Far longer than any command takes that waits for nobody, far shorter than what is stuck here stays so.
const SOON: Duration = Duration::from_secs(3);

/// Another daemon whose exports are slow, or stuck while it is stopped.
struct Far(Daemon);

impl Far {
    fn signal(&self, name: &str) {
        tests::run_ok("kill", &[format!("-{name}"), self.0.pid().to_string()]);
    }

    fn node(&self, client: &mut Qmp, name: &str, export: &str) {
        let path = self.0.folder().join("nbd").display().to_string();
        client.ok(
            "blockdev-add",
            json!({"driver": "nbd", "node-name": name, "export": export,
                "server": {"type": "unix", "path": path}}),
        );
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

fn null(client: &mut Qmp, name: &str) {
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": name, "size": 1 << 20}),
    );
}

fn soon<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = run();
    let took = began.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    result
}

#[test]
fn a_stuck_node_elsewhere_delays_no_transaction_and_a_stuck_transaction_no_other_client() {
    let far = Far(Daemon::start(|_| {
        [
            "--blockdev",
            "null-co,node-name=n,size=1048576",
            "--export",
            "nbd,id=e,node-name=n,name=n,writable=on",
        ]
        .map(str::to_owned)
        .to_vec()
    }));
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for name in ["a", "b", "ta", "tb", "s"] {
        null(&mut client, name);
    }
    far.node(&mut client, "far", "n");
    far.signal("STOP");
    let stuck = json!({"job-id": "stuck", "device": "s", "target": "far", "sync": "full"});
    client.ok("blockdev-backup", stuck);
    client.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "stuck" && data["status"] == "running"
    });

    // A transaction beside the stuck node, one that succeeds and one that is taken back.
    let add = |name: &str| json!({"type": "block-dirty-bitmap-add", "data": {"node": "a", "name": name}});
    let backup = |job: &str, disk: &str, target: &str| {
        json!({"type": "blockdev-backup", "data": {
            "job-id": job, "device": disk, "target": target, "sync": "full", "transactional-cancel": true}})
    };
    soon("a transaction of other nodes", || {
        client.ok(
            "transaction",
            json!({"actions": [add("kept"), backup("ja", "a", "ta"), backup("jb", "b", "tb")]}),
        );
        for job in ["ja", "jb"] {
            assert_eq!(client.job_end(job)["event"], "BLOCK_JOB_COMPLETED");
        }
    });
    soon("an aborted transaction of other nodes", || {
        client.fails(
            "transaction",
            json!({"actions": [add("gone"), backup("ja", "a", "ta"), {"type": "abort", "data": {}}]}),
        );
    });
    assert!(client.bitmap("a", "kept").is_some() && client.bitmap("a", "gone").is_none());

    // One that touches the stuck disk waits. Other clients are answered meanwhile, and so is this one's next command
    // as soon as the disk moves again.
    let mut other = daemon.client();
    let bitmap = json!({"type": "block-dirty-bitmap-add", "data": {"node": "s", "name": "late"}});
    let request = json!({"execute": "transaction", "arguments": {"actions": [bitmap]}, "id": "late"});
    client.send(format!("{request}\n").as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    soon("another client's commands", || {
        other.ok("query-version", json!({}));
        other.ok("query-named-block-nodes", json!({}));
        let jobs = other.ok("query-jobs", json!({}));
        assert_eq!(jobs[0]["id"], "stuck", "{jobs}");
        other.ok("block-dirty-bitmap-add", json!({"node": "a", "name": "beside"}));
        let beside = json!({"type": "block-dirty-bitmap-remove", "data": {"node": "a", "name": "beside"}});
        other.ok("transaction", json!({ "actions": [beside] }));
    });
    far.signal("CONT");
    while client.read().expect("an answer")["id"] != "late" {}
    assert!(client.bitmap("s", "late").is_some());
}

/// An internal snapshot in an image on a slow server, taken and, since the transaction fails, deleted again.
#[test]
fn other_clients_are_answered_while_a_transaction_aborts() {
    if !tests::have("qemu-img") {
        return;
    }
    let far = Far(Daemon::start(|folder| {
        let image = folder.join("image").display().to_string();
        tests::run_ok("qemu-img", &["create", "-q", "-f", "qcow2", &image, "16M"]);
        // A server's disk does not grow: what the image will need has to be there.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .expect("the image");
        file.set_len(32 << 20).expect("room");
        let slow = json!({"driver": "throttle", "node-name": "slow", "throttle-group": "g",
            "file": {"driver": "file", "filename": image}});
        [
            "--object",
            "throttle-group,id=g,x-iops-write=5",
            "--blockdev",
            &slow.to_string(),
            "--export",
            "nbd,id=e,node-name=slow,name=slow,writable=on",
        ]
        .map(str::to_owned)
        .to_vec()
    }));
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    far.node(&mut client, "file", "slow");
    client.ok(
        "blockdev-add",
        json!({"driver": "qcow2", "node-name": "disk", "file": "file"}),
    );
    let snapshot =
        json!({"type": "blockdev-snapshot-internal-sync", "data": {"device": "disk", "name": "snap"}});
    let request = json!({"execute": "transaction", "id": "long",
        "arguments": {"actions": [snapshot, {"type": "abort", "data": {}}]}});
    let mut other = daemon.client();
    let began = Instant::now();
    client.send(format!("{request}\n").as_bytes());
    let waiting = std::thread::spawn(move || {
        let answer = client.read().expect("an answer");
        (answer, Instant::now(), client)
    });
    let mut longest = Duration::ZERO;
    while !waiting.is_finished() {
        let asked = Instant::now();
        other.ok("query-version", json!({}));
        other.ok("query-block-jobs", json!({}));
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    let (answer, answered, mut client) = waiting.join().expect("the waiting thread");
    assert_eq!(answer["error"]["desc"], "Transaction aborted using Abort action");
    let took = answered - began;
    assert!(
        took > Duration::from_secs(1),
        "the transaction was not slow: {took:?}"
    );
    assert!(longest < took / 3, "{longest:?} of {took:?}");
    let nodes = client.ok("query-named-block-nodes", json!({}));
    let disk = nodes
        .as_array()
        .expect("nodes")
        .iter()
        .find(|node| node["node-name"] == "disk");
    assert_eq!(disk.expect("the disk")["image"].get("snapshots"), None);
}
