//! The documented table of who joins a transaction's group, run row by row against the daemon.

use serde_json::{Map, Value, json};
use tests::{Daemon, Qmp};

/// What a cell asks for, as the member's value.
fn cell(text: &str) -> Option<Value> {
    match text {
        "-" => None,
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
        mode => Some(json!(mode)),
    }
}

fn object(members: &[(&str, Option<Value>)]) -> Value {
    let given = members
        .iter()
        .filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// A quick job on disk `a` that joins, whatever the transaction says.
fn witness() -> Value {
    json!({"type": "blockdev-backup", "data": {"job-id": "witness", "device": "a", "target": "ta",
        "sync": "full", "transactional-cancel": true}})
}

fn jobs(client: &mut Qmp) -> Value {
    client.ok("query-jobs", json!({}))
}

/// Whether the job `row`, which is slow, holds the witness back: members complete together.
fn fate_of_row(client: &mut Qmp, kind: &str) -> &'static str {
    let gone = |job: &'static str| move |data: &Value| data["id"] == job && data["status"] == "null";
    client.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "witness" && data["status"] == "waiting"
    });
    let all = jobs(client);
    let held_back = all.as_array().is_some_and(|all| {
        all.iter()
            .any(|job| job["id"] == "witness" && job["status"] == "waiting")
    });
    if kind == "blockdev-backup" {
        client.ok("job-cancel", json!({"id": "row"}));
        client.event("JOB_STATUS_CHANGE", gone("row"));
    }
    client.event("JOB_STATUS_CHANGE", gone("witness"));
    let cancelled =
        |event: &Value| event["event"] == "BLOCK_JOB_CANCELLED" && event["data"]["device"] == "witness";
    assert_eq!(
        client.events.iter().any(cancelled),
        held_back,
        "members are cancelled together, others are not"
    );
    client.events.clear();
    assert_eq!(jobs(client), json!([]));
    if held_back { "joins" } else { "alone" }
}

#[test]
fn every_row_of_the_documented_table() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transactions.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for node in ["a", "b", "ta", "tb"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": 4 << 20}),
        );
    }
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let [kind, data, own, cancel, mode, outcome] = cells[..] else {
            panic!("not six cells: {line}")
        };
        rows += 1;
        let mut action = if kind == "blockdev-backup" {
            json!({"type": kind, "data": {"job-id": "row", "device": "b", "target": "tb", "sync": "full", "speed": 65536}})
        } else {
            json!({"type": kind, "data": {"node": "b", "name": format!("row{rows}")}})
        };
        if let Some(value) = cell(data) {
            action["data"]["transactional-cancel"] = value;
        }
        if let Some(value) = cell(own) {
            action["properties"] = json!({ "transactional-cancel": value });
        }
        let properties = cell(mode).map(|mode| json!({ "completion-mode": mode }));
        let arguments = object(&[
            ("actions", Some(json!([action, witness()]))),
            ("transactional-cancel", cell(cancel)),
            ("properties", properties),
        ]);
        if matches!(outcome, "joins" | "alone") {
            client.ok("transaction", arguments);
            assert_eq!(fate_of_row(&mut client, kind), outcome, "{line}");
        } else {
            assert_eq!(client.fails("transaction", arguments), outcome, "{line}");
            assert_eq!(jobs(&mut client), json!([]), "nothing has been started: {line}");
            assert_eq!(client.events.len(), 0, "nothing has been prepared: {line}");
        }
    }
    assert_eq!(rows, 108);
}

#[test]
fn outside_a_transaction_the_member_is_unknown() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for node in ["a", "ta"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": 65536}),
        );
    }
    for (command, target) in [("blockdev-backup", "ta"), ("drive-backup", "/nowhere")] {
        let arguments = json!({"job-id": "j", "device": "a", "target": target, "sync": "full", "transactional-cancel": true});
        assert_eq!(
            client.fails(command, arguments),
            "Parameter 'transactional-cancel' is unexpected"
        );
    }
}

#[test]
fn new_bitmaps_and_grouped_backups_are_one_transaction() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    for node in ["a", "b", "ta", "tb"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": 1 << 20}),
        );
    }
    let add = |node: &str| json!({"type": "block-dirty-bitmap-add", "data": {"node": node, "name": "new"}});
    let own = json!({"transactional-cancel": true});
    let first =
        json!({"job-id": "ja", "device": "a", "target": "ta", "sync": "full", "transactional-cancel": true});
    let second = json!({"job-id": "jb", "device": "b", "target": "tb", "sync": "full"});
    client.ok(
        "transaction",
        json!({"actions": [
            add("a"),
            add("b"),
            {"type": "blockdev-backup", "data": first},
            {"type": "blockdev-backup", "properties": own, "data": second}]}),
    );
    for job in ["ja", "jb"] {
        assert_eq!(client.job_end(job)["event"], "BLOCK_JOB_COMPLETED");
    }
    for node in ["a", "b"] {
        assert!(client.bitmap(node, "new").is_some());
    }
}
