//! The program as its user starts it: channels, monitors, sockets that were there before, the background.
#![expect(clippy::expect_used, reason = "a test that cannot go on says why and ends")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{PATIENCE, Qmp, program, run};

/// Ends the program when a test fails half-way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let child = Command::new(program("storage-daemon"))
            .args(args)
            .stdin(Stdio::null())
            .spawn();
        Running(child.expect("the daemon starts"))
    }

    fn ends_well(mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("status") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn talk(stream: UnixStream) -> (BufReader<UnixStream>, Value) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a greeting");
    let greeting = serde_json::from_str(&line).expect("a greeting is JSON");
    (reader, greeting)
}

fn ask(stream: &mut BufReader<UnixStream>, request: &Value) -> Value {
    // All at once: after `quit` nobody may be there to take the rest.
    let request = format!("{request}\n");
    stream.get_mut().write_all(request.as_bytes()).expect("a write");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a reply");
    serde_json::from_str(&line).expect("a reply is JSON")
}

#[test]
fn a_pretty_monitor_lays_everything_out() {
    let mut child = Command::new(program("storage-daemon"))
        .args(["--chardev", "stdio,id=m", "--monitor"])
        .arg("{'chardev': 'm', 'pretty': true, 'mode': 'control'}")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the daemon starts");
    let mut input = child.stdin.take().expect("its input");
    let requests = "{'execute': 'qmp_capabilities', 'id': {'a': []}}
        {'execute': 'blockdev-add', 'arguments': {'driver': 'null-co', 'node-name': 'n'}}
        {'execute': 'nope'} {'execute': 'query-qmp-schema'} {'execute': 'quit'}";
    input.write_all(requests.as_bytes()).expect("a write");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.starts_with("{\r\n    \"QMP\": {\r\n        \"version\": {\r\n"),
        "{text}"
    );
    assert!(
        text.contains("{\r\n    \"return\": {\r\n    },\r\n    \"id\": {\r\n        \"a\": [\r\n        ]\r\n    }\r\n}\r\n"),
        "{text}"
    );
    assert!(text.contains("        \"class\": \"CommandNotFound\",\r\n"));
    let values: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("whole values");
    assert_eq!(values.len(), 6);
    assert!(
        values[4]["return"]
            .as_array()
            .is_some_and(|entities| entities.len() > 100)
    );
}

#[test]
fn a_monitor_over_pipes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p");
    for end in ["in", "out"] {
        let made = Command::new("mkfifo").arg(path.with_extension(end)).status();
        assert!(made.expect("mkfifo").success());
    }
    let chardev = format!("pipe,id=m,path={}", path.display());
    let daemon = Running::start(&["--chardev", &chardev, "--monitor", "m"]);
    let mut input = std::fs::File::options()
        .write(true)
        .open(path.with_extension("in"))
        .expect("the pipe opens");
    let output = std::fs::File::open(path.with_extension("out")).expect("the pipe opens");
    input
        .write_all(b"{'execute':'qmp_capabilities'}{'execute':'quit','id':'bye'}")
        .expect("a write");
    let mut lines = BufReader::new(output).lines();
    let last = lines.find_map(|line| line.ok().filter(|line| line.contains("bye")));
    assert_eq!(last.as_deref(), Some("{\"return\": {}, \"id\": \"bye\"}"));
    daemon.ends_well();
}

/// Started as a shell starts a program with a descriptor: the number is what the option names.
fn with_descriptor(fd: OwnedFd, options: &str) -> Running {
    let child = Command::new("sh")
        .args(["-c", &format!("exec \"$0\" {options} 5<&0 </dev/null")])
        .arg(program("storage-daemon"))
        .stdin(Stdio::from(fd))
        .spawn();
    Running(child.expect("the daemon starts"))
}

