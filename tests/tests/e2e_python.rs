//! The public Python client `qemu.qmp` drives the daemon.

use std::path::Path;
use std::process::Command;

use tests::{Daemon, have, run_ok};

const SCRIPT: &str = r#"
import asyncio, sys
from qemu.qmp import QMPClient, EventListener, ExecuteError

async def main():
    qmp = QMPClient("test")
    await qmp.connect(sys.argv[1])
    version = await qmp.execute("query-version")
    assert version["qemu"]["major"] >= 10, version
    replies = await asyncio.gather(*(qmp.execute("query-commands") for _ in range(50)))
    assert all(any(c["name"] == "transaction" for c in r) for r in replies)
    try:
        await qmp.execute("block-dirty-bitmap-add", {"node": "a"})
        raise SystemExit("an argument was missing")
    except ExecuteError as error:
        assert str(error) == "Parameter 'name' is missing", error
    ended = EventListener(("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"))
    with qmp.listen(ended):
        actions = []
        for disk in "ab":
            actions.append({"type": "blockdev-backup", "data": {
                "job-id": "j" + disk, "device": disk, "target": "t" + disk, "sync": "full"}})
        await qmp.execute("transaction", {"actions": actions, "properties": {"completion-mode": "grouped"}})
        seen = {}
        while len(seen) < 2:
            event = await ended.get()
            assert event["event"] == "BLOCK_JOB_COMPLETED", event
            assert "error" not in event["data"], event
            seen[event["data"]["device"]] = event["data"]["len"]
        assert seen == {"ja": 4194304, "jb": 4194304}, seen
    try:
        await qmp.execute("quit")
        await qmp.disconnect()
    except EOFError:
        pass

asyncio.run(main())
"#;

fn prepare(folder: &Path) -> Vec<String> {
    let mut args = Vec::new();
    for (name, format) in [("a", "raw"), ("b", "qcow2"), ("ta", "raw"), ("tb", "qcow2")] {
        let path = folder.join(name).display().to_string();
        run_ok("qemu-img", &["create", "-q", "-f", format, &path, "4M"]);
        run_ok("qemu-io", &["-f", format, "-c", "write -q -P 7 1M 1M", &path]);
        args.extend([
            "--blockdev".to_owned(),
            format!("{format},node-name={name},file.driver=file,file.filename={path}"),
        ]);
    }
    args
}

#[test]
fn qemu_qmp_runs_a_grouped_backup() {
    if !(have("python3") && have("qemu-img") && have("qemu-io")) {
        return;
    }
    let installed = Command::new("python3").args(["-c", "import qemu.qmp"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: the Python package qemu.qmp is not installed");
        return;
    }
    let daemon = Daemon::start(prepare);
    let socket = daemon.qmp_path().display().to_string();
    run_ok("python3", &["-c", SCRIPT, &socket]);
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    for (disk, target, format) in [("a", "ta", "raw"), ("b", "tb", "qcow2")] {
        run_ok(
            "qemu-img",
            &[
                "compare",
                "-U",
                "-q",
                "-f",
                format,
                "-F",
                format,
                &path(disk),
                &path(target),
            ],
        );
    }
}
