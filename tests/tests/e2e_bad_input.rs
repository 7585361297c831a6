//! What a user gets wrong, and what the daemon makes of it: a clear error, nothing lost, and it goes on.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::json;
use tests::{Daemon, program, run};

#[test]
fn a_client_that_leaves_in_the_middle_of_a_message_harms_nobody() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut other = daemon.client();
    for part in [
        &b"{\"execute\""[..],
        b"{\"execute\": \"query-ver",
        b"[[[[",
        b"\"",
        b"\xff",
        b"{\"execute\": \"qmp_capabilities\"}",
    ] {
        let mut stream = UnixStream::connect(daemon.qmp_path()).expect("connect");
        stream.write_all(part).expect("write");
        drop(stream);
        assert!(other.ok("query-version", json!({}))["qemu"]["major"].is_u64());
    }
}

#[test]
fn a_missing_image_is_named_and_the_daemon_goes_on() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    let missing = daemon.folder().join("missing.raw").display().to_string();
    let text = client.fails(
        "blockdev-add",
        json!({"driver": "file", "node-name": "x", "filename": missing}),
    );
    assert_eq!(
        text,
        format!("Could not open '{missing}': No such file or directory")
    );
    assert_eq!(client.ok("query-named-block-nodes", json!({})), json!([]));
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "x", "size": 65536}),
    );
}

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_happens() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for (name, size) in [("disk", 1 << 20), ("small", 1 << 19)] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": name, "size": size}),
        );
    }
    client.ok("block-dirty-bitmap-add", json!({"node": "disk", "name": "b"}));
    let text = client.fails(
        "transaction",
        json!({"actions": [
            {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "c"}},
            {"type": "blockdev-backup", "data": {
                "job-id": "j", "device": "disk", "target": "small", "sync": "incremental", "bitmap": "b"}}]}),
    );
    assert_eq!(text, "Source and target image have different sizes");
    assert_eq!(
        client.bitmap("disk", "c"),
        None,
        "the action before it was undone"
    );
    assert_eq!(client.bitmap("disk", "b").expect("kept")["busy"], false);
    assert_eq!(client.ok("query-jobs", json!({})), json!([]));
}

#[test]
fn a_bad_option_is_one_line_and_status_1() {
    for (args, names) in [
        (&["--blockdev", "driver=nonsense,node-name=x"][..], "nonsense"),
        (&["--blockdev", "{\"driver\": \"null-co\", "][..], ""),
        (&["--monitor", "chardev=nobody"][..], "nobody"),
        (&["--no-such-option"][..], "no-such-option"),
        (&["--export", "nbd,id=e,node-name=ghost"][..], ""),
    ] {
        let output = run(program("storage-daemon"), args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains(names), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

/// Requests that end the reference daemon; each must be an ordinary error here.
#[test]
fn requests_that_have_killed_daemons_are_errors() {
    let mut daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "n", "size": 65536}),
    );
    client.ok("block-dirty-bitmap-add", json!({"node": "n", "name": "b"}));
    for (node, name) in [("ghost", "b"), ("n", "ghost")] {
        client.fails(
            "transaction",
            json!({"actions": [{"type": "block-dirty-bitmap-enable", "data": {"node": node, "name": name}}]}),
        );
    }
    // Merging nothing is no error in the schema, so it is simply nothing.
    let merge = json!({"node": "n", "target": "b", "bitmaps": []});
    client.ok("block-dirty-bitmap-merge", merge.clone());
    client.ok(
        "transaction",
        json!({"actions": [{"type": "block-dirty-bitmap-merge", "data": merge}]}),
    );
    client.fails(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "m", "size": -1}),
    );
    client.fails(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "m", "file": {"driver": "null-co", "size": -1}}),
    );
    assert!(daemon.is_running());
    client.ok("query-version", json!({}));
}

/// The reference has handed one client's reply to the next.
#[test]
fn a_reply_never_reaches_another_client() {
    let daemon = Daemon::start(|_| Vec::new());
    for round in 0..50 {
        let mut first = daemon.client();
        first.send(format!("{{\"execute\": \"query-qmp-schema\", \"id\": {round}}}\n").as_bytes());
        drop(first);
        let mut second = daemon.client();
        assert_eq!(
            second.call("query-status-of-nothing", json!({}))["error"]["class"],
            "CommandNotFound"
        );
    }
}
