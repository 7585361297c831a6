#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why and ends")]
//! A target that stops answering: jobs, guests and the end of the program do not hang with it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Daemon, Qmp, have, run};

/// A process that stands still until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(daemon: &Daemon) -> Self {
        signal("-STOP", daemon.pid());
        Self(daemon.pid())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(name: &str, pid: u32) {
    assert!(run("kill", &[name, &pid.to_string()]).status.success());
}

/// A daemon with an empty disk of 4 MiB for others to write to.
fn target() -> Daemon {
    Daemon::start(|folder| {
        std::fs::write(folder.join("t.img"), vec![0; 4 << 20]).unwrap();
        let file = folder.join("t.img");
        let node = json!({"driver": "file", "node-name": "t", "filename": file});
        vec![
            "--blockdev".to_owned(),
            node.to_string(),
            "--export".to_owned(),
            "nbd,id=t,node-name=t,name=t,writable=on".to_owned(),
        ]
    })
}

/// A daemon with a guest's disk `a`, exported, and a node `t` that reaches the target.
fn source(target: &Daemon) -> Daemon {
    let socket = target.folder().join("nbd");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "nobody serves {}", socket.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    Daemon::start(|folder| {
        std::fs::write(folder.join("a.img"), vec![7; 4 << 20]).unwrap();
        let file = folder.join("a.img");
        let disk = json!({"driver": "raw", "node-name": "a", "file": {"driver": "file", "filename": file}});
        let copy = json!({"driver": "raw", "node-name": "t", "file":
            {"driver": "nbd", "server": {"type": "unix", "path": socket}, "export": "t"}});
        ["--blockdev", &disk.to_string(), "--blockdev", &copy.to_string()]
            .map(str::to_owned)
            .to_vec()
    })
}

fn export(client: &mut Qmp, node: &str) {
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "name": "e", "node-name": node, "writable": true}),
    );
}

/// Writes as a guest does; says how long it took.
fn write(daemon: &Daemon, command: &str) -> Duration {
    let started = Instant::now();
    let output = run("qemu-io", &["-f", "raw", "-c", command, &daemon.nbd_uri("e")]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    started.elapsed()
}

/// A backup that has copied one cluster and waits for its budget; then the target stops.
fn backup_of_a_stuck_target(client: &mut Qmp, target: &Daemon, more: &Value) -> Stopped {
    let mut backup = json!({"job-id": "j", "device": "a", "target": "t", "sync": "full", "speed": 1,
                            "x-perf": {"max-workers": 1, "max-chunk": 65536}});
    for (key, value) in more.as_object().unwrap() {
        backup[key] = value.clone();
    }
    client.ok("blockdev-backup", backup);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.ok("query-jobs", json!({}))[0]["current-progress"] == json!(0) {
        assert!(Instant::now() < deadline, "nothing is copied");
        std::thread::sleep(Duration::from_millis(2));
    }
    Stopped::new(target)
}

#[test]
fn a_cancel_with_a_deadline_frees_the_guest() {
    if !have("qemu-io") {
        return;
    }
    let target = target();
    let daemon = source(&target);
    let mut client = daemon.client();
    export(&mut client, "a");
    let stopped = backup_of_a_stuck_target(&mut client, &target, &json!({}));
    client.ok("block-job-set-speed", json!({"device": "j", "speed": 0}));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| write(&daemon, "write -P 9 2M 4k"));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!guest.is_finished(), "nothing was saved, and yet the guest wrote");
        client.ok("job-cancel", json!({"id": "j", "deadline-ms": 300}));
        client.event("BLOCK_JOB_CANCELLED", |data| data["device"] == "j");
        guest.join().unwrap();
    });
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(write(&daemon, "write -P 9 3M 64k") < Duration::from_secs(5));
    assert_eq!(client.ok("query-jobs", json!({})), json!([]));
    drop(stopped);
    drop(daemon.quit());
}

#[test]
fn a_guest_goes_on_when_the_snapshot_may_break() {
    if !have("qemu-io") {
        return;
    }
    let target = target();
    let daemon = source(&target);
    let mut client = daemon.client();
    export(&mut client, "a");
    let more = json!({"on-cbw-error": "break-snapshot", "cbw-timeout": 1, "auto-dismiss": false});
    let stopped = backup_of_a_stuck_target(&mut client, &target, &more);
    let waited = write(&daemon, "write -P 9 2M 4k");
    assert!(
        waited > Duration::from_millis(900) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    client.event("BLOCK_JOB_COMPLETED", |data| {
        data["error"] == "Connection timed out"
    });
    // The worst that the job did to the guest stays to be seen.
    let jobs = client.ok("query-jobs", json!({"latency": true}));
    let worst = jobs[0]["guest-delay-max-ns"].as_u64().unwrap();
    assert!((900_000_000..3_000_000_000).contains(&worst), "{jobs}");
    // Nothing holds the guest up any more.
    assert!(write(&daemon, "write -P 9 1M 64k") < Duration::from_millis(900));
    client.ok("job-dismiss", json!({"id": "j"}));
    drop(stopped);
    drop(daemon.quit());
}

#[test]
fn a_fleecing_target_that_is_stuck_breaks_the_snapshot_only() {
    if !have("qemu-io") {
        return;
    }
    let target = target();
    let daemon = source(&target);
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "copy-before-write", "node-name": "c", "file": "a", "target": "t",
               "on-cbw-error": "break-snapshot", "cbw-timeout": 1}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "snapshot-access", "node-name": "s", "file": "c"}),
    );
    export(&mut client, "c");
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "s", "name": "s", "node-name": "s"}),
    );
    write(&daemon, "write -P 8 0 64k");
    let stopped = Stopped::new(&target);
    let waited = write(&daemon, "write -P 9 2M 4k");
    assert!(
        waited > Duration::from_millis(900) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    assert!(write(&daemon, "write -P 9 3M 64k") < Duration::from_millis(900));
    let read = run(
        "qemu-io",
        &["-r", "-f", "raw", "-c", "read 3M 4k", &daemon.nbd_uri("s")],
    );
    assert!(!read.status.success(), "the snapshot is broken");
    drop(stopped);
    drop(daemon.quit());
}

#[test]
fn the_program_ends_beside_a_limit_of_throughput() {
    let daemon = Daemon::start(|folder| {
        std::fs::write(folder.join("a.img"), vec![7; 4 << 20]).unwrap();
        let file = folder.join("a.img");
        let limits = json!({"qom-type": "throttle-group", "id": "g", "limits": {"bps-write": 1000}});
        let disk = json!({"driver": "file", "node-name": "a", "filename": file});
        let slow = json!({"driver": "throttle", "node-name": "t", "throttle-group": "g",
                          "file": {"driver": "null-co", "size": 4 << 20}});
        [
            "--object",
            &limits.to_string(),
            "--blockdev",
            &disk.to_string(),
            "--blockdev",
            &slow.to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    });
    let mut client = daemon.client();
    client.ok(
        "blockdev-backup",
        json!({"job-id": "j", "device": "a", "target": "t", "sync": "full"}),
    );
    let began = Instant::now();
    drop(daemon.quit());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
