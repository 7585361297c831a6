//! Any bytes to a whole session: every line it says is a JSON object, and it ends when the client ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qapi_runtime::{CommandTable, ListenOptions, Peer, Reply, Row, Server, text};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let echo = Row::new("echo", |_: &Arc<()>, _, arguments| {
            let mut out = Vec::new();
            match arguments {
                Some(arguments) => text::write_value(&mut out, arguments),
                None => out.extend_from_slice(b"{}"),
            }
            Ok(Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(Reply::Encoded(out))
            }))
        });
        let table: CommandTable<()> = [echo.allow_oob()].into_iter().collect();
        let server = Server::builder(table, Arc::new(())).build();
        let (near, far) = tokio::io::duplex(64);
        let session = server.attach(far, Peer::Other("fuzz".into()), ListenOptions::default());
        let (mut reader, mut writer) = tokio::io::split(near);
        let send = async move {
            writer.write_all(b"{'execute':'qmp_capabilities','arguments':{'enable':['oob']}}").await.unwrap();
            writer.write_all(data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut said = Vec::new();
        let ((), (), read) = tokio::join!(session, send, reader.read_to_end(&mut said));
        read.unwrap();
        for line in said.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            assert!(serde_json::from_slice::<serde_json::Value>(line).unwrap().is_object());
        }
    });
});
