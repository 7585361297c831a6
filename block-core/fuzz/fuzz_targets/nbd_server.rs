//! Whatever a client sends, the NBD server neither panics nor answers without end, and its negotiation and its
//! requests read no more than was sent.
//!
//! The first byte chooses: parse a single piece of the protocol, or be a client of a real server on a null disk.

#![no_main]

use std::sync::Arc;

use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext};
use block_core::nbd::proto::{self, Request};
use block_core::nbd::{Export, ExportOptions, MultiConn, Server, ServerConfig};
use block_core::options::{DriverOptions, NodeOptions, NullOptions};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: Event) {}
}

async fn client(bytes: &[u8]) {
    let handle = tokio::runtime::Handle::current();
    let graph = Graph::new(GraphContext { handle: handle.clone(), events: Arc::new(Silent) });
    let options = NodeOptions {
        node_name: Some("disk".into()),
        driver: DriverOptions::NullCo(NullOptions { size: 1 << 20, ..NullOptions::default() }),
        ..NodeOptions::default()
    };
    let Ok(node) = graph.add(options).await else { return };
    let server = Server::new(ServerConfig::default(), handle);
    let export = Export::new(
        &graph,
        &node,
        ExportOptions {
            id: "e".into(),
            name: String::new(),
            description: None,
            writable: true,
            bitmaps: Vec::new(),
            allocation_depth: true,
            multi_conn: MultiConn::Auto,
            writethrough: false,
        },
    );
    if let Ok(export) = export {
        let _ = server.add(export);
    }
    let (mut stream, theirs) = tokio::io::duplex(1 << 16);
    server.serve(theirs);
    let _ = stream.write_all(&3u32.to_be_bytes()).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let receive = async {
        let mut sink = vec![0; 1 << 16];
        let mut total = 0usize;
        while let Ok(count @ 1..) = reader.read(&mut sink).await {
            total += count;
        }
        // Each request of 28 bytes can ask for 32 MiB at most.
        assert!(total <= (bytes.len() / 28 + 1).saturating_mul(33 << 20));
    };
    tokio::join!(send, receive);
    server.close().await;
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            let _ = Request::parse(bytes, false);
        }
        1 => {
            if let Ok(Some((request, size))) = Request::parse(bytes, true) {
                let mut again = Vec::new();
                request.encode(true, &mut again);
                assert_eq!(again, bytes[..size]);
            }
        }
        2 => {
            let _ = proto::parse_info(bytes);
        }
        3 => {
            let _ = proto::parse_contexts(bytes);
        }
        _ => {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                runtime.block_on(client(bytes));
            }
        }
    }
});
