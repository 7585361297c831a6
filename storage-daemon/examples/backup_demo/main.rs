//! The main job from beginning to end: grouped incremental backups of two disks that are being written.
//!
//! Run it with `cargo build --release --workspace --bins` first, then
//! `cargo run --release -p storage-daemon --example backup_demo`. It needs nothing but this workspace: the daemon
//! is started in a temporary folder, the disks are written and read through its NBD server, and every restored
//! byte is compared with what was written.

mod disk;
mod nbd;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qapi_runtime::client::blocking::Client;
use qapi_runtime::client::{ClientError, JobEnd};
use qapi_runtime::{Cursor, Document, Token};
use serde_json::{Value, json};

use disk::{Disk, Writer};

/// Length of each disk.
const DISK_BYTES: usize = 48 << 20;
/// How long the daemon may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut demo = Demo::start(dir.path())?;
    demo.make_disks()?;
    let disks = [
        Disk::new("raw", &demo.nbd, DISK_BYTES)?,
        Disk::new("cow", &demo.nbd, DISK_BYTES)?,
    ];
    for disk in &disks {
        disk.fill()?;
    }
    println!("  two disks of {} MiB are filled through NBD", DISK_BYTES >> 20);

    // Both disks are written from here on until the end, but for the moments when a backup is started: what the
    // disks hold then is what each backup must hold, whatever is written while it runs.
    let writers = [Writer::start(&disks[0])?, Writer::start(&disks[1])?];

    println!("\n1. full backup of both and a new bitmap on each, in one transaction");
    demo.make_targets("full", None)?;
    let full = demo.backup("full", "full", &disks, true)?;
    ensure!(
        full.iter().all(|end| *end == JobEnd::Completed),
        "the full backup ended with {full:?}"
    );
    let first = disks[0].take_moment().len() + disks[1].take_moment().len();
    let mut verified = demo.verify("full", &disks)?;
    println!("  {} MiB restored and equal", first >> 20);

    println!("\n2. grouped incremental backup; the second target fails");
    wait_for_writes(&writers)?;
    demo.make_targets("failing", Some("full"))?;
    let before = demo.dirty()?;
    let failed = demo.backup("failing", "incremental", &disks, false)?;
    for (disk, end) in disks.iter().zip(&failed) {
        println!("  {}: {}", disk.name(), describe(end));
    }
    ensure!(
        failed.iter().all(|end| *end != JobEnd::Completed),
        "a member of a failed group has completed"
    );
    let after = demo.dirty()?;
    for (index, disk) in disks.iter().enumerate() {
        let (before, after) = (before[index], after[index]);
        ensure!(
            before > 0 && after >= before,
            "the bitmap of {} has lost changes: {before} -> {after}",
            disk.name()
        );
        println!(
            "  {}: bitmap kept: {} KiB dirty before, {} KiB now",
            disk.name(),
            before >> 10,
            after >> 10
        );
    }

    println!("\n3. the same again, with targets that work");
    demo.make_targets("incremental", Some("full"))?;
    let done = demo.backup("incremental", "incremental", &disks, false)?;
    ensure!(
        done.iter().all(|end| *end == JobEnd::Completed),
        "the incremental backup ended with {done:?}"
    );
    verified += demo.verify("incremental", &disks)?;

    let mut written = 0;
    for writer in writers {
        written += writer.stop()?;
    }
    demo.stop()?;
    println!(
        "\nVerified: {verified} restored bytes of 4 images equal the disks at the moment of each backup, while {} MiB \
         were written; both bitmaps survived the failed group.",
        written >> 20
    );
    Ok(())
}

