//! The documented table of who joins a transaction's group, run row by row against the daemon.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says why and ends"
)]

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

/// The rows of the documented table, as their six cells.
fn documented_rows() -> Vec<[String; 6]> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transactions.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        let cells: Vec<String> = cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("not six cells: {line}"))
    })
    .collect()
}

/// Runs the rows of actions of the kind `documented` with an action that `action` makes, and says how many they are.
fn run_rows(client: &mut Qmp, documented: &str, kind: &str, mut action: impl FnMut(usize) -> Value) -> usize {
    let mut rows = 0;
    for row in documented_rows() {
        let [of, data, own, cancel, mode, outcome] = &row;
        if of != documented {
            continue;
        }
        rows += 1;
        let mut action = action(rows);
        if let Some(value) = cell(data) {
            action["transactional-cancel"] = value;
        }
        let mut action = json!({"type": kind, "data": action});
        if let Some(value) = cell(own) {
            action["properties"] = json!({ "transactional-cancel": value });
        }
        let properties = cell(mode).map(|mode| json!({ "completion-mode": mode }));
        let arguments = object(&[
            ("actions", Some(json!([action, witness()]))),
            ("transactional-cancel", cell(cancel)),
            ("properties", properties),
        ]);
        if matches!(outcome.as_str(), "joins" | "alone") {
            client.ok("transaction", arguments);
            assert_eq!(fate_of_row(client, documented), outcome, "{kind}: {row:?}");
        } else {
            let text = outcome.replace(&format!("'{documented}'"), &format!("'{kind}'"));
            assert_eq!(client.fails("transaction", arguments), text, "{kind}: {row:?}");
            assert_eq!(
                jobs(client),
                json!([]),
                "nothing has been started: {kind}: {row:?}"
            );
            assert_eq!(
                client.events.len(),
                0,
                "nothing has been prepared: {kind}: {row:?}"
            );
        }
    }
    rows
}

fn four_nodes(client: &mut Qmp) {
    for node in ["a", "b", "ta", "tb"] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": node, "size": 4 << 20}),
        );
    }
}

#[test]
fn every_row_of_the_documented_table() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    four_nodes(&mut client);
    let backup = json!({"job-id": "row", "device": "b", "target": "tb", "sync": "full", "speed": 65536});
    let backups = run_rows(&mut client, "blockdev-backup", "blockdev-backup", |_| {
        backup.clone()
    });
    let others = run_rows(
        &mut client,
        "block-dirty-bitmap-add",
        "block-dirty-bitmap-add",
        |row| json!({"node": "b", "name": format!("row{row}")}),
    );
    assert_eq!((backups, others), (81, 27));
}

/// The page says that `drive-backup` is like `blockdev-backup`.
#[test]
fn every_row_holds_for_drive_backup() {
    let daemon = Daemon::start(|folder| {
        std::fs::write(folder.join("target"), vec![0; 4 << 20]).expect("a target");
        Vec::new()
    });
    let mut client = daemon.client();
    four_nodes(&mut client);
    let target = daemon.folder().join("target").display().to_string();
    let backup = json!({"job-id": "row", "device": "b", "target": target, "format": "raw", "mode": "existing",
        "sync": "full", "speed": 65536});
    let rows = run_rows(&mut client, "blockdev-backup", "drive-backup", |_| backup.clone());
    assert_eq!(rows, 81);
}

/// ... and that every other kind is like `block-dirty-bitmap-add`: with an explicit true it fails before anything is
/// prepared, whatever else is wrong with it, and false changes nothing.
#[test]
fn no_kind_that_starts_no_job_joins() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut client = daemon.client();
    four_nodes(&mut client);
    let bitmap = json!({"node": "nowhere", "name": "none"});
    let kinds = [
        ("abort", json!({}), "Transaction aborted using Abort action"),
        ("block-dirty-bitmap-remove", bitmap.clone(), "nowhere"),
        ("block-dirty-bitmap-clear", bitmap.clone(), "nowhere"),
        ("block-dirty-bitmap-enable", bitmap.clone(), "nowhere"),
        ("block-dirty-bitmap-disable", bitmap.clone(), "nowhere"),
        (
            "block-dirty-bitmap-merge",
            json!({"node": "nowhere", "target": "none", "bitmaps": ["none"]}),
            "nowhere",
        ),
        (
            "blockdev-snapshot",
            json!({"node": "nowhere", "overlay": "none"}),
            "nowhere",
        ),
        (
            "blockdev-snapshot-sync",
            json!({"node-name": "nowhere", "snapshot-file": "/nowhere/none"}),
            "nowhere",
        ),
        (
            "blockdev-snapshot-internal-sync",
            json!({"device": "nowhere", "name": "none"}),
            "nowhere",
        ),
    ];
    for (kind, data, own_error) in kinds {
        let own = |value: bool| {
            let action =
                json!({"type": kind, "data": data.clone(), "properties": {"transactional-cancel": value}});
            json!({ "actions": [witness(), action] })
        };
        let text =
            format!("Action '{kind}' does not support transaction property transactional-cancel = true");
        assert_eq!(client.fails("transaction", own(true)), text);
        let mut whole = own(false);
        whole["actions"][1]
            .as_object_mut()
            .expect("an action")
            .remove("properties");
        whole["transactional-cancel"] = json!(true);
        assert_eq!(client.fails("transaction", whole.clone()), text);
        whole["properties"] = json!({"completion-mode": "grouped"});
        let grouped = client.fails("transaction", whole);
        assert!(
            grouped.starts_with(&format!("Action '{kind}' does not support")),
            "{grouped}"
        );
        assert_eq!(client.events.len(), 0, "{kind}: nothing has been prepared");
        let refused = client.fails("transaction", own(false));
        assert!(refused.contains(own_error), "{kind}: {refused}");
        // Now the witness had been prepared, and is taken back.
        client.event("JOB_STATUS_CHANGE", |data| {
            data["id"] == "witness" && data["status"] == "null"
        });
        client.events.clear();
        assert_eq!(jobs(&mut client), json!([]));
    }
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
