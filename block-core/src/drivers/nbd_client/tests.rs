use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::driver::{WriteFlags, ZeroFlags};
use crate::event::{Event, EventSink};
use crate::graph::{Graph, GraphContext, Node};
use crate::nbd::proto::{self, option, reply};
use crate::nbd::{Export, ExportOptions, MultiConn, Server, ServerConfig};
use crate::options::{DriverOptions, FileOptions, NbdAddress, NbdOptions, NodeOptions};

struct NoEvents;
impl EventSink for NoEvents {
    fn emit(&self, _event: Event) {}
}

fn graph() -> Arc<Graph> {
    Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(NoEvents),
    })
}

fn client(socket: &Path, export: &str, reconnect_delay: u32) -> NodeOptions {
    let driver = DriverOptions::Nbd(NbdOptions {
        server: NbdAddress::Unix(socket.to_str().unwrap().to_owned()),
        export: Some(export.to_owned()),
        tls_creds: None,
        tls_hostname: None,
        x_dirty_bitmap: None,
        reconnect_delay,
        open_timeout: 0,
    });
    NodeOptions {
        node_name: Some("remote".into()),
        discard_unmap: Some(true),
        driver,
        ..NodeOptions::default()
    }
}

struct Remote {
    graph: Arc<Graph>,
    node: Arc<Node>,
    folder: tempfile::TempDir,
}

impl Remote {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 64 << 20]).unwrap();
        let graph = graph();
        let driver = DriverOptions::File(FileOptions {
            filename: path.to_str().unwrap().to_owned(),
            ..FileOptions::default()
        });
        let node = graph
            .add(NodeOptions {
                node_name: Some("disk".into()),
                discard_unmap: Some(true),
                driver,
                ..NodeOptions::default()
            })
            .await
            .unwrap();
        Self { graph, node, folder }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("nbd")
    }

    /// A server, listening; it ends when its listener task is aborted and it is closed.
    fn serve(&self, writable: bool) -> (Arc<Server>, tokio::task::JoinHandle<()>) {
        let server = Server::new(ServerConfig::default(), tokio::runtime::Handle::current());
        let options = ExportOptions {
            id: "e".into(),
            name: "disk".to_owned(),
            description: None,
            writable,
            bitmaps: Vec::new(),
            allocation_depth: false,
            multi_conn: MultiConn::Auto,
            writethrough: false,
        };
        server
            .add(Export::new(&self.graph, &self.node, options).unwrap())
            .unwrap();
        let _ = std::fs::remove_file(self.socket());
        let listener = tokio::net::UnixListener::bind(self.socket()).unwrap();
        let accepting = Arc::clone(&server);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.serve(stream);
            }
        });
        (server, task)
    }
}

#[tokio::test]
async fn a_remote_disk_is_read_written_zeroed_and_mapped() {
    let remote = Remote::new().await;
    let (server, task) = remote.serve(true);
    let graph = graph();
    let node = graph.add(client(&remote.socket(), "disk", 0)).await.unwrap();
    assert_eq!(node.length(), 64 << 20);
    let data: Vec<u8> = (0..40u32 << 20)
        .map(|at| u8::try_from(at % 253).unwrap())
        .collect();
    // Longer than one request may be.
    node.write(
        4096,
        &data,
        WriteFlags {
            fua: true,
            ..WriteFlags::default()
        },
    )
    .await
    .unwrap();
    let mut back = vec![0; 40 << 20];
    node.read(4096, &mut back).await.unwrap();
    assert!(back == data);
    let unmap = ZeroFlags {
        may_unmap: true,
        ..ZeroFlags::default()
    };
    node.write_zeroes(48 << 20, 1 << 20, unmap).await.unwrap();
    node.discard(50 << 20, 1 << 20).await.unwrap();
    node.flush().await.unwrap();
    let status = node.block_status(48 << 20, 16 << 20, false).await.unwrap();
    assert!(status.zero, "{status:?}");
    let mut buf = [1; 4096];
    node.read(48 << 20, &mut buf).await.unwrap();
    assert_eq!(buf, [0; 4096]);
    let mut many = Vec::new();
    for at in 0..200u64 {
        let node = Arc::clone(&node);
        many.push(tokio::spawn(async move {
            let mut buf = [0; 512];
            node.read((60 << 20) + at * 512, &mut buf).await.unwrap();
            assert_eq!(buf, [7; 512]);
        }));
    }
    for one in many {
        one.await.unwrap();
    }
    graph.remove(&"remote".into()).await.unwrap();
    task.abort();
    server.close().await;
}

