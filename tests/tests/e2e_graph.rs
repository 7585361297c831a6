#![expect(clippy::expect_used, reason = "a test that cannot go on says why and ends")]
//! Opening and reopening nodes: what is looked at first, what is refused with which words, and that a refusal changes
//! nothing. Every text and order here is what `qemu-storage-daemon` 10.0.2 answers.

use serde_json::{Value, json};
use tests::{Daemon, Qmp, have, run_ok};

/// A daemon in whose folder are the qcow2 images `a.qcow2` and `b.qcow2` of 1 MiB and the raw one `raw.img`.
fn with_images() -> Option<Daemon> {
    if !have("qemu-img") {
        eprintln!("skipped: no qemu-img");
        return None;
    }
    Some(Daemon::start(|folder| {
        for (format, name) in [("qcow2", "a.qcow2"), ("qcow2", "b.qcow2"), ("raw", "raw.img")] {
            let path = folder.join(name);
            let path = path.to_str().expect("a plain path");
            run_ok("qemu-img", &["create", "-q", "-f", format, path, "1M"]);
        }
        Vec::new()
    }))
}

fn file(daemon: &Daemon, name: &str) -> Value {
    json!({"driver": "file", "filename": daemon.folder().join(name)})
}

fn state(client: &mut Qmp) -> Value {
    client.ok("query-named-block-nodes", json!({"flat": true}))
}

/// Each command is refused with its text, and nothing has changed after it.
fn refused(client: &mut Qmp, command: &str, cases: Vec<(Value, &str)>) {
    let before = state(client);
    for (arguments, text) in cases {
        assert_eq!(client.fails(command, arguments.clone()), text, "{arguments}");
        assert_eq!(state(client), before, "{arguments}");
    }
}

#[test]
fn what_an_opening_looks_at_first() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "n", "read-zeroes": true}),
    );
    let unmap = "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap";
    let share = "force-share=on can only be used with read-only images";
    let taken = "Duplicate nodes with node-name='n'";
    let a = || file(&daemon, "a.qcow2");
    refused(
        &mut client,
        "blockdev-add",
        vec![
            // The node's own options, then its name, then its driver's options, then the image.
            (
                json!({"driver": "null-co", "node-name": "n", "force-share": true, "detect-zeroes": "unmap"}),
                share,
            ),
            (
                json!({"driver": "null-co", "node-name": "n", "detect-zeroes": "unmap"}),
                unmap,
            ),
            (
                json!({"driver": "file", "node-name": "n", "filename": "/none"}),
                taken,
            ),
            (
                json!({"driver": "blkdebug", "node-name": "n", "image": "none", "max-transfer": -1}),
                taken,
            ),
            (
                json!({"driver": "blkdebug", "node-name": "x", "image": "none", "max-transfer": -1}),
                "Value '-1' is out of range for parameter 'max-transfer'",
            ),
            // A node over a file comes to that when its file is open.
            (
                json!({"driver": "raw", "node-name": "n", "file": "none", "force-share": true}),
                "Cannot find device='none' nor node-name='none'",
            ),
            (
                json!({"driver": "raw", "node-name": "n", "file": "n", "force-share": true}),
                share,
            ),
            (
                json!({"driver": "raw", "node-name": "n", "file": "n", "offset": -1}),
                taken,
            ),
            // What the driver leaves over is told last.
            (
                json!({"driver": "raw", "node-name": "x", "file": "n", "offset": 1_u64 << 40, "cache": {}}),
                "Offset (1099511627776) cannot be greater than size of the containing file (1073741824)",
            ),
            (
                json!({"driver": "raw", "node-name": "x", "file": "n", "cache": {}}),
                "Block format 'raw' does not support the option 'cache'",
            ),
            (
                json!({"driver": "blkdebug", "node-name": "x", "image": "n", "inject-error": [], "set-state": []}),
                "Block protocol 'blkdebug' doesn't support the option 'set-state'",
            ),
            // A node has its name while it opens its backing file.
            (
                json!({"driver": "qcow2", "node-name": "x", "file": a(), "backing": "x"}),
                "Making 'x' a backing child of 'x' would create a cycle",
            ),
            (
                json!({"driver": "qcow2", "node-name": "x", "file": a(),
                    "backing": {"driver": "null-co", "node-name": "x"}}),
                "Could not open backing file: Duplicate nodes with node-name='x'",
            ),
        ],
    );
}