#[test]
fn descriptors_that_were_there_before() {
    let folder = tempfile::tempdir().expect("a folder");
    // One that listens ...
    let path = folder.path().join("passed");
    let listener = UnixListener::bind(&path).expect("a socket");
    let daemon = with_descriptor(
        listener.into(),
        "--chardev socket,id=m,fd=5,server=on,wait=off --monitor m",
    );
    let mut client = Qmp::connect(&path);
    client.ok("qmp_capabilities", json!({}));
    let mut other = Qmp::connect(&path);
    other.ok("qmp_capabilities", json!({}));
    client.ok("quit", json!({}));
    daemon.ends_well();
    assert!(path.exists(), "who made the socket removes it");
    // ... and one that is connected.
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let daemon = with_descriptor(theirs.into(), "--chardev socket,id=m,fd=5 --monitor m");
    let (mut stream, greeting) = talk(ours);
    assert!(greeting.get("QMP").is_some());
    ask(&mut stream, &json!({"execute": "qmp_capabilities"}));
    ask(&mut stream, &json!({"execute": "quit"}));
    daemon.ends_well();
    // What is no socket is refused, and so is a name that nobody gave.
    for (number, said) in [
        ("0", "File descriptor '0' is not a socket"),
        ("77", "File descriptor '77' is not a socket"),
        ("x", "Unable to parse FD number x"),
    ] {
        let option = format!("socket,id=m,fd={number},server=on,wait=off");
        let output = run(program("storage-daemon"), &["--chardev", &option]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{number}");
    }
}

#[test]
fn systemd_gives_sockets_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (qmp, nbd) = (folder.path().join("qmp"), folder.path().join("nbd"));
    let listeners = [&qmp, &nbd].map(|path| UnixListener::bind(path).expect("a socket"));
    let [first, second] = listeners.map(OwnedFd::from);
    let child = Command::new("sh")
        .args([
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=control:disks exec \"$0\" \
             --blockdev null-co,node-name=n,size=1048576 \
             --nbd-server addr.type=fd,addr.str=disks --export nbd,id=e,node-name=n \
             --chardev socket,id=m,fd=control,server=on,wait=off --monitor m 3<&0 4<&1 </dev/null >/dev/null",
        ])
        .arg(program("storage-daemon"))
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .spawn();
    let daemon = Running(child.expect("the daemon starts"));
    let mut client = Qmp::connect(&qmp);
    client.ok("qmp_capabilities", json!({}));
    let mut magic = [0; 8];
    let mut stream = UnixStream::connect(&nbd).expect("the NBD socket");
    stream.read_exact(&mut magic).expect("a greeting");
    assert_eq!(&magic, b"NBDMAGIC");
    client.ok("quit", json!({}));
    daemon.ends_well();
}

#[test]
fn clients_of_one_monitor_may_be_held_to_more_than_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mild, stern) = (folder.path().join("mild"), folder.path().join("stern"));
    let chardev =
        |id: &str, path: &Path| format!("socket,id={id},path={},server=on,wait=off", path.display());
    let stern_monitor =
        "s,compat.deprecated-input=reject,compat.unstable-input=accept,compat.deprecated-output=hide";
    let daemon = Running::start(&[
        "--compat",
        "unstable-input=reject",
        "--chardev",
        &chardev("m", &mild),
        "--monitor",
        "m",
        "--chardev",
        &chardev("s", &stern),
        "--monitor",
        stern_monitor,
    ]);
    // Three commands that want arguments: who may run them at all?
    let answers = |path: &Path| {
        wait_for(path);
        let (mut stream, _) = talk(UnixStream::connect(path).expect("a connection"));
        ask(&mut stream, &json!({"execute": "qmp_capabilities"}));
        let classes = ["drive-backup", "x-blockdev-set-iothread", "blockdev-del"]
            .map(|command| ask(&mut stream, &json!({"execute": command}))["error"]["class"].clone());
        let schema = ask(&mut stream, &json!({"execute": "query-qmp-schema"}));
        let entities = schema["return"].as_array().expect("entities").clone();
        let told = entities.iter().any(|entity| entity["name"] == "drive-backup");
        (classes.map(|class| class == "CommandNotFound"), told)
    };
    assert_eq!(answers(&mild), ([false, true, false], true));
    assert_eq!(answers(&stern), ([true, false, false], false));
    let (mut stream, _) = talk(UnixStream::connect(&mild).expect("a connection"));
    ask(&mut stream, &json!({"execute": "qmp_capabilities"}));
    ask(&mut stream, &json!({"execute": "quit"}));
    daemon.ends_well();
    // To end the program is not for one monitor to ask.
    let output = Command::new(program("storage-daemon"))
        .args([
            "--chardev",
            "stdio,id=m",
            "--monitor",
            "m,compat.unstable-input=crash",
        ])
        .output()
        .expect("the program runs");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("does not accept value 'crash'"), "{error}");
}

