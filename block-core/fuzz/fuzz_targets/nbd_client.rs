//! Whatever a server sends, the NBD client neither panics nor waits for more than was promised, and takes no memory
//! beyond what its own requests ask for.
//!
//! The first byte chooses: all of the negotiation is the input's, or it goes well and the input is what comes after it.

#![no_main]

use std::sync::Arc;

use block_core::driver::WriteFlags;
use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext};
use block_core::nbd::proto::{self, chunk, export_flag, info, option, reply};
use block_core::options::{DriverOptions, NbdAddress, NbdOptions, NodeOptions};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: Event) {}
}

/// A negotiation that goes well: what a server says to a client that asks for extended headers, structured replies
/// unless those were granted, a context, and the export.
fn greeting(extended: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&proto::INIT_MAGIC.to_be_bytes());
    out.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&3u16.to_be_bytes());
    if extended {
        proto::option_reply(&mut out, option::EXTENDED_HEADERS, reply::ACK, b"");
    } else {
        proto::option_reply(&mut out, option::EXTENDED_HEADERS, reply::ERR_UNSUP, b"");
        proto::option_reply(&mut out, option::STRUCTURED_REPLY, reply::ACK, b"");
    }
    let mut context = 1u32.to_be_bytes().to_vec();
    context.extend_from_slice(b"base:allocation");
    proto::option_reply(&mut out, option::SET_META_CONTEXT, reply::META_CONTEXT, &context);
    proto::option_reply(&mut out, option::SET_META_CONTEXT, reply::ACK, b"");
    let mut export = info::EXPORT.to_be_bytes().to_vec();
    export.extend_from_slice(&(1u64 << 20).to_be_bytes());
    let flags = export_flag::HAS_FLAGS | export_flag::SEND_FLUSH | export_flag::SEND_TRIM | export_flag::SEND_DF;
    export.extend_from_slice(&flags.to_be_bytes());
    proto::option_reply(&mut out, option::GO, reply::INFO, &export);
    proto::option_reply(&mut out, option::GO, reply::ACK, b"");
    out
}

async fn talk(kind: u8, bytes: &[u8], folder: &std::path::Path) {
    let socket = folder.join("socket");
    let _ = std::fs::remove_file(&socket);
    let Ok(listener) = tokio::net::UnixListener::bind(&socket) else { return };
    let mut says = match kind % 3 {
        0 => Vec::new(),
        1 => greeting(false),
        _ => greeting(true),
    };
    // A whole structured reply to the first request, so that there is something to go wrong in.
    if kind % 3 == 1 && kind & 64 != 0 {
        proto::chunk_header(&mut says, proto::ReplyMode::Structured, chunk::DONE, chunk::OFFSET_HOLE, 1, 0, 12);
        says.extend_from_slice(&0u64.to_be_bytes());
        says.extend_from_slice(&4096u32.to_be_bytes());
    }
    says.extend_from_slice(bytes);
    let server = tokio::spawn(async move {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (mut reader, mut writer) = stream.into_split();
        let send = async {
            let _ = writer.write_all(&says).await;
            drop(writer);
        };
        let receive = async {
            let mut sink = vec![0; 1 << 16];
            while let Ok(1..) = reader.read(&mut sink).await {}
        };
        tokio::join!(send, receive);
    });
    let graph = Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(Silent),
    });
    let options = NodeOptions {
        node_name: Some("remote".into()),
        driver: DriverOptions::Nbd(NbdOptions {
            server: NbdAddress::Unix(socket.to_string_lossy().into_owned()),
            export: None,
            tls_creds: None,
            tls_hostname: None,
            x_dirty_bitmap: None,
            reconnect_delay: 0,
            open_timeout: 0,
        }),
        auto_read_only: Some(true),
        ..NodeOptions::default()
    };
    if let Ok(node) = graph.add(options).await {
        let mut buffer = vec![0; 4096];
        let length = node.length();
        if length >= 8192 {
            let _ = node.read(0, &mut buffer).await;
            let _ = node.read(4096, &mut buffer).await;
            let _ = node.block_status(0, length, false).await;
            if !node.is_read_only() {
                let _ = node.write(0, &buffer, WriteFlags::default()).await;
            }
            let _ = node.flush().await;
        }
        let _ = graph.remove(&"remote".into()).await;
    }
    server.abort();
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let folder = std::env::temp_dir().join(format!("nbd-client-{}", std::process::id()));
    if std::fs::create_dir_all(&folder).is_err() {
        return;
    }
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(talk(*kind, bytes, &folder));
    }
});
