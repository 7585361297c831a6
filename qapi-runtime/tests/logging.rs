//! What operators see: a span a command with its duration and outcome, clients with their credentials.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test ends by failing, and is no page for users"
)]

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use support::TestServer;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Captured;

    fn make_writer(&'a self) -> Captured {
        self.clone()
    }
}

#[tokio::test]
async fn commands_and_clients_are_seen() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    plain.call("{'execute':'sleep','arguments':{'ms':3}}").await;
    plain.call("{'execute':'big'}").await;
    plain.call("{'execute':'nope'}").await;
    drop(plain);
    server.wait_for_sessions(0).await;
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let line = |parts: &[&str]| {
        let found = text
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in:\n{text}");
    };
    let uid = format!("uid={}", rustix::process::getuid().as_raw());
    line(&["INFO", "qmp::session", "client connected", &uid]);
    line(&["INFO", "qmp::session", "client gone"]);
    line(&[
        "DEBUG",
        "command{name=\"sleep\" session=1 oob=false}",
        "qmp::command",
        "done",
        "duration=",
    ]);
    line(&[
        "command{name=\"big\"",
        "failed",
        "class=\"GenericError\"",
        "Parameter 'bytes' is missing",
    ]);
    line(&["qmp::command", "refused", "name=\"nope\"", "CommandNotFound"]);
}
