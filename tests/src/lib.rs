#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says why and ends"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "`json!` literals read best as they are"
)]
//! What the end-to-end tests share: finding the programs, starting a daemon in a temporary folder, a plain QMP client.
//!
//! The client is deliberately naive (blocking, one thread, `serde_json`): it must not share code with what it tests.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any single thing may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The path of one of the workspace's programs, built beside the running test.
///
/// # Panics
///
/// With the command to run, when it has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // The tests themselves can be judged against another daemon of the same command line.
    if name == "storage-daemon"
        && let Some(other) = std::env::var_os("STORAGE_DAEMON")
    {
        return other.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/test-HASH -> target/PROFILE/NAME
    let folder = test.parent().and_then(Path::parent).expect("a profile folder");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// Whether a program of the system is there; says that the test skips when not.
#[must_use]
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The external corpus, where `QAPI_CORPUS` names it; says that the test skips when not.
#[must_use]
pub fn corpus() -> Option<PathBuf> {
    let found = std::env::var_os("QAPI_CORPUS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: QAPI_CORPUS is not set");
    }
    found
}

/// Runs a program to its end.
///
/// # Panics
///
/// When it cannot be started.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Output {
    let program = program.as_ref();
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Runs a program that must succeed, and returns what it printed.
///
/// # Panics
///
/// When it fails, with all that it said.
pub fn run_ok<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> String {
    let program = program.as_ref();
    let output = run(program, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{} {:?}: {}\n{text}{}",
        program.display(),
        args.iter().map(|arg| arg.as_ref().to_owned()).collect::<Vec<_>>(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A running storage daemon with one QMP socket and one NBD socket in a folder of its own.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts one in a new folder. `prepare` fills the folder and gives the options besides monitor and NBD server.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start(prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let args = prepare(folder.path());
        let process = Self::spawn(folder.path(), &args);
        let daemon = Self { process, folder };
        daemon.wait_for_socket();
        daemon
    }

    fn spawn(folder: &Path, args: &[String]) -> Child {
        let qmp = format!(
            "socket,id=m,path={},server=on,wait=off",
            folder.join("qmp").display()
        );
        let nbd = format!(
            "addr.type=unix,addr.path={},max-connections=0",
            folder.join("nbd").display()
        );
        Command::new(program("storage-daemon"))
            .args(["--chardev", &qmp, "--monitor", "chardev=m", "--nbd-server", &nbd])
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon starts")
    }

    /// Kills it as a crash would and starts it again in the same folder.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn crash_and_restart(&mut self, args: &[String]) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
        let _ = std::fs::remove_file(self.folder.path().join("qmp"));
        let _ = std::fs::remove_file(self.folder.path().join("nbd"));
        self.process = Self::spawn(self.folder.path(), args);
        self.wait_for_socket();
    }

    fn wait_for_socket(&self) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.folder.path().join("qmp")).is_err() {
            assert!(Instant::now() < deadline, "the daemon has no QMP socket");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of its QMP socket.
    #[must_use]
    pub fn qmp_path(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// The URI of one of its NBD exports.
    #[must_use]
    pub fn nbd_uri(&self, export: &str) -> String {
        format!(
            "nbd+unix:///{export}?socket={}",
            self.folder.path().join("nbd").display()
        )
    }

    /// A new QMP client that has negotiated.
    ///
    /// # Panics
    ///
    /// When the daemon does not answer.
    #[must_use]
    pub fn client(&self) -> Qmp {
        let mut client = Qmp::connect(&self.qmp_path());
        client.ok("qmp_capabilities", json!({}));
        client
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    ///
    /// When that cannot be asked.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("status").is_none()
    }

    /// Sends `quit` and waits for a clean end.
    ///
    /// # Panics
    ///
    /// When it does not end with status 0 in time.
    #[must_use]
    pub fn quit(mut self) -> tempfile::TempDir {
        self.client().ok("quit", json!({}));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("status") {
                assert!(status.success(), "the daemon ended with {status}");
                break;
            }
            assert!(Instant::now() < deadline, "the daemon does not quit");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A QMP client: sends one command, reads lines until its reply, keeps the events.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    /// Events seen and not yet waited for, oldest first.
    pub events: VecDeque<Value>,
    /// The greeting.
    pub greeting: Value,
}

impl Qmp {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connect to the QMP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Self {
            stream: BufReader::new(stream),
            events: VecDeque::new(),
            greeting: Value::Null,
        };
        client.greeting = client.read().expect("a greeting");
        client
    }

    /// The next message, or nothing when the daemon has closed the connection.
    ///
    /// # Panics
    ///
    /// On a timeout or a line that is no JSON.
    pub fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        let n = self.stream.read_line(&mut line).expect("a message in time");
        (n > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Writes raw bytes.
    ///
    /// # Panics
    ///
    /// When the daemon does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("a write");
    }

    /// Runs a command and returns its whole reply.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        let message = json!({"execute": command, "arguments": arguments});
        self.send(format!("{message}\n").as_bytes());
        loop {
            let message = self
                .read()
                .unwrap_or_else(|| panic!("{command}: the connection was closed"));
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else {
                return message;
            }
        }
    }

    /// Runs a command that must succeed and returns what it gave.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ok(&mut self, command: &str, arguments: Value) -> Value {
        let mut reply = self.call(command, arguments);
        match reply.get_mut("return") {
            Some(value) => value.take(),
            None => panic!("{command}: {reply}"),
        }
    }

    /// Runs a command that must fail and returns the error's text.
    ///
    /// # Panics
    ///
    /// When it succeeds.
    pub fn fails(&mut self, command: &str, arguments: Value) -> String {
        let reply = self.call(command, arguments);
        match reply.pointer("/error/desc").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => panic!("{command} was expected to fail: {reply}"),
        }
    }

    /// Takes the first event of this name for which `wanted` holds, waiting for it.
    ///
    /// # Panics
    ///
    /// When it does not come in time.
    pub fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let fits = |event: &Value| event["event"] == name && wanted(&event["data"]);
        if let Some(at) = self.events.iter().position(&fits) {
            return self.events.remove(at).unwrap_or_default();
        }
        loop {
            let message = self
                .read()
                .unwrap_or_else(|| panic!("{name}: the connection was closed"));
            assert!(
                message.get("event").is_some(),
                "a reply that nobody waits for: {message}"
            );
            if fits(&message) {
                return message;
            }
            self.events.push_back(message);
        }
    }

    /// Waits until a job has gone, and returns its BLOCK_JOB_COMPLETED or BLOCK_JOB_CANCELLED event.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn job_end(&mut self, job: &str) -> Value {
        self.event("JOB_STATUS_CHANGE", |data| {
            data["id"] == job && data["status"] == "null"
        });
        let ended = |event: &Value| {
            (event["event"] == "BLOCK_JOB_COMPLETED" || event["event"] == "BLOCK_JOB_CANCELLED")
                && event["data"]["device"] == job
        };
        let at = self
            .events
            .iter()
            .position(ended)
            .unwrap_or_else(|| panic!("{job} ended without an event"));
        self.events.remove(at).unwrap_or_default()
    }

    /// The bitmap of that name on a node, as `query-named-block-nodes` shows it.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    pub fn bitmap(&mut self, node: &str, name: &str) -> Option<Value> {
        let nodes = self.ok("query-named-block-nodes", json!({}));
        let node = nodes
            .as_array()
            .and_then(|nodes| nodes.iter().find(|entry| entry["node-name"] == node))
            .unwrap_or_else(|| panic!("no node {node}"));
        node["dirty-bitmaps"]
            .as_array()
            .and_then(|all| all.iter().find(|b| b["name"] == name))
            .cloned()
    }
}