#[test]
fn a_client_channel_connects_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let chardev = format!("socket,id=m,path={},reconnect-ms=20", path.display());
    // Nobody listens yet, and that is no reason to fail.
    let daemon = Running::start(&["--chardev", &chardev, "--monitor", "m"]);
    std::thread::sleep(Duration::from_millis(50));
    let listener = UnixListener::bind(&path).expect("a socket");
    let (mut stream, _) = talk(listener.accept().expect("a connection").0);
    ask(&mut stream, &json!({"execute": "qmp_capabilities"}));
    drop(stream);
    let (mut stream, greeting) = talk(listener.accept().expect("a second one").0);
    assert!(greeting.get("QMP").is_some());
    ask(&mut stream, &json!({"execute": "qmp_capabilities"}));
    ask(&mut stream, &json!({"execute": "quit"}));
    daemon.ends_well();
}

#[test]
fn the_start_waits_for_a_client_and_can_be_ended_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, pid) = (folder.path().join("s"), folder.path().join("pid"));
    let chardev = format!("socket,id=m,path={},server=on", path.display());
    let pid_text = pid.display().to_string();
    let args = ["--chardev", &chardev, "--monitor", "m", "--pidfile", &pid_text];
    let daemon = Running::start(&args);
    wait_for(&path);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!pid.exists(), "it has not started yet");
    let mut client = Qmp::connect(&path);
    client.ok("qmp_capabilities", json!({}));
    wait_for(&pid);
    client.ok("quit", json!({}));
    daemon.ends_well();
    assert!(!path.exists() && !pid.exists());
    let daemon = Running::start(&args);
    wait_for(&path);
    let ended = Command::new("kill").arg(daemon.0.id().to_string()).status();
    assert!(ended.expect("kill").success());
    daemon.ends_well();
    assert!(!path.exists());
}

#[test]
fn the_background() {
    let program = program("storage-daemon");
    let help = run(&program, &["--daemonize", "--version"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("storage-daemon"));
    let refused = run(
        &program,
        &["--daemonize", "--chardev", "stdio,id=m", "--monitor", "m"],
    );
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot use stdio with -daemonize"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let chardev = format!("socket,id=m,path={},server=on,wait=off", path.display());
    let started = run(
        &program,
        &["--daemonize", "--chardev", &chardev, "--monitor", "m"],
    );
    assert!(started.status.success());
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Qmp::connect(&path);
    client.ok("qmp_capabilities", json!({}));
    client.ok("quit", json!({}));
}

#[test]
fn help_comes_before_mistakes_and_messages_begin_with_the_name_of_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("qemu-storage-daemon");
    std::os::unix::fs::symlink(program("storage-daemon"), &link).expect("a link");
    let says = |args: &[&str]| {
        let output = Command::new(&link).args(args).output().expect("the program runs");
        let error = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), error)
    };
    for args in [
        &["--nbd-server={}", "-h"][..],
        &["stray", "--version"],
        &["-V", "--bogus"],
    ] {
        assert_eq!(says(args), (Some(0), String::new()), "{args:?}");
    }
    for (args, message) in [
        (&["stray"][..], "stray: Unexpected argument"),
        (&["--bogus", "-h"], "unrecognized option '--bogus'"),
        (
            &["--monitor", "none,mode=readline", "stray"],
            "--monitor none,mode=readline: chardev \"none\" not found",
        ),
        (&["--daemonize", "stray"], "stray: Unexpected argument"),
    ] {
        let (code, error) = says(args);
        assert_eq!(code, Some(1), "{args:?}");
        assert!(
            error.starts_with(&format!("qemu-storage-daemon: {message}\n")),
            "{error}"
        );
    }
}
