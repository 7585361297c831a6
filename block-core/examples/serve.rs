//! The smallest program around the block core: exports a raw file over NBD on a unix socket.
//!
//! `cargo run -p block-core --example serve -- FILE SOCKET`

use std::error::Error;
use std::sync::Arc;

use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext};
use block_core::nbd::{Export, ExportOptions, MultiConn, Server, ServerConfig};
use block_core::options::{DriverOptions, FileOptions, NodeOptions, NodeRef, RawOptions};

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: Event) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve FILE SOCKET".into());
    };
    let handle = tokio::runtime::Handle::current();
    let graph = Graph::new(GraphContext {
        handle: handle.clone(),
        events: Arc::new(Silent),
    });
    let file = NodeOptions {
        driver: DriverOptions::File(FileOptions {
            filename: file,
            ..FileOptions::default()
        }),
        ..NodeOptions::default()
    };
    let disk = NodeOptions {
        node_name: Some("disk".into()),
        discard_unmap: Some(true),
        driver: DriverOptions::Raw(RawOptions {
            file: NodeRef::Options(Box::new(file)),
            offset: 0,
            size: None,
        }),
        ..NodeOptions::default()
    };
    let node = graph.add(disk).await?;
    let server = Server::new(ServerConfig::default(), handle);
    server.add(Export::new(
        &graph,
        &node,
        ExportOptions {
            id: "export".into(),
            name: "disk".to_owned(),
            description: None,
            writable: true,
            bitmaps: Vec::new(),
            allocation_depth: true,
            writethrough: false,
            multi_conn: MultiConn::Auto,
        },
    )?)?;
    let listener = tokio::net::UnixListener::bind(socket)?;
    loop {
        server.ready().await;
        let (stream, _) = listener.accept().await?;
        server.serve(stream);
    }
}