#[test]
fn a_conflict_is_told_before_the_image_is_looked_at() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let add = |name: &str| json!({"driver": "qcow2", "node-name": name, "file": file(&daemon, "a.qcow2")});
    client.ok("blockdev-add", add("a"));
    client.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "a", "writable": true}),
    );
    refused(
        &mut client,
        "blockdev-add",
        vec![
            (
                json!({"driver": "qcow2", "node-name": "x", "file": "a"}),
                "Permission conflict on node 'a': permissions 'write' are both required by an unnamed block device (uses \
                 node 'a' as 'root' child) and unshared by node 'x' (uses node 'a' as 'file' child).",
            ),
            (add("x"), "Failed to get \"write\" lock"),
        ],
    );
    // What was taken for the attempts is given back.
    client.ok("block-export-del", json!({"id": "e", "mode": "hard"}));
    client.event("BLOCK_EXPORT_DELETED", |_| true);
    client.ok("blockdev-del", json!({"node-name": "a"}));
    client.ok("blockdev-add", add("x"));
}

#[test]
fn what_a_reopening_looks_at_first() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let inline = file(&daemon, "a.qcow2");
    for options in [
        json!({"driver": "null-co", "node-name": "n", "read-zeroes": true}),
        json!({"driver": "raw", "node-name": "r", "file": "n"}),
        json!({"driver": "blkdebug", "node-name": "d", "image": "n", "align": 512}),
        json!({"driver": "qcow2", "node-name": "a", "file": inline.clone()}),
        json!({"driver": "qcow2", "node-name": "b", "file": file(&daemon, "b.qcow2")}),
    ] {
        client.ok("blockdev-add", options);
    }
    let unmap = "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap";
    let one = |options: Value| json!({"options": [options]});
    let mut named = inline.clone();
    named["node-name"] = json!("other");
    refused(
        &mut client,
        "blockdev-reopen",
        vec![
            (
                one(json!({"driver": "raw", "node-name": "r", "file": "none", "detect-zeroes": "unmap"})),
                unmap,
            ),
            (
                one(json!({"driver": "null-co", "node-name": "n", "detect-zeroes": "unmap"})),
                unmap,
            ),
            (
                one(json!({"driver": "null-co", "node-name": "n"})),
                "Option 'read-zeroes' cannot be reset to its default value",
            ),
            (
                one(json!({"driver": "qcow2", "node-name": "r", "file": "none"})),
                "Cannot find device='' nor node-name='none'",
            ),
            (
                one(json!({"driver": "raw", "node-name": "r", "file": "r", "cache": {}})),
                "Making 'r' a file child of 'r' would create a cycle",
            ),
            (
                one(json!({"driver": "raw", "node-name": "r", "file": "n", "cache": {}})),
                "Cannot change the option 'cache'",
            ),
            (
                one(json!({"driver": "qcow2", "node-name": "r", "file": "n"})),
                "Cannot change the option 'driver'",
            ),
            (
                one(json!({"driver": "blkdebug", "node-name": "d", "image": "none", "align": 512})),
                "Cannot change the option 'image'",
            ),
            (
                one(json!({"driver": "qcow2", "node-name": "a", "file": named})),
                "Cannot change the option 'node-name'",
            ),
            (
                one(
                    json!({"driver": "qcow2", "node-name": "a", "file": inline, "backing": {"driver": "null-co"}}),
                ),
                "Cannot change the option 'backing.driver'",
            ),
        ],
    );
}

#[test]
fn a_second_change_of_a_node_keeps_what_the_first_gave() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let mut inline = file(&daemon, "a.qcow2");
    inline["node-name"] = json!("f");
    client.ok(
        "blockdev-add",
        json!({"driver": "qcow2", "node-name": "a", "file": inline.clone()}),
    );
    let mut alone = inline.clone();
    alone["read-only"] = json!(true);
    refused(
        &mut client,
        "blockdev-reopen",
        vec![(
            json!({"options": [alone, {"driver": "qcow2", "node-name": "a", "file": inline}]}),
            "Read-only block node 'f' cannot support read-write users",
        )],
    );
}

