//! Backups, seen from outside.

#![expect(
    clippy::needless_pass_by_value,
    reason = "`json!` literals read best as they are"
)]

use serde_json::{Value, json};
use tests::{Daemon, Qmp};

const LENGTH: u64 = 1 << 20;

fn create(client: &mut Qmp, options: Value) {
    client.ok("blockdev-create", json!({"job-id": "create", "options": options}));
    client.event("JOB_STATUS_CHANGE", |data| {
        data["id"] == "create" && data["status"] == "concluded"
    });
    client.ok("job-dismiss", json!({"id": "create"}));
}

fn backup(client: &mut Qmp, device: &str, target: &str, sync: &str) {
    client.ok(
        "blockdev-backup",
        json!({"job-id": "j", "device": device, "target": target, "sync": sync}),
    );
    let end = client.job_end("j");
    assert_eq!(end["data"].get("error"), None, "{end}");
}

/// Tools open an increment's target without its backing file and put the file below it later: the zeroes of the
/// increment must then hide what the backing file holds there.
#[test]
fn zeroes_reach_an_overlay_whose_backing_file_is_not_open() {
    let daemon = Daemon::start(|folder| {
        let length = usize::try_from(LENGTH).unwrap_or(0);
        std::fs::write(folder.join("base"), vec![7; length]).expect("the base");
        std::fs::write(folder.join("copy"), vec![9; length]).expect("the copy");
        Vec::new()
    });
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let mut client = daemon.client();
    let file =
        |name: &str| json!({"driver": "file", "node-name": format!("f-{name}"), "filename": path(name)});
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "zeroes", "size": LENGTH, "read-zeroes": true}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "raw", "node-name": "copy", "file": file("copy")}),
    );
    for (name, backing) in [("overlay", Some("base")), ("alone", None)] {
        create(
            &mut client,
            json!({"driver": "file", "filename": path(name), "size": 0}),
        );
        client.ok("blockdev-add", file(name));
        let mut options = json!({"driver": "qcow2", "file": format!("f-{name}"), "size": LENGTH});
        if let Some(backing) = backing {
            options["backing-file"] = json!(path(backing));
            options["backing-fmt"] = json!("raw");
        }
        create(&mut client, options);
        let node =
            json!({"driver": "qcow2", "node-name": name, "file": format!("f-{name}"), "backing": null});
        client.ok("blockdev-add", node);
    }
    // Whichever mode says what is copied; a full copy too, since the header names a file that will show through.
    for sync in ["top", "full"] {
        backup(&mut client, "zeroes", "overlay", sync);
        client.ok("blockdev-del", json!({"node-name": "overlay"}));
        client.ok(
            "blockdev-add",
            json!({"driver": "qcow2", "node-name": "overlay", "file": "f-overlay"}),
        );
        backup(&mut client, "overlay", "copy", "full");
        let copy = std::fs::read(path("copy")).expect("the copy");
        assert!(copy.iter().all(|byte| *byte == 0), "sync {sync}");
        client.ok("blockdev-del", json!({"node-name": "overlay"}));
        // Back to an overlay that holds nothing.
        create(
            &mut client,
            json!({"driver": "qcow2", "file": "f-overlay", "size": LENGTH, "backing-file": path("base"),
                "backing-fmt": "raw"}),
        );
        client.ok(
            "blockdev-add",
            json!({"driver": "qcow2", "node-name": "overlay", "file": "f-overlay", "backing": null}),
        );
        std::fs::write(path("copy"), vec![9; copy.len()]).expect("the copy");
    }
    // An image that stands alone takes nothing for zeroes.
    backup(&mut client, "zeroes", "alone", "full");
    client.ok("blockdev-del", json!({"node-name": "alone"}));
    let length = std::fs::metadata(path("alone")).expect("the image").len();
    assert!(length <= 5 * 65536, "{length}");
}

