//! The main job, seen from outside: a grouped incremental backup of two live disks, with a target that fails first.

use std::path::Path;

use serde_json::json;
use tests::{Daemon, Qmp, have, run_ok};

const MIB: u64 = 1 << 20;

/// The options for a raw disk `a`, a qcow2 disk `b`, both exported, and targets: `ta`, `tb` and `broken`, which
/// fails every write at its sector 4096.
fn prepare(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    for (name, format) in [
        ("a", "raw"),
        ("b", "qcow2"),
        ("ta", "raw"),
        ("tb", "qcow2"),
        ("broken", "raw"),
        ("fa", "raw"),
        ("fb", "qcow2"),
    ] {
        run_ok("qemu-img", &["create", "-q", "-f", format, &path(name), "16M"]);
    }
    let node = |name: &str, format: &str| {
        json!({"driver": format, "node-name": name, "file": {"driver": "file", "filename": path(name)}})
            .to_string()
    };
    let broken = json!({"driver": "raw", "node-name": "broken", "file": {
        "driver": "blkdebug", "image": {"driver": "file", "filename": path("broken")},
        "inject-error": [{"event": "none", "iotype": "write", "sector": 4096, "errno": 5}]}});
    let mut args = Vec::new();
    for blockdev in [
        node("a", "raw"),
        node("b", "qcow2"),
        node("ta", "raw"),
        node("tb", "qcow2"),
        node("fa", "raw"),
        node("fb", "qcow2"),
        broken.to_string(),
    ] {
        args.extend(["--blockdev".to_owned(), blockdev]);
    }
    for disk in ["a", "b"] {
        args.extend([
            "--export".to_owned(),
            format!("nbd,id=e{disk},node-name={disk},name={disk},writable=on"),
        ]);
    }
    args
}

fn write(daemon: &Daemon, disk: &str, pattern: u8, offset: u64, length: u64) {
    let command = format!("write -q -P {pattern} {offset} {length}");
    run_ok("qemu-io", &["-f", "raw", "-c", &command, &daemon.nbd_uri(disk)]);
}

fn grouped(client: &mut Qmp, second_target: &str) {
    let backup = |job: &str, disk: &str, target: &str| {
        json!({"type": "blockdev-backup", "data": {
            "job-id": job, "device": disk, "target": target, "sync": "incremental", "bitmap": "since"}})
    };
    client.ok(
        "transaction",
        json!({"actions": [backup("ja", "a", "ta"), backup("jb", "b", second_target)],
               "properties": {"completion-mode": "grouped"}}),
    );
}

#[test]
fn grouped_incremental_of_two_live_disks_survives_a_failing_target() {
    if !(have("qemu-img") && have("qemu-io")) {
        return;
    }
    let daemon = Daemon::start(prepare);
    let mut client = daemon.client();
    write(&daemon, "a", 1, 0, 4 * MIB);
    write(&daemon, "b", 2, 8 * MIB, 4 * MIB);

    // A full backup of both and a bitmap on each, in one transaction: the bitmaps start at the backups' point in time.
    let mut actions = Vec::new();
    for (disk, target) in [("a", "fa"), ("b", "fb")] {
        actions.push(json!({"type": "block-dirty-bitmap-add", "data": {"node": disk, "name": "since"}}));
        actions.push(json!({"type": "blockdev-backup", "data": {
            "job-id": format!("full-{disk}"), "device": disk, "target": target, "sync": "full"}}));
    }
    client.ok("transaction", json!({ "actions": actions }));
    for disk in ["a", "b"] {
        let end = client.job_end(&format!("full-{disk}"));
        assert_eq!(end["event"], "BLOCK_JOB_COMPLETED");
        assert_eq!(end["data"].get("error"), None, "{end}");
    }

    write(&daemon, "a", 3, MIB, MIB);
    write(&daemon, "b", 4, 2 * MIB, MIB);
    assert_eq!(client.bitmap("a", "since").expect("a bitmap")["count"], MIB);
    assert_eq!(client.bitmap("b", "since").expect("a bitmap")["count"], MIB);

    // Disk b's target fails: neither bitmap is used up.
    grouped(&mut client, "broken");
    let failed = client.job_end("jb");
    assert_eq!(failed["event"], "BLOCK_JOB_COMPLETED");
    assert!(failed["data"]["error"].is_string(), "{failed}");
    assert_eq!(client.job_end("ja")["event"], "BLOCK_JOB_CANCELLED");
    for disk in ["a", "b"] {
        let bitmap = client.bitmap(disk, "since").expect("a bitmap");
        assert_eq!(bitmap["count"], MIB, "{disk}: {bitmap}");
        assert_eq!(bitmap["busy"], false, "{disk}: {bitmap}");
    }

    // The retry takes what the failed one would have taken, and uses both bitmaps up.
    grouped(&mut client, "tb");
    for job in ["ja", "jb"] {
        let end = client.job_end(job);
        assert_eq!(end["data"].get("error"), None, "{end}");
        assert_eq!(end["data"]["len"], MIB);
    }
    for disk in ["a", "b"] {
        assert_eq!(client.bitmap(disk, "since").expect("a bitmap")["count"], 0);
    }

    // A full target with the increment on top is what the guest sees.
    drop(client);
    let folder = daemon.quit();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (disk, format, full, increment) in [("a", "raw", "fa", "ta"), ("b", "qcow2", "fb", "tb")] {
        let offset = if disk == "a" { MIB } else { 2 * MIB };
        let pattern = if disk == "a" { 3 } else { 4 };
        let read = format!("read -q -P {pattern} {offset} {MIB}");
        run_ok("qemu-io", &["-f", format, "-c", &read, &path(increment)]);
        let restore = format!("write -q -P {pattern} {offset} {MIB}");
        run_ok("qemu-io", &["-f", format, "-c", &restore, &path(full)]);
        run_ok(
            "qemu-img",
            &[
                "compare",
                "-q",
                "-f",
                format,
                "-F",
                format,
                &path(disk),
                &path(full),
            ],
        );
    }
    for image in ["b", "tb", "fb"] {
        run_ok("qemu-img", &["check", "-q", "-f", "qcow2", &path(image)]);
    }
}
