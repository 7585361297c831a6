//! A server with hand-written commands, and a plain client that sees every byte.
#![allow(dead_code, reason = "each test program uses its own part")]

use qapi_runtime::{
    Call, CommandTable, Cursor, Error, Event, EventHub, ListenOptions, Listener, Pending, Reply, Row, Server,
    ServerLimits, Stop, Token, UnixOptions, Writer, text,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

pub const VERSION: &str = r#"{"qemu": {"micro": 3, "minor": 2, "major": 1}, "package": "test"}"#;

/// What the test commands share.
pub struct Handler {
    pub stop: Stop,
    pub hub: Arc<EventHub>,
    /// `gate` waits for a permit.
    pub gate: Arc<Semaphore>,
    /// Commands that ran to their end.
    pub finished: AtomicUsize,
}

/// An event with a number and some ballast.
pub struct Tick {
    pub number: i64,
    pub ballast: usize,
}

impl Event for Tick {
    fn name(&self) -> &'static str {
        "TICK"
    }

    fn encode_data(&self, out: &mut Writer) {
        let ballast = "x".repeat(self.ballast);
        out.raw(format!("{{\"number\": {}, \"ballast\": \"{ballast}\"}}", self.number).as_bytes());
    }
}

fn ready(value: impl Into<Vec<u8>>) -> Result<Pending, Error> {
    let reply = Reply::Encoded(value.into());
    Ok(Box::pin(async move { Ok(reply) }))
}

fn number(arguments: Option<Cursor<'_>>, name: &str) -> Result<i64, Error> {
    arguments
        .and_then(|arguments| arguments.members().find(|(key, _)| *key == name))
        .and_then(|(_, value)| match value.token() {
            Token::Int(value) => Some(value),
            _ => None,
        })
        .ok_or_else(|| Error::generic(format!("Parameter '{name}' is missing")))
}

pub fn rows() -> Vec<Row<Handler>> {
    vec![
        Row::new("query-version", |_: &Arc<Handler>, _, _| ready(VERSION)),
        Row::new("quit", |handler, _, _| {
            handler.stop.request();
            ready("{}")
        }),
        // Gives its arguments back.
        Row::new("echo", |_, _, arguments| {
            let mut out = Vec::new();
            match arguments {
                Some(arguments) => text::write_value(&mut out, arguments),
                None => out.extend_from_slice(b"{}"),
            }
            ready(out)
        }),
        // Gives back so many bytes.
        Row::new("big", |_, _, arguments| {
            let bytes = usize::try_from(number(arguments, "bytes")?).unwrap_or(0);
            ready(format!("\"{}\"", "b".repeat(bytes)))
        }),
        Row::new("sleep", |handler, _, arguments| {
            let pause = Duration::from_millis(u64::try_from(number(arguments, "ms")?).unwrap_or(0));
            let handler = Arc::clone(handler);
            Ok(Box::pin(async move {
                tokio::time::sleep(pause).await;
                handler.finished.fetch_add(1, Ordering::SeqCst);
                Ok(Reply::Encoded(b"{}".to_vec()))
            }))
        }),
        Row::new("gate", |handler, _, _| {
            let handler = Arc::clone(handler);
            Ok(Box::pin(async move {
                handler.gate.acquire().await.unwrap().forget();
                handler.finished.fetch_add(1, Ordering::SeqCst);
                Ok(Reply::Encoded(b"{}".to_vec()))
            }))
        }),
        Row::new("oob-ping", |_, call: Call, _| {
            ready(if call.oob { "true" } else { "false" })
        })
        .allow_oob(),
        Row::new("oob-open-gate", |handler: &Arc<Handler>, _, _| {
            handler.gate.add_permits(1);
            ready("{}")
        })
        .allow_oob(),
        Row::new("panic-now", |_, _, _| panic!("as asked")),
        Row::new("panic-later", |_, _, _| {
            Ok(Box::pin(async {
                tokio::task::yield_now().await;
                panic!("as asked, later")
            }))
        }),
        // Emits events, then answers.
        Row::new("ticks", |handler, _, arguments| {
            let count = number(arguments, "count")?;
            let ballast = usize::try_from(number(arguments, "ballast").unwrap_or(0)).unwrap_or(0);
            for number in 0..count {
                handler.hub.emit(&Tick { number, ballast });
            }
            ready("{}")
        }),
        Row::new("silent", |_, _, _| ready("{}")).no_success_response(),
    ]
}