#[test]
fn a_name_tells_that_the_header_names_another_backing_file() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let base = daemon.folder().join("b.qcow2");
    let top = daemon.folder().join("top.qcow2");
    let (base, top) = (base.to_str().expect("plain"), top.to_str().expect("plain"));
    run_ok(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top],
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": top}}),
    );
    let shown = |client: &mut Qmp| {
        let nodes = state(client);
        let top = nodes
            .as_array()
            .expect("a list")
            .iter()
            .find(|node| node["node-name"] == "top");
        top.expect("the node")["file"]
            .as_str()
            .expect("a name")
            .to_owned()
    };
    assert_eq!(shown(&mut client), top);
    let change = |name: &str| json!({"device": "top", "image-node-name": "top", "backing-file": name});
    client.ok("change-backing-file", change("elsewhere.qcow2"));
    assert!(shown(&mut client).starts_with("json:"));
    client.ok("change-backing-file", change(base));
    assert_eq!(shown(&mut client), top);
}

/// What the job that makes an image ends with.
fn created(client: &mut Qmp, options: &Value) -> String {
    client.ok("blockdev-create", json!({"job-id": "c", "options": options}));
    client.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "c" && data["status"] == "concluded"
    });
    let jobs = client.ok("query-jobs", json!({}));
    let error = jobs[0]["error"].as_str().unwrap_or_default().to_owned();
    client.ok("job-dismiss", json!({"id": "c"}));
    error
}

#[test]
fn options_of_an_image_are_looked_at_before_its_node_is_used() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let mut inline = file(&daemon, "a.qcow2");
    inline["node-name"] = json!("f");
    client.ok(
        "blockdev-add",
        json!({"driver": "qcow2", "node-name": "a", "file": inline}),
    );
    let mut make = |node: &str, more: Value| {
        let mut options = json!({"driver": "qcow2", "file": node, "size": 1 << 20});
        for (name, value) in more.as_object().expect("an object") {
            options[name] = value.clone();
        }
        created(&mut client, &options)
    };
    let whole = "Image size must be a multiple of 512 bytes";
    assert_eq!(
        make("none", json!({"size": 1})),
        "Cannot find device='none' nor node-name='none'"
    );
    assert_eq!(
        make("f", json!({"size": 1, "version": "v2", "data-file": "f"})),
        whole
    );
    assert_eq!(
        make("f", json!({"version": "v2", "data-file": "f"})),
        "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
    );
    assert_eq!(
        make("f", json!({"version": "v2", "extended-l2": true})),
        "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
    );
    assert!(make("f", json!({})).starts_with("Permission conflict on node 'f': permissions 'write"));
}

#[test]
fn faults_come_from_files_too() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let config = daemon.folder().join("rules");
    let config = config.to_str().expect("a plain path");
    let image = daemon.folder().join("raw.img");
    let options = json!({"driver": "blkdebug", "node-name": "d", "config": config,
        "image": {"driver": "file", "filename": image}});
    for (text, error) in [
        ("event = \"read_aio\"\n", "no group defined"),
        ("[warp]\n", "There is no option group 'warp'"),
        (
            "[inject-error]\nevent=\"read_aio\"\n",
            "Invalid parameter 'event=\"read_aio\"'",
        ),
        (
            "[inject-error]\nevent = \"read_aio\"\niotype = \"zap\"\n",
            "invalid parameter value: zap",
        ),
        (
            "[inject-error]\nevent = \"read_aio\"\nsector = \"18446744073709551616\"\n",
            "Value '18446744073709551616' is too large for parameter 'sector'",
        ),
    ] {
        std::fs::write(config, text).expect("a file of rules");
        assert_eq!(client.fails("blockdev-add", options.clone()), error, "{text}");
    }
    std::fs::write(
        config,
        "[inject-error \"x\"]\nevent = \"read_aio\"\nerrno = \"0x5\"\nonce = \"yes\"\n",
    )
    .expect("a file of rules");
    client.ok("blockdev-add", options);
    // The newest is the image, which was opened for it.
    let nodes = state(&mut client);
    let name = nodes[1]["file"].as_str().expect("a name");
    assert!(name.starts_with(&format!("blkdebug:{config}:")), "{name}");
}

