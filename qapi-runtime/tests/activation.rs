//! Sockets that systemd opens, and telling it when we are ready.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test ends by failing, and is no page for users"
)]

mod support;

use qapi_runtime::client::blocking::Client;
use qapi_runtime::listen::{notify_systemd, systemd_sockets};
use qapi_runtime::{CommandTable, EventHub, ListenOptions, Listener, Server, Stop};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What the activated process does; nothing when it is run as one of the tests.
#[tokio::test]
async fn activated() {
    if std::env::var_os("QAPI_TEST_ACTIVATED").is_none() {
        return;
    }
    let listeners = systemd_sockets().unwrap();
    assert_eq!(listeners.len(), 1);
    let handler = Arc::new(support::Handler {
        stop: Stop::new(),
        hub: Arc::new(EventHub::new()),
        gate: Arc::new(tokio::sync::Semaphore::new(0)),
        finished: 0.into(),
    });
    let table: CommandTable<support::Handler> = support::rows().into_iter().collect();
    let server = Server::builder(table, Arc::clone(&handler))
        .stop(handler.stop.clone())
        .build();
    notify_systemd("READY=1").unwrap();
    for passed in listeners {
        assert_eq!((passed.number, passed.name.as_str()), (3, "qmp"));
        let listener = Listener::from_fd(passed.fd).unwrap();
        server.serve(listener, ListenOptions::default()).await;
    }
    server.finish(Duration::from_secs(5)).await;
}

#[test]
fn a_passed_socket_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passed.sock");
    let notify = folder.path().join("notify.sock");
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    // The descriptor has to be number three, and the process that the shell becomes has the shell's id.
    let mut child = Command::new("sh")
        .args([
            "-c",
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=qmp exec \"$0\" \"$@\" 3<&0 </dev/null",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["activated", "--exact"])
        .env("QAPI_TEST_ACTIVATED", "1")
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let mut message = [0; 64];
    let length = told.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    let client = Client::connect(path.to_str().unwrap()).unwrap();
    client.execute("query-version", None).unwrap();
    client.execute("quit", None).unwrap();
    assert!(child.wait().unwrap().success());
    // It is not ours to remove.
    assert!(path.exists());
}

#[tokio::test]
async fn without_systemd_there_is_nothing() {
    if std::env::var_os("LISTEN_PID").is_none() {
        assert!(systemd_sockets().unwrap().is_empty());
    }
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        notify_systemd("READY=1").unwrap();
    }
}