/// A server on a socket in a folder of its own.
pub struct TestServer {
    pub server: Server,
    pub handler: Arc<Handler>,
    pub path: PathBuf,
    folder: tempfile::TempDir,
}

impl TestServer {
    pub fn start() -> Self {
        TestServer::with_limits(ServerLimits::default())
    }

    pub fn with_limits(limits: ServerLimits) -> Self {
        TestServer::with(limits, None)
    }

    pub fn with(limits: ServerLimits, audit: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        let handler = Arc::new(Handler {
            stop: Stop::new(),
            hub: Arc::new(EventHub::new()),
            gate: Arc::new(Semaphore::new(0)),
            finished: AtomicUsize::new(0),
        });
        let table: CommandTable<Handler> = rows().into_iter().collect();
        let server = Server::builder(table, Arc::clone(&handler))
            .version(VERSION)
            .introspection(SCHEMA.as_bytes())
            .events(Arc::clone(&handler.hub))
            .stop(handler.stop.clone())
            .limits(limits)
            .audit(audit.map(|path| qapi_runtime::audit::AuditLog::open(path).unwrap()))
            .build();
        let listener = Listener::unix(&path, UnixOptions::default()).unwrap();
        let serve = server.clone();
        tokio::spawn(async move { serve.serve(listener, ListenOptions::default()).await });
        let events = server.clone();
        tokio::spawn(async move { events.run_events().await });
        TestServer {
            server,
            handler,
            path,
            folder,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client that has read its greeting.
    pub async fn connect(&self) -> Plain {
        let mut plain = Plain {
            stream: UnixStream::connect(&self.path).await.unwrap(),
            buffer: Vec::new(),
        };
        let greeting = plain.message().await;
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        plain
    }

    /// A client that has negotiated, with out-of-band execution or without.
    pub async fn negotiated(&self, oob: bool) -> Plain {
        let mut plain = self.connect().await;
        let enable = if oob { "[\"oob\"]" } else { "[]" };
        let text = format!("{{\"execute\": \"qmp_capabilities\", \"arguments\": {{\"enable\": {enable}}}}}");
        let reply = plain.call(&text).await;
        assert_eq!(reply["return"], serde_json::json!({}));
        plain
    }

    /// Waits until the server has so many clients.
    pub async fn wait_for_sessions(&self, sessions: usize) {
        for _ in 0..500 {
            if self.server.sessions() == sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} sessions instead of {sessions}", self.server.sessions());
    }
}

/// The introspection of the test server is a page of nothing much.
pub static SCHEMA: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let entries: Vec<String> = (0..2000)
        .map(|n| format!("{{\"name\": \"entity-{n}\", \"meta-type\": \"object\", \"members\": []}}"))
        .collect();
    format!("[{}]", entries.join(",\r\n"))
});

/// A client that takes the bytes as they come.
pub struct Plain {
    pub stream: UnixStream,
    pub buffer: Vec<u8>,
}

impl Plain {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next line, without its end; `None` at the end of the connection.
    pub async fn line(&mut self) -> Option<Vec<u8>> {
        let deadline = Duration::from_secs(20);
        let read = async {
            loop {
                if let Some(at) = self.buffer.iter().position(|&byte| byte == b'\n') {
                    let mut line: Vec<u8> = self.buffer.drain(..=at).collect();
                    assert!(line.ends_with(b"\r\n"), "{line:?}");
                    line.truncate(line.len() - 2);
                    return Some(line);
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => {
                        assert!(
                            self.buffer.is_empty(),
                            "cut off: {:?}",
                            String::from_utf8_lossy(&self.buffer)
                        );
                        return None;
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(deadline, read)
            .await
            .expect("nothing came in time")
    }

    pub async fn message(&mut self) -> Value {
        let line = self.line().await.expect("the server closed the connection");
        serde_json::from_slice(&line).unwrap()
    }

    /// Sends one request and takes one message.
    pub async fn call(&mut self, text: &str) -> Value {
        self.send(text).await;
        self.message().await
    }

    /// Nothing comes for a while.
    pub async fn silent(&mut self) {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(80), self.stream.read(&mut byte)).await;
        assert!(read.is_err() && self.buffer.is_empty(), "{read:?} {byte:?}");
    }
}
