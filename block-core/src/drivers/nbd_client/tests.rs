use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{WriteFlags, ZeroFlags};
use crate::event::{Event, EventSink};
use crate::graph::{Graph, GraphContext, Node};
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
    assert_eq!(
        error.to_string(),
        "request on write denied without write permission"
    );
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
