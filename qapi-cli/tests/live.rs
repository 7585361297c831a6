//! `qapi query` of a live server: one of the runtime's, which runs in this process.
#![allow(clippy::unwrap_used, reason = "a test ends by failing")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use qapi_runtime::{
    CommandTable, Error, ListenOptions, Listener, Pending, Reply, Row, Server, Stop, UnixOptions,
};

/// What the server says of itself: masked as QEMU does, so that names of types mean nothing.
const INTROSPECTION: &str = r#"[
 {"name": "disk-add", "meta-type": "command", "arg-type": "1", "ret-type": "0", "features": ["unstable"]},
 {"name": "query-disks", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"},
 {"name": "query-qmp-schema", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
 {"name": "DISK_FULL", "meta-type": "event", "arg-type": "2"},
 {"name": "0", "meta-type": "object", "members": []},
 {"name": "1", "meta-type": "object", "tag": "kind",
  "members": [{"name": "kind", "type": "3"}, {"name": "path", "type": "str"}, {"name": "size", "type": "int", "default": null}],
  "variants": [{"case": "file", "type": "0"}, {"case": "net", "type": "4"}]},
 {"name": "2", "meta-type": "object", "members": [{"name": "path", "type": "str"}]},
 {"name": "3", "meta-type": "enum", "members": [{"name": "file"}, {"name": "net"}], "values": ["file", "net"]},
 {"name": "4", "meta-type": "object", "members": [{"name": "host", "type": "str"}]},
 {"name": "[1]", "meta-type": "array", "element-type": "1"},
 {"name": "str", "meta-type": "builtin", "json-type": "string"},
 {"name": "int", "meta-type": "builtin", "json-type": "int"}
]"#;

const VERSION: &str = r#"{"qemu": {"micro": 0, "minor": 0, "major": 1}, "package": "test"}"#;

fn answer(text: &'static str) -> Result<Pending, Error> {
    let one_line: Vec<u8> = text.bytes().filter(|byte| *byte != b'\n').collect();
    Ok(Box::pin(async move { Ok(Reply::Encoded(one_line)) }))
}

/// A server on a socket in a folder of its own and on a port, until it is dropped.
struct Running {
    folder: tempfile::TempDir,
    port: u16,
    stop: Stop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let stop = Stop::new();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(serve(&socket, stop, &ready));
            }
        });
        let port = started.recv_timeout(Duration::from_secs(20)).unwrap();
        Running {
            folder,
            port,
            stop,
            thread: Some(thread),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("qmp.sock")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(socket: &Path, stop: Stop, ready: &mpsc::Sender<u16>) {
    let mut table = CommandTable::new();
    table.extend([
        Row::new("query-version", |_, _, _| answer(VERSION)),
        Row::new("query-qmp-schema", |_, _, _| answer(INTROSPECTION)),
    ]);
    let server = Server::builder(table, Arc::new(()))
        .version(VERSION)
        .introspection(INTROSPECTION.as_bytes())
        .stop(stop)
        .build();
    let unix = Listener::unix(socket, UnixOptions::default()).unwrap();
    let tcp = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    ready.send(tcp.local_addr().unwrap().port()).unwrap();
    tokio::join!(
        server.serve(unix, ListenOptions::default()),
        server.serve(tcp, ListenOptions::default())
    );
    server.finish(Duration::from_secs(1)).await;
}

/// Asks; gives back the exit status and what was printed to either end.
fn query(source: &str, path: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_qapi"))
        .args(["query", source, path])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_live_server_answers_path_queries() {
    let server = Running::start();
    let plain = server.socket().display().to_string();
    let addresses = [
        plain.clone(),
        format!("unix:{plain}"),
        format!("tcp:127.0.0.1:{}", server.port),
    ];
    for address in &addresses {
        assert_eq!(
            query(address, "disk-add/arg-type/path"),
            (0, "str".into(), String::new())
        );
    }
    for (path, found) in [
        ("disk-add", "command"),
        ("DISK_FULL", "event"),
        ("disk-add/$unstable", "yes"),
        ("disk-add/arg-type/*size", "int (optional)"),
        ("disk-add/arg-type/kind/^net", "yes"),
        ("disk-add/arg-type/+net/host/!str", "yes"),
        ("query-disks/ret-type/+net/host", "str"),
        ("DISK_FULL/arg-type/path", "str"),
    ] {
        assert_eq!(query(&plain, path), (0, found.into(), String::new()), "{path}");
    }
}

#[test]
fn what_is_missing_is_told_apart_from_what_is_wrong() {
    let server = Running::start();
    let address = format!("unix:{}", server.socket().display());
    for (path, nearest) in [
        ("disk-ad", "'disk-add'"),
        ("disk-add/arg-type/paht", "'path'"),
        ("disk-add/arg-type/kind/^nett", "'^net'"),
        ("disk-add/arg-type/+fil/path", "'+file'"),
        ("DISK_FUL/arg-type/path", "'DISK_FULL'"),
    ] {
        let (status, out, err) = query(&address, path);
        assert_eq!((status, out.as_str()), (1, "no"), "{path}: {err}");
        assert!(err.contains(nearest), "{path}: {err}");
    }
    // There, but it may not be left out.
    assert_eq!(query(&address, "disk-add/arg-type/*path").0, 1);
    for path in ["", "disk-add//path", "disk-add/arg-type/", "/disk-add"] {
        let (status, out, err) = query(&address, path);
        assert_eq!((status, out.as_str()), (2, ""), "{path}: {err}");
        assert!(err.starts_with("error: "), "{path}: {err}");
    }
}

#[test]
fn a_server_that_cannot_be_asked_is_an_error() {
    let server = Running::start();
    let socket = server.socket().display().to_string();
    assert_eq!(query(&socket, "disk-add").0, 0);
    drop(server);
    for address in [format!("unix:{socket}"), "tcp:127.0.0.1:1".to_owned()] {
        let (status, out, err) = query(&address, "disk-add");
        assert_eq!((status, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("cannot ask the server at"), "{err}");
    }
}
