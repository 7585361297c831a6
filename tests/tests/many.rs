#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why and ends")]
//! Many nodes, jobs and bitmaps through QMP: what it takes in time and memory.
//!
//! `cargo test --release -p tests --test many -- --ignored --nocapture --test-threads 1` prints the figures;
//! `STORAGE_DAEMON=qemu-storage-daemon` before it measures another daemon.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tests::{Daemon, Qmp, have};

/// The most memory that a daemon has had, in KiB.
fn peak_memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn null_node(client: &mut Qmp, name: &str, size: u64) {
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": name, "size": size, "read-zeroes": true}),
    );
}

/// One transaction of so many grouped backups, each of a node of its own.
fn grouped_backups(count: usize) {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for at in 0..count {
        null_node(&mut client, &format!("s{at}"), 1 << 20);
        null_node(&mut client, &format!("t{at}"), 1 << 20);
    }
    let before = peak_memory(&daemon);
    let actions: Vec<Value> = (0..count)
        .map(|at| {
            json!({"type": "blockdev-backup", "data": {
                "job-id": format!("j{at}"), "device": format!("s{at}"), "target": format!("t{at}"), "sync": "full"}})
        })
        .collect();
    let started = Instant::now();
    client.ok(
        "transaction",
        json!({"actions": actions, "properties": {"completion-mode": "grouped"}}),
    );
    let answered = started.elapsed();
    // A group ends with its oldest job.
    client.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "j0" && data["status"] == "null"
    });
    println!(
        "{count} grouped backups: answered in {answered:?}, over in {:?}, {} KiB more",
        started.elapsed(),
        peak_memory(&daemon) - before
    );
    assert_eq!(client.ok("query-jobs", json!({})), json!([]));
    drop(daemon.quit());
}

/// So many bitmaps on one node, added by transactions of 500; then a list of all.
fn bitmaps_on_a_node(count: usize) {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    null_node(&mut client, "n", 1 << 30);
    let before = peak_memory(&daemon);
    let started = Instant::now();
    for first in (0..count).step_by(500) {
        let actions: Vec<Value> = (first..count.min(first + 500))
            .map(|at| json!({"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": format!("b{at}")}}))
            .collect();
        client.ok("transaction", json!({"actions": actions}));
    }
    let added = started.elapsed();
    let started = Instant::now();
    let nodes = client.ok("query-named-block-nodes", json!({"flat": true}));
    assert_eq!(nodes[0]["dirty-bitmaps"].as_array().unwrap().len(), count);
    println!(
        "{count} bitmaps on a node: added in {added:?}, listed in {:?}, {} KiB more",
        started.elapsed(),
        peak_memory(&daemon) - before
    );
    drop(daemon.quit());
}

/// So many scattered writes on a disk of 64 TiB with a bitmap of 64 KiB granularity.
fn huge_sparse_disk(writes: u64) {
    if !have("qemu-io") {
        return;
    }
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    null_node(&mut client, "n", 64 << 40);
    client.ok(
        "block-dirty-bitmap-add",
        json!({"node": "n", "name": "b", "granularity": 65536}),
    );
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "name": "e", "node-name": "n", "writable": true}),
    );
    let mut script = String::new();
    for at in 0..writes {
        // Spread over the disk, never twice the same granule.
        let granule = at.wrapping_mul(0x9e37_79b9) % (1 << 30);
        script += &format!("write -q {} 512\n", granule * 65536);
    }
    let started = Instant::now();
    let mut io = Command::new("qemu-io")
        .args(["-f", "raw", &daemon.nbd_uri("e")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    io.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(io.wait().unwrap().success());
    let nodes = client.ok("query-named-block-nodes", json!({"flat": true}));
    assert_eq!(nodes[0]["dirty-bitmaps"][0]["count"], json!(writes * 65536));
    println!(
        "64 TiB, {writes} scattered writes: {:?}, daemon at {} KiB",
        started.elapsed(),
        peak_memory(&daemon)
    );
    drop(daemon.quit());
}

#[test]
fn some() {
    grouped_backups(20);
    bitmaps_on_a_node(600);
    huge_sparse_disk(50);
}

#[test]
#[ignore = "takes long; prints figures"]
fn many_jobs() {
    for count in [250, 500, 1000] {
        grouped_backups(count);
    }
}

#[test]
#[ignore = "takes long; prints figures"]
fn many_bitmaps() {
    for count in [2_500, 5_000, 10_000] {
        bitmaps_on_a_node(count);
    }
}

#[test]
#[ignore = "takes long; prints figures"]
fn many_writes() {
    for writes in [1_000, 10_000, 100_000] {
        huge_sparse_disk(writes);
    }
}
