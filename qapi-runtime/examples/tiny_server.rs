//! A server with a handful of hand-written commands: what the generated code of a schema comes down to.
//!
//! `cargo run -p qapi-runtime --example tiny_server -- /tmp/tiny.sock`, then
//! `socat - UNIX:/tmp/tiny.sock` and `{"execute": "qmp_capabilities"}`.

use qapi_runtime::{
    CommandTable, Error, ListenOptions, Listener, Pending, Reply, Row, Server, Stop, UnixOptions,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const VERSION: &str = r#"{"qemu": {"micro": 0, "minor": 0, "major": 1}, "package": "tiny"}"#;

struct Tiny {
    stop: Stop,
}

fn ready(value: impl Into<Vec<u8>>) -> Result<Pending, Error> {
    let reply = Reply::Encoded(value.into());
    Ok(Box::pin(async move { Ok(reply) }))
}

fn rows() -> Vec<Row<Tiny>> {
    let row = Row::new;
    vec![
        row("query-version", |_, _, _| ready(VERSION)),
        row("quit", |tiny, _, _| {
            tiny.stop.request();
            ready("{}")
        }),
        row("sleep", |_, _, arguments| {
            let milliseconds = arguments
                .and_then(|arguments| arguments.members().find(|(key, _)| *key == "ms"))
                .and_then(|(_, value)| match value.token() {
                    qapi_runtime::Token::Int(value) => u64::try_from(value).ok(),
                    _ => None,
                })
                .ok_or_else(|| Error::generic("Parameter 'ms' is missing"))?;
            Ok(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Reply::Encoded(b"{}".to_vec()))
            }))
        }),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of a socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = Stop::new();
        let mut table = CommandTable::new();
        table.extend(rows());
        let tiny = Arc::new(Tiny { stop: stop.clone() });
        let server = Server::builder(table, tiny).version(VERSION).stop(stop).build();
        let listener = Listener::unix(Path::new(&path), UnixOptions::default())?;
        server.serve(listener, ListenOptions::default()).await;
        server.finish(Duration::from_secs(1)).await;
        Ok(())
    })
}