#[test]
fn only_what_can_compress_is_written_compressed() {
    let daemon = Daemon::start(|_| vec!["--object".to_owned(), "throttle-group,id=g".to_owned()]);
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let mut client = daemon.client();
    let null = json!({"driver": "null-co", "node-name": "s", "size": LENGTH});
    client.ok("blockdev-add", null);
    create(
        &mut client,
        json!({"driver": "file", "filename": path("image"), "size": 0}),
    );
    client.ok(
        "blockdev-add",
        json!({"driver": "file", "node-name": "f", "filename": path("image")}),
    );
    create(
        &mut client,
        json!({"driver": "qcow2", "file": "f", "size": LENGTH}),
    );
    for (name, file) in [
        ("above-qcow2", json!({"driver": "qcow2", "file": "f"})),
        (
            "above-null",
            json!({"driver": "null-co", "node-name": "n", "size": LENGTH}),
        ),
    ] {
        client.ok(
            "blockdev-add",
            json!({"driver": "throttle", "node-name": name, "throttle-group": "g", "file": file}),
        );
    }
    let arguments = |target: &str| json!({"job-id": "j", "device": "s", "target": target, "sync": "full", "compress": true});
    for target in ["n", "above-null"] {
        let text = client.fails("blockdev-backup", arguments(target));
        assert_eq!(text, "Compression is not supported for this drive ");
    }
    client.ok("blockdev-backup", arguments("above-qcow2"));
    let end = client.job_end("j");
    assert_eq!(end["data"].get("error"), None, "{end}");
}

#[test]
fn targets_of_drive_backup_have_names_of_all_kinds() {
    let far = Daemon::start(|folder| {
        std::fs::write(folder.join("far"), vec![5; 65536]).expect("a disk");
        let far = json!({"driver": "raw", "node-name": "far", "file": {
            "driver": "file", "filename": folder.join("far").display().to_string()}});
        vec![
            "--blockdev".to_owned(),
            far.to_string(),
            "--export".to_owned(),
            "nbd,id=e,node-name=far,name=far,writable=on".to_owned(),
        ]
    });
    let daemon = Daemon::start(|folder| {
        std::fs::write(folder.join("file"), vec![5; 65536]).expect("a disk");
        Vec::new()
    });
    let mut client = daemon.client();
    client.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "s", "size": 65536, "read-zeroes": true}),
    );
    let arguments = |target: String, format: Option<&str>, mode: &str| {
        let mut arguments =
            json!({"job-id": "j", "device": "s", "sync": "full", "target": target, "mode": mode});
        if let Some(format) = format {
            arguments["format"] = json!(format);
        }
        arguments
    };
    for mode in ["existing", "absolute-paths"] {
        let text = client.fails("drive-backup", arguments("foo:bar".to_owned(), Some("raw"), mode));
        assert_eq!(text, "Unknown protocol 'foo'");
    }
    let text = client.fails(
        "drive-backup",
        arguments("json:{}".to_owned(), Some("raw"), "absolute-paths"),
    );
    assert_eq!(text, "Unknown protocol 'json'");
    let file = daemon.folder().join("file");
    let server = format!("nbd:unix:{}:exportname=far", far.folder().join("nbd").display());
    let description = json!({"driver": "raw", "file": {"driver": "file", "filename": file}});
    let zeroed = |path: &std::path::Path| {
        let content = std::fs::read(path).expect("a disk");
        let zeroed = content.iter().all(|byte| *byte == 0);
        std::fs::write(path, vec![5; content.len()]).expect("a disk");
        zeroed
    };
    for (target, format, mode, path) in [
        (
            format!("file:{}", file.display()),
            Some("raw"),
            "existing",
            file.clone(),
        ),
        (format!("json:{description}"), None, "existing", file.clone()),
        (server.clone(), Some("raw"), "existing", far.folder().join("far")),
        (server.clone(), None, "existing", far.folder().join("far")),
        (server, Some("raw"), "absolute-paths", far.folder().join("far")),
    ] {
        client.ok("drive-backup", arguments(target.clone(), format, mode));
        let end = client.job_end("j");
        assert_eq!(end["data"].get("error"), None, "{target}: {end}");
        assert!(zeroed(&path), "{target}");
    }
}
