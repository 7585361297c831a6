#![expect(clippy::expect_used, reason = "a test that cannot go on says why and ends")]
//! The monitor of the real program: requests that end `qemu-storage-daemon` 10.0.2, replies that it mixes up, and misbehaving
//! clients beside working ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Daemon, Qmp};

fn null_node(client: &mut Qmp, name: &str) {
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": name, "size": 1 << 20}),
    );
}

fn alive(client: &mut Qmp) {
    assert!(client.ok("query-version", json!({}))["qemu"]["major"].is_u64());
}

#[test]
fn a_bitmap_action_on_nothing_fails_and_nothing_else() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    null_node(&mut client, "n");
    client.ok("block-dirty-bitmap-add", json!({"node": "n", "name": "there"}));
    for (node, name) in [("none", "b"), ("n", "none")] {
        for kind in ["enable", "disable", "clear", "remove"] {
            let action =
                json!({"type": format!("block-dirty-bitmap-{kind}"), "data": {"node": node, "name": name}});
            let before =
                json!({"type": "block-dirty-bitmap-disable", "data": {"node": "n", "name": "there"}});
            client.fails("transaction", json!({"actions": [action.clone()]}));
            client.fails("transaction", json!({"actions": [before, action]}));
            alive(&mut client);
        }
    }
    // What came before the failure was undone.
    let nodes = client.ok("query-named-block-nodes", json!({}));
    assert_eq!(nodes[0]["dirty-bitmaps"][0]["recording"], json!(true));
}

#[test]
fn merging_no_bitmaps_is_no_reason_to_die() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    null_node(&mut client, "n");
    client.ok("block-dirty-bitmap-add", json!({"node": "n", "name": "b"}));
    let merge = json!({"node": "n", "target": "b", "bitmaps": []});
    client.ok("block-dirty-bitmap-merge", merge.clone());
    client.ok(
        "transaction",
        json!({"actions": [{"type": "block-dirty-bitmap-merge", "data": merge}]}),
    );
    alive(&mut client);
}

#[test]
fn a_negative_size_is_an_error() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    let inner = json!({"driver": "null-co", "size": -1});
    client.fails(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "n", "size": -1}),
    );
    client.fails(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "n", "file": inner}),
    );
    alive(&mut client);
    assert_eq!(client.ok("query-named-block-nodes", json!({})), json!([]));
}

#[test]
fn reopening_nothing_is_no_reason_to_die() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    client.ok("blockdev-reopen", json!({"options": []}));
    alive(&mut client);
}

/// A client that reads whole lines, and nothing more.
struct Raw {
    stream: BufReader<UnixStream>,
}

impl Raw {
    fn connect(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.qmp_path()).expect("connect");
        stream.set_read_timeout(Some(tests::PATIENCE)).expect("time-out");
        Raw {
            stream: BufReader::new(stream),
        }
    }

    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("write");
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("read");
        serde_json::from_str(&line).expect("JSON")
    }
}

#[test]
fn a_client_never_gets_what_another_is_owed() {
    let daemon = Daemon::start(|_| Vec::new());
    for _ in 0..100 {
        let mut gone = Raw::connect(&daemon);
        gone.send("{'execute':'qmp_capabilities'}{'execute':'query-qmp-schema','id':'gone'}");
        drop(gone);
        let mut next = Raw::connect(&daemon);
        assert!(next.message().get("QMP").is_some());
        next.send("{'execute':'qmp_capabilities','id':'next'}");
        assert_eq!(next.message(), json!({"return": {}, "id": "next"}));
    }
}

#[test]
fn clients_that_misbehave_do_not_slow_down_one_that_works() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    null_node(&mut client, "n");
    // Never reads, and sends as long as somebody takes it.
    let mut deaf = Raw::connect(&daemon);
    deaf.stream.get_mut().set_nonblocking(true).expect("non-blocking");
    let flood =
        "{'execute':'qmp_capabilities'}".to_owned() + &"{'execute':'query-qmp-schema'}".repeat(10_000);
    let _ = deaf.stream.get_mut().write(flood.as_bytes());
    // Never finishes its message.
    let mut unfinished = Raw::connect(&daemon);
    unfinished.send(&format!("{{'execute': '{}", "x".repeat(1 << 20)));
    // Sends rubbish, and reads what is said of it.
    let rubbish = UnixStream::connect(daemon.qmp_path()).expect("connect");
    let mut reader = rubbish.try_clone().expect("clone");
    let writes = std::thread::spawn(move || {
        let mut rubbish = rubbish;
        let text = "{]@[}".repeat(1000);
        while rubbish.write_all(text.as_bytes()).is_ok() {}
    });
    let reads = std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(1);
        let mut buffer = vec![0; 1 << 16];
        while Instant::now() < end && reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
        let _ = reader.shutdown(std::net::Shutdown::Both);
    });
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let begun = Instant::now();
        alive(&mut client);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    reads.join().expect("reads");
    writes.join().expect("writes");
    drop((deaf, unfinished));
    alive(&mut client);
}

#[test]
fn many_clients_at_once() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut clients: Vec<Qmp> = (0..100).map(|_| daemon.client()).collect();
    for client in &mut clients {
        alive(client);
    }
    clients.clear();
    alive(&mut daemon.client());
}

#[test]
fn the_reply_to_quit_is_the_last_word() {
    let daemon = Daemon::start(|_| Vec::new());
    let (mut client, mut other) = (daemon.client(), daemon.client());
    for name in ["n", "target"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": name, "size": 64 << 20}),
        );
    }
    let export = json!({"type": "nbd", "id": "e", "node-name": "n"});
    client.ok("block-export-add", export);
    let backup = json!({"job-id": "j", "device": "n", "target": "target", "sync": "full", "speed": 65536});
    client.ok("blockdev-backup", backup);

    client.ok("quit", json!({}));
    // What the end brought about came before the reply, for there is nothing behind it ...
    assert_eq!(client.read(), None);
    client.event("BLOCK_EXPORT_DELETED", |data| data["id"] == "e");
    client.event("BLOCK_JOB_CANCELLED", |data| data["device"] == "j");
    // ... and other clients hear of it too.
    other.event("BLOCK_EXPORT_DELETED", |data| data["id"] == "e");
    other.event("JOB_STATUS_CHANGE", |data| data["status"] == "null");
    assert_eq!(other.read(), None);
}