/// Lets the writers change something before the next backup.
fn wait_for_writes(writers: &[Writer; 2]) -> Result<()> {
    let begin: Vec<u64> = writers.iter().map(Writer::written).collect();
    let deadline = Instant::now() + PATIENCE;
    while writers
        .iter()
        .zip(&begin)
        .any(|(writer, begin)| writer.written() < begin + (2 << 20))
    {
        ensure!(Instant::now() < deadline, "the disks are not being written");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn describe(end: &JobEnd) -> String {
    match end {
        JobEnd::Completed => "completed".to_owned(),
        JobEnd::Failed(why) => format!("failed, as it was made to: {why}"),
        JobEnd::Cancelled => "cancelled with its group".to_owned(),
        _ => "ended".to_owned(),
    }
}

/// The daemon and a QMP connection to it.
struct Demo {
    daemon: Child,
    qmp: Client,
    dir: PathBuf,
    nbd: PathBuf,
}

impl Demo {
    fn start(dir: &Path) -> Result<Self> {
        let program = daemon_program()?;
        let qmp_path = dir.join("qmp.sock");
        let nbd = dir.join("nbd.sock");
        println!("starting {} in {}", program.display(), dir.display());
        let daemon = Command::new(&program)
            .arg("--chardev")
            .arg(format!(
                "socket,id=qmp,path={},server=on,wait=off",
                qmp_path.display()
            ))
            .args(["--monitor", "chardev=qmp", "--nbd-server"])
            .arg(format!("addr.type=unix,addr.path={}", nbd.display()))
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let deadline = Instant::now() + PATIENCE;
        let address = format!("unix:{}", qmp_path.display());
        let qmp = loop {
            match Client::connect(&address) {
                Ok(client) => break client,
                Err(ClientError::Connect { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Self {
            daemon,
            qmp,
            dir: dir.to_owned(),
            nbd,
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn qmp(&self, command: &str, arguments: &Value) -> Result<Document> {
        self.qmp
            .execute(command, Some(arguments.to_string().as_bytes()))
            .with_context(|| format!("{command} {arguments}"))
    }

    fn create(&self, options: &Value) -> Result<()> {
        let mut job = self.qmp.job("create");
        self.qmp(
            "blockdev-create",
            &json!({"job-id": "create", "options": options}),
        )?;
        let end = job.wait()?;
        ensure!(end == JobEnd::Completed, "an image cannot be made: {end:?}");
        self.qmp("job-dismiss", &json!({"id": "create"}))?;
        Ok(())
    }

    fn make_disks(&mut self) -> Result<()> {
        let raw = self.path("disk.raw");
        self.create(&json!({"driver": "file", "filename": raw, "size": DISK_BYTES}))?;
        self.qmp(
            "blockdev-add",
            &json!({"driver": "raw", "node-name": "raw", "file": {"driver": "file", "filename": raw}}),
        )?;
        self.make_qcow2("disk.qcow2", None)?;
        let cow = self.path("disk.qcow2");
        self.qmp(
            "blockdev-add",
            &json!({"driver": "qcow2", "node-name": "cow", "file": {"driver": "file", "filename": cow}}),
        )?;
        for node in ["raw", "cow"] {
            self.export(node, true)?;
        }
        Ok(())
    }

    fn make_qcow2(&self, name: &str, backing: Option<&str>) -> Result<()> {
        let path = self.path(name);
        self.create(&json!({"driver": "file", "filename": path, "size": 0}))?;
        let mut options =
            json!({"driver": "qcow2", "file": {"driver": "file", "filename": path}, "size": DISK_BYTES});
        if let (Some(backing), Some(members)) = (backing, options.as_object_mut()) {
            members.insert("backing-file".into(), json!(self.path(backing)));
            members.insert("backing-fmt".into(), json!("qcow2"));
        }
        self.create(&options)
    }

    fn export(&self, node: &str, writable: bool) -> Result<()> {
        let id = format!("export-{node}");
        self.qmp(
            "block-export-add",
            &json!({"type": "nbd", "id": id, "node-name": node, "name": node, "writable": writable}),
        )?;
        Ok(())
    }

    /// An image for each disk to back up into, as nodes `NAME-raw` and `NAME-cow`; with a name to build on, their
    /// backing files are those. Of those named `failing`, the second refuses writes.
    fn make_targets(&self, name: &str, backing: Option<&str>) -> Result<()> {
        for disk in ["raw", "cow"] {
            let node = format!("{name}-{disk}");
            let file = format!("{node}.qcow2");
            let below = backing.map(|below| format!("{below}-{disk}"));
            let below_file = below.as_ref().map(|below| format!("{below}.qcow2"));
            self.make_qcow2(&file, below_file.as_deref())?;
            let protocol = json!({"driver": "file", "filename": self.path(&file)});
            let faulty = name == "failing" && disk == "cow";
            let format_name = if faulty {
                format!("{node}-image")
            } else {
                node.clone()
            };
            let mut options = json!({"driver": "qcow2", "node-name": format_name, "file": protocol});
            if let (Some(below), Some(members)) = (below, options.as_object_mut()) {
                members.insert("backing".into(), json!(below));
            }
            self.qmp("blockdev-add", &options)?;
            if faulty {
                self.qmp(
                    "blockdev-add",
                    &json!({"driver": "blkdebug", "node-name": node, "image": format_name,
                            "inject-error": [{"event": "none", "iotype": "write", "errno": 28}]}),
                )?;
            }
        }
        Ok(())
    }

    /// Backs both disks up as one group and follows it to its end. Remembers what the disks hold at that moment.
    fn backup(&self, targets: &str, sync: &str, disks: &[Disk; 2], new_bitmaps: bool) -> Result<Vec<JobEnd>> {
        let mut actions = Vec::new();
        let mut jobs = Vec::new();
        for disk in disks {
            let node = disk.name();
            if new_bitmaps {
                actions.push(
                    json!({"type": "block-dirty-bitmap-add", "data": {"node": node, "name": "changes"}}),
                );
            }
            let mut backup = json!({
                "job-id": format!("{targets}-{node}"), "device": node, "target": format!("{targets}-{node}"),
                "sync": sync, "transactional-cancel": true,
            });
            if let (false, Some(members)) = (new_bitmaps, backup.as_object_mut()) {
                members.insert("bitmap".into(), json!("changes"));
            }
            actions.push(json!({"type": "blockdev-backup", "data": backup}));
            jobs.push((
                format!("{targets}-{node}"),
                self.qmp.job(&format!("{targets}-{node}")),
            ));
        }
        {
            // Nothing is written while the transaction is sent: what the disks hold now is what it must keep.
            let held: Vec<_> = disks.iter().map(Disk::hold).collect();
            self.qmp("transaction", &json!({"actions": actions}))?;
            for (disk, held) in disks.iter().zip(held) {
                disk.remember(held);
            }
        }
        self.follow(&mut jobs)
    }

    fn follow(&self, jobs: &mut [(String, qapi_runtime::client::blocking::Job)]) -> Result<Vec<JobEnd>> {
        let bars = MultiProgress::new();
        let style = ProgressStyle::with_template("  {msg:18} {bar:40} {bytes:>10} of {total_bytes}")?;
        std::thread::scope(|scope| {
            let waiting: Vec<_> = jobs
                .iter_mut()
                .map(|(id, job)| {
                    let bar = bars.add(
                        ProgressBar::new(1)
                            .with_style(style.clone())
                            .with_message(id.clone()),
                    );
                    scope.spawn(move || {
                        while let Some(progress) = job.progress() {
                            bar.set_length(u64::try_from(progress.len).unwrap_or(0));
                            bar.set_position(u64::try_from(progress.offset).unwrap_or(0));
                        }
                        let end = job.wait();
                        match &end {
                            Ok(JobEnd::Completed) => bar.finish(),
                            _ => bar.abandon(),
                        }
                        end
                    })
                })
                .collect();
            let mut ends = Vec::new();
            for thread in waiting {
                match thread.join() {
                    Ok(end) => ends.push(end?),
                    Err(_) => bail!("a watching thread panicked"),
                }
            }
            Ok(ends)
        })
    }

    /// Dirty bytes of each disk's bitmap.
    fn dirty(&self) -> Result<[i64; 2]> {
        let nodes = self.qmp("query-named-block-nodes", &json!({"flat": true}))?;
        let count = |wanted: &str| -> Result<i64> {
            let root = nodes.root().context("an empty reply")?;
            let node = root
                .elements()
                .find(|node| text(*node, "node-name") == Some(wanted))
                .context("a node is gone")?;
            let bitmaps = member(node, "dirty-bitmaps").context("a node without bitmaps")?;
            let bitmap = bitmaps
                .elements()
                .find(|one| text(*one, "name") == Some("changes"))
                .context("the bitmap is gone")?;
            match member(bitmap, "count").map(Cursor::token) {
                Some(Token::Int(count)) => Ok(count),
                _ => bail!("a bitmap without a count"),
            }
        };
        Ok([count("raw")?, count("cow")?])
    }

    /// Reads the images back through NBD and compares every byte with the remembered moment.
    fn verify(&self, targets: &str, disks: &[Disk; 2]) -> Result<usize> {
        let mut bytes = 0;
        for disk in disks {
            let node = format!("{targets}-{}", disk.name());
            self.export(&node, false)?;
            bytes += disk.compare(&self.nbd, &node)?;
            self.qmp(
                "block-export-del",
                &json!({"id": format!("export-{node}"), "mode": "hard"}),
            )?;
        }
        Ok(bytes)
    }

    fn stop(mut self) -> Result<()> {
        self.qmp("quit", &json!({}))?;
        let status = self.daemon.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // After `stop` it has ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn member<'a>(object: Cursor<'a>, name: &str) -> Option<Cursor<'a>> {
    object
        .members()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn text<'a>(object: Cursor<'a>, name: &str) -> Option<&'a str> {
    member(object, name).and_then(Cursor::as_str)
}

/// The daemon that was built beside this example.
fn daemon_program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here
        .parent()
        .and_then(Path::parent)
        .context("this program has no folder")?;
    let program = profile.join("storage-daemon");
    if !program.exists() {
        let release = if profile.ends_with("release") {
            " --release"
        } else {
            ""
        };
        bail!(
            "{} is not there: run `cargo build{release} --workspace --bins` first",
            program.display()
        );
    }
    Ok(program)
}