#[test]
fn who_cannot_resize_needs_a_whole_number_of_units() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "blkdebug", "node-name": "d", "align": 4096,
            "image": {"driver": "null-co", "size": (1 << 20) + 512, "read-zeroes": true}}),
    );
    let path = daemon.folder().join("nbd.sock");
    let mut export = json!({"type": "nbd", "id": "e", "node-name": "d", "writable": true});
    let _ = client.call(
        "nbd-server-start",
        json!({"addr": {"type": "unix", "data": {"path": path}}}),
    );
    assert_eq!(
        client.fails("block-export-add", export.clone()),
        "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment"
    );
    export["writable"] = json!(false);
    client.ok("block-export-add", export);
}

fn is_read_only(client: &mut Qmp, name: &str) -> bool {
    let nodes = state(client);
    let node = nodes
        .as_array()
        .expect("a list")
        .iter()
        .find(|node| node["node-name"] == name)
        .expect("the node");
    node["ro"] == json!(true)
}

#[test]
fn children_follow_their_parents() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    let mut inline = file(&daemon, "raw.img");
    inline["node-name"] = json!("f");
    client.ok(
        "blockdev-add",
        json!({"driver": "blkdebug", "node-name": "d", "image": inline, "read-only": true}),
    );
    assert!(is_read_only(&mut client, "f"));
    client.ok(
        "blockdev-reopen",
        json!({"options": [{"driver": "blkdebug", "node-name": "d", "image": "f", "read-only": false}]}),
    );
    assert!(!is_read_only(&mut client, "f"));

    // What was taken over from a parent once cannot be left out by the child itself.
    let mut inline = file(&daemon, "a.qcow2");
    inline["node-name"] = json!("shared");
    client.ok(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "r", "file": inline.clone(), "read-only": true, "force-share": true}),
    );
    refused(
        &mut client,
        "blockdev-reopen",
        vec![(
            json!({"options": [inline]}),
            "Option 'force-share' cannot be reset to its default value",
        )],
    );
}

#[test]
fn copy_before_write_reads_what_it_keeps() {
    let Some(daemon) = with_images() else { return };
    let mut client = daemon.client();
    for (name, size) in [("source", 1 << 20), ("target", 1 << 20), ("small", 1 << 19)] {
        client.ok(
            "blockdev-add",
            json!({"driver": "null-co", "node-name": name, "size": size}),
        );
    }
    client.ok("block-dirty-bitmap-add", json!({"node": "small", "name": "b"}));
    let keeper =
        json!({"driver": "copy-before-write", "node-name": "c", "file": "source", "target": "target"});
    let mut with_bitmap = keeper.clone();
    with_bitmap["bitmap"] = json!({"node": "small", "name": "b"});
    refused(
        &mut client,
        "blockdev-add",
        vec![(
            with_bitmap,
            "Cannot create block-copy-state: Failed to merge bitmap 'b' to internal copy-bitmap: Bitmaps are of different \
             sizes (destination size is 1048576, source size is 524288) and can't be merged",
        )],
    );
    client.ok("blockdev-add", keeper);
    let needed = |client: &mut Qmp| {
        let graph = client.ok("x-debug-query-block-graph", json!({}));
        let nodes = graph["nodes"].as_array().expect("nodes").clone();
        let id = |name: &str| {
            let node = nodes.iter().find(|node| node["name"] == name);
            node.expect("the node")["id"].clone()
        };
        let edges = graph["edges"].as_array().expect("edges");
        let edge = edges
            .iter()
            .find(|edge| edge["parent"] == id("c") && edge["child"] == id("source"));
        edge.expect("the edge")["perm"].clone()
    };
    assert_eq!(needed(&mut client), json!([]));
    // As soon as it has a parent.
    client.ok(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "r", "file": "c"}),
    );
    assert_eq!(needed(&mut client), json!(["consistent-read"]));
}