#[tokio::test]
async fn what_a_server_refuses_is_told() {
    let remote = Remote::new().await;
    let graph = graph();
    let socket = remote.socket();
    let error = graph.add(client(&socket, "disk", 0)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Failed to connect to '{}': No such file or directory",
            socket.display()
        )
    );
    let (server, task) = remote.serve(false);
    let error = graph.add(client(&socket, "zz", 0)).await.unwrap_err();
    assert_eq!(error.to_string(), "Requested export not available");
    let error = graph.add(client(&socket, "disk", 0)).await.unwrap_err();
    assert_eq!(error.to_string(), "Could not open image: Permission denied");
    let mut options = client(&socket, "disk", 0);
    options.auto_read_only = Some(true);
    let node = graph.add(options).await.unwrap();
    assert!(node.is_read_only());
    task.abort();
    server.close().await;
}

#[tokio::test]
async fn requests_outlive_a_lost_connection() {
    let remote = Remote::new().await;
    let (server, task) = remote.serve(true);
    let graph = graph();
    let node = graph.add(client(&remote.socket(), "disk", 20)).await.unwrap();
    node.write(0, &[1; 512], WriteFlags::default()).await.unwrap();
    task.abort();
    server.close().await;
    let pending = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.write(512, &[2; 512], WriteFlags::default()).await })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!pending.is_finished());
    let (server, task) = remote.serve(true);
    pending.await.unwrap().unwrap();
    let mut buf = [0; 1024];
    node.read(0, &mut buf).await.unwrap();
    assert_eq!((buf[0], buf[1023]), (1, 2));
    graph.remove(&"remote".into()).await.unwrap();

    // Without a delay they fail at once.
    let node = graph.add(client(&remote.socket(), "disk", 0)).await.unwrap();
    task.abort();
    server.close().await;
    assert_eq!(node.read(0, &mut buf).await.unwrap_err().errno(), 5);
}

/// A server that says all at once what it has to say, and leaves.
async fn says(folder: &Path, bytes: Vec<u8>) -> std::result::Result<u64, String> {
    let socket = folder.join("fake");
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let graph = graph();
    let result = match graph.add(client(&socket, "", 0)).await {
        Ok(node) => Ok(node.length()),
        Err(error) => Err(error.to_string()),
    };
    if result.is_ok() {
        graph.remove(&"remote".into()).await.unwrap();
    }
    server.abort();
    result
}

fn hello(flags: u16) -> Vec<u8> {
    let mut out = proto::INIT_MAGIC.to_be_bytes().to_vec();
    out.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

/// What an old server tells of its export.
fn old_export() -> Vec<u8> {
    let mut out = (1u64 << 20).to_be_bytes().to_vec();
    out.extend_from_slice(&1u16.to_be_bytes());
    out
}

/// A fixed newstyle server without structured replies, and what it answers then.
fn refuses_chunks(rest: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut out = hello(3);
    proto::option_reply(&mut out, option::EXTENDED_HEADERS, reply::ERR_UNSUP, b"");
    proto::option_reply(&mut out, option::STRUCTURED_REPLY, reply::ERR_UNSUP, b"");
    for (option, kind, data) in rest {
        proto::option_reply(&mut out, *option, *kind, data);
    }
    out
}

#[tokio::test]
async fn servers_of_every_age_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let length = Ok(1 << 20);
    let mut oldest = proto::INIT_MAGIC.to_be_bytes().to_vec();
    oldest.extend_from_slice(&proto::OLD_MAGIC.to_be_bytes());
    oldest.extend_from_slice(&(1u64 << 20).to_be_bytes());
    oldest.extend_from_slice(&1u32.to_be_bytes());
    oldest.extend_from_slice(&[0; 124]);
    assert_eq!(says(folder.path(), oldest).await, length);
    // Newstyle that is not fixed, with and without the zeroes.
    let mut bytes = hello(0);
    bytes.extend_from_slice(&old_export());
    bytes.extend_from_slice(&[0; 124]);
    assert_eq!(says(folder.path(), bytes).await, length);
    let mut bytes = hello(2);
    bytes.extend_from_slice(&old_export());
    assert_eq!(says(folder.path(), bytes).await, length);
    // One that does not know how to be asked for an export, and does or does not list them.
    let mut bytes = refuses_chunks(&[
        (option::GO, reply::ERR_UNSUP, b""),
        (option::LIST, reply::SERVER, b"\0\0\0\0"),
        (option::LIST, reply::ACK, b""),
    ]);
    bytes.extend_from_slice(&old_export());
    assert_eq!(says(folder.path(), bytes).await, length);
    let mut bytes = refuses_chunks(&[
        (option::GO, reply::ERR_UNSUP, b""),
        (option::LIST, reply::ERR_UNSUP, b""),
    ]);
    bytes.extend_from_slice(&old_export());
    assert_eq!(says(folder.path(), bytes).await, length);
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let eof = "Unexpected end-of-file before all data were read";
    let go = |kind, data| refuses_chunks(&[(option::GO, kind, data)]);
    let mut other_option = hello(3);
    proto::option_reply(&mut other_option, option::LIST, reply::ACK, b"");
    let mut with_data = hello(3);
    proto::option_reply(&mut with_data, option::EXTENDED_HEADERS, reply::ACK, b"x");
    let mut other_context = hello(3);
    proto::option_reply(&mut other_context, option::EXTENDED_HEADERS, reply::ACK, b"");
    let context = b"\0\0\0\x01base:other";
    proto::option_reply(
        &mut other_context,
        option::SET_META_CONTEXT,
        reply::META_CONTEXT,
        context,
    );
    let cases = [
        (b"NBD".to_vec(), format!("Failed to read initial magic: {eof}")),
        (
            b"XXXXXXXX".to_vec(),
            "Bad initial magic received: 0x5858585858585858".to_owned(),
        ),
        (
            b"NBDMAGIC".to_vec(),
            format!("Failed to read server magic: {eof}"),
        ),
        (hello(0), format!("Failed to read export length: {eof}")),
        (hello(3), format!("Failed to read option reply: {eof}")),
        (
            other_option,
            "Unexpected option type 3 (list), expected 11 (extended headers)".to_owned(),
        ),
        (
            with_data,
            "Option 11 ('extended headers') response length is 1 (it should be zero)".to_owned(),
        ),
        (
            other_context,
            "Failed to negotiate meta context 'base:allocation', server answered with different context \
             'base:other'"
                .to_owned(),
        ),
        (
            go(reply::ERR_POLICY, b"no"),
            "Denied by server for option 7 (go)".to_owned(),
        ),
        (
            go(reply::ERR_TLS_REQD, b""),
            "TLS negotiation required before option 7 (go)".to_owned(),
        ),
        (
            go(reply::ERR_UNKNOWN, b""),
            "Requested export not available".to_owned(),
        ),
        (
            go(reply::INFO, b"\0"),
            "NBD_REP_INFO length 1 is too short".to_owned(),
        ),
        (
            go(reply::INFO, b"\0\x03\0\0\0\x03\0\0\x10\0\0\0\x20\0"),
            "server minimum block size 3 is not a power of two".to_owned(),
        ),
        (
            go(reply::ACK, b""),
            "broken server omitted NBD_INFO_EXPORT".to_owned(),
        ),
        (
            go(reply::SERVER, b""),
            "Unexpected reply type 2 (server), expected 3 (info)".to_owned(),
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(says(folder.path(), bytes).await, Err(text));
    }
}

#[tokio::test]
async fn sockets_without_a_file_are_reached() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("block-core-test-{}", std::process::id());
    for tight in [true, false] {
        let mut bytes = name.as_bytes().to_vec();
        if !tight {
            bytes.resize(107, 0);
        }
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&bytes).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let server = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut says = hello(2);
            says.extend_from_slice(&old_export());
            std::io::Write::write_all(&mut stream, &says).unwrap();
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        });
        let graph = graph();
        let mut options = client(Path::new("/none"), "", 0);
        if let DriverOptions::Nbd(nbd) = &mut options.driver {
            nbd.server = NbdAddress::AbstractUnix {
                name: name.clone(),
                tight,
            };
        }
        assert_eq!(graph.add(options).await.unwrap().length(), 1 << 20);
        graph.remove(&"remote".into()).await.unwrap();
        server.await.unwrap();
    }
}
