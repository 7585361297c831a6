use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::proto::{self, Request, command, command_flag};
use super::{Export, ExportOptions, MultiConn, Server, ServerConfig};
use crate::event::{Event, EventSink};
use crate::graph::{Graph, GraphContext, Node};
use crate::options::{DriverOptions, FileOptions, NodeOptions, NodeRef, RawOptions};

struct NoEvents;
impl EventSink for NoEvents {
    fn emit(&self, _event: Event) {}
}

struct Setup {
    graph: Arc<Graph>,
    node: Arc<Node>,
    server: Arc<Server>,
    folder: tempfile::TempDir,
}

impl Setup {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd")
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }
}

async fn setup_in(folder: tempfile::TempDir, size: usize, config: ServerConfig, writable: bool) -> Setup {
    let handle = tokio::runtime::Handle::current();
    let graph = Graph::new(GraphContext {
        handle: handle.clone(),
        events: Arc::new(NoEvents),
    });
    let path = folder.path().join("disk");
    let content: Vec<u8> = (0..size)
        .map(|at| u8::try_from((at / 512) % 251).unwrap())
        .collect();
    std::fs::write(&path, content).unwrap();
    let file = NodeOptions {
        driver: DriverOptions::File(FileOptions {
            filename: path.to_str().unwrap().to_owned(),
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
    let node = graph.add(disk).await.unwrap();
    let server = Server::new(config, handle);
    let options = ExportOptions {
        id: "export".into(),
        name: "disk".to_owned(),
        description: Some("a disk".to_owned()),
        writable,
        bitmaps: Vec::new(),
        allocation_depth: true,
        writethrough: false,
        multi_conn: MultiConn::Auto,
    };
    server.add(Export::new(&graph, &node, options).unwrap()).unwrap();
    Setup {
        graph,
        node,
        server,
        folder,
    }
}

async fn setup(size: usize) -> Setup {
    setup_in(tempfile::tempdir().unwrap(), size, ServerConfig::default(), true).await
}

fn listen(setup: &Setup) {
    let listener = tokio::net::UnixListener::bind(setup.socket()).unwrap();
    let server = Arc::clone(&setup.server);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            server.serve(stream);
        }
    });
}

/// Runs a program that may not be installed; `None` says so.
async fn tool(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let (program, arguments) = (
        program.to_owned(),
        arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>(),
    );
    tokio::task::spawn_blocking(move || {
        let output = Command::new(&program)
            .args(&arguments)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) => {
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.push_str(&String::from_utf8_lossy(&output.stderr));
                Some((output.status.success(), text))
            }
            Err(_) => {
                eprintln!("SKIPPED: {program} is not installed");
                None
            }
        }
    })
    .await
    .unwrap()
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

struct Wire {
    stream: DuplexStream,
}

impl Wire {
    fn connect(setup: &Setup) -> Self {
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        setup.server.serve(theirs);
        Self { stream }
    }

    async fn hello(&mut self) {
        assert_eq!(self.stream.read_u64().await.unwrap(), proto::INIT_MAGIC);
        assert_eq!(self.stream.read_u64().await.unwrap(), proto::OPTION_MAGIC);
        assert_eq!(self.stream.read_u16().await.unwrap(), 3);
        self.stream.write_u32(3).await.unwrap();
    }

    async fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.stream.write_u64(proto::OPTION_MAGIC).await.unwrap();
        self.stream.write_u32(option).await.unwrap();
        self.stream
            .write_u32(u32::try_from(data.len()).unwrap())
            .await
            .unwrap();
        self.stream.write_all(data).await.unwrap();
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.stream.read_u64().await.unwrap(), proto::OPTION_REPLY_MAGIC);
            assert_eq!(self.stream.read_u32().await.unwrap(), option);
            let kind = self.stream.read_u32().await.unwrap();
            let len = self.stream.read_u32().await.unwrap();
            let mut data = vec![0; usize::try_from(len).unwrap()];
            self.stream.read_exact(&mut data).await.unwrap();
            replies.push((kind, data));
            if kind == proto::reply::ACK || kind >> 31 == 1 {
                return replies;
            }
        }
    }

    async fn go(&mut self, name: &str) -> Vec<(u32, Vec<u8>)> {
        self.option(proto::option::GO, &info_data(name)).await
    }

    async fn send(&mut self, request: Request) {
        let mut bytes = Vec::new();
        request.encode(false, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// A simple reply's errno and cookie.
    async fn simple(&mut self) -> (u32, u64) {
        assert_eq!(self.stream.read_u32().await.unwrap(), proto::SIMPLE_REPLY_MAGIC);
        (
            self.stream.read_u32().await.unwrap(),
            self.stream.read_u64().await.unwrap(),
        )
    }
}

fn info_data(name: &str) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&[0, 0]);
    data
}

fn request(command: u16, offset: u64, len: u64) -> Request {
    Request {
        flags: 0,
        command,
        cookie: offset + 1,
        offset,
        len,
    }
}

#[tokio::test]
async fn requests_may_come_in_one_piece_or_byte_by_byte() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    assert_eq!(wire.go("disk").await.last().unwrap().0, proto::reply::ACK);
    let mut bytes = Vec::new();
    for at in 0..4 {
        request(command::WRITE, at * 512, 512).encode(false, &mut bytes);
        bytes.extend_from_slice(&[9; 512]);
    }
    let (first, rest) = bytes.split_at(700);
    wire.stream.write_all(first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    for byte in rest {
        wire.stream.write_all(&[*byte]).await.unwrap();
    }
    // Replies come in any order.
    let mut cookies = Vec::new();
    for _ in 0..4 {
        let (errno, cookie) = wire.simple().await;
        assert_eq!(errno, 0);
        cookies.push(cookie);
    }
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 513, 1025, 1537]);
    wire.send(request(command::READ, 0, 4096)).await;
    assert_eq!(wire.simple().await, (0, 1));
    let mut data = vec![0; 4096];
    wire.stream.read_exact(&mut data).await.unwrap();
    assert_eq!(data[..2048], [9; 2048]);
    assert_eq!(data[2048..2560], [4; 512]);
}

#[tokio::test]
async fn bad_requests_are_refused_one_by_one() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    wire.go("disk").await;
    let end = 1 << 20;
    for (request, errno) in [
        (request(command::READ, end, 512), 22),
        (request(command::READ, u64::MAX - 10, 512), 22),
        (request(command::READ, 0, 33 << 20), 22),
        (request(command::WRITE_ZEROES, end - 512, 1024), 22),
        (request(command::TRIM, end, 512), 22),
        (request(99, 0, 0), 22),
        (request(command::RESIZE, 0, 512), 22),
        (request(command::BLOCK_STATUS, 0, 512), 22),
        (
            Request {
                flags: command_flag::NO_HOLE,
                ..request(command::READ, 0, 512)
            },
            22,
        ),
        (request(command::FLUSH, 0, 0), 0),
    ] {
        wire.send(request).await;
        assert_eq!(wire.simple().await, (errno, request.cookie), "{request:?}");
    }
    // A write past the end: its payload is taken, so that the next request is understood.
    wire.send(request(command::WRITE, end - 100, 512)).await;
    wire.stream.write_all(&[1; 512]).await.unwrap();
    assert_eq!(wire.simple().await.0, 22);
    wire.send(request(command::WRITE, end - 100, 1 << 19)).await;
    wire.stream.write_all(&vec![1; 1 << 19]).await.unwrap();
    assert_eq!(wire.simple().await.0, 22);
    wire.send(request(command::DISC, 0, 0)).await;
    assert_eq!(wire.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn options_that_are_wrong_leave_the_negotiation_alive() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    let refused = |replies: Vec<(u32, Vec<u8>)>| replies.last().unwrap().0;
    assert_eq!(refused(wire.option(77, b"abc").await), proto::reply::ERR_UNSUP);
    assert_eq!(
        refused(wire.option(proto::option::LIST, b"x").await),
        proto::reply::ERR_INVALID
    );
    assert_eq!(
        refused(wire.option(proto::option::STARTTLS, b"").await),
        proto::reply::ERR_POLICY
    );
    assert_eq!(
        refused(wire.option(proto::option::INFO, b"\0\0\0\xff").await),
        proto::reply::ERR_INVALID
    );
    assert_eq!(
        refused(wire.option(proto::option::INFO, &vec![0; 100_000]).await),
        proto::reply::ERR_TOO_BIG
    );
    assert_eq!(refused(wire.go("nothing").await), proto::reply::ERR_UNKNOWN);
    let list = wire.option(proto::option::LIST, b"").await;
    assert_eq!(list[0].1, b"\0\0\0\x04diska disk");
    assert_eq!(
        refused(wire.option(proto::option::EXTENDED_HEADERS, b"").await),
        proto::reply::ACK
    );
    assert_eq!(
        refused(wire.option(proto::option::STRUCTURED_REPLY, b"").await),
        proto::reply::ERR_EXT_HEADER_REQD
    );
    assert_eq!(
        refused(wire.option(proto::option::ABORT, b"").await),
        proto::reply::ACK
    );
    assert_eq!(wire.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_wrong_with_an_option_is_told() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    let cases: [(u32, &[u8], &str); 12] = [
        (4, b"", "Unsupported option 4 (<unknown>)"),
        (6, b"", "Inconsistent lengths in option info"),
        (6, b"\0\0\0\x05d", "Inconsistent lengths in option info"),
        (6, b"\0\0\x20\0d\0\0", "Invalid name length: 8192"),
        (6, b"\0\0\0\x04disk\0\0\0", "option 'info' has unexpected length"),
        (
            7,
            b"\0\0\0\x02\xff\xfe\0\0",
            "export '\u{fffd}\u{fffd}' not present",
        ),
        (8, b"x", "option 'structured reply' has unexpected length"),
        (9, b"\0\0\0\x02no", "export 'no' not present"),
        (
            9,
            b"\0\0\0\x04disk\0\0\0\x02\0\0\0\0",
            "Inconsistent lengths in option list meta context",
        ),
        (
            9,
            b"\0\0\0\x04disk\xff\xff\xff\xff",
            "Inconsistent lengths in option list meta context",
        ),
        (
            10,
            b"\0\0\0\x04disk\0\0\0\0",
            "request option 'set meta context' when structured reply is not negotiated",
        ),
        (11, b"x", "option 'extended headers' has unexpected length"),
    ];
    for (option, data, text) in cases {
        let (kind, said) = wire.option(option, data).await.pop().unwrap();
        assert_eq!(kind >> 31, 1, "{option} {data:?}");
        assert_eq!(String::from_utf8_lossy(&said), text, "{option} {data:?}");
    }
    // Queries may be of any length and any bytes; unknown ones are passed over.
    let mut odd = b"\0\0\0\x04disk\0\0\0\x02\0\0\x20\0".to_vec();
    odd.extend_from_slice(&[0xff; 0x2000]);
    odd.extend_from_slice(b"\0\0\0\x0fbase:allocation");
    let listed = wire.option(9, &odd).await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].1, b"\0\0\0\0base:allocation");
}

#[tokio::test]
async fn an_old_client_may_only_name_its_export() {
    let setup = setup(1 << 20).await;
    for (option, allowed) in [(proto::option::LIST, false), (proto::option::EXPORT_NAME, true)] {
        let mut wire = Wire::connect(&setup);
        let mut hello = [0; 18];
        wire.stream.read_exact(&mut hello).await.unwrap();
        wire.stream.write_all(&0u32.to_be_bytes()).await.unwrap();
        let name: &[u8] = if allowed { b"disk" } else { b"" };
        let mut request = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        request.extend_from_slice(&option.to_be_bytes());
        request.extend_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
        request.extend_from_slice(name);
        wire.stream.write_all(&request).await.unwrap();
        let mut answer = [0; 134];
        let read = wire.stream.read_exact(&mut answer).await;
        assert_eq!(read.is_ok(), allowed);
        if allowed {
            assert_eq!(answer[..8], (1u64 << 20).to_be_bytes());
            assert_eq!(answer[10..], [0; 124]);
        }
    }
}

#[tokio::test]
async fn a_stream_out_of_step_is_answered_once_and_closed() {
    let setup = setup(1 << 20).await;
    let request = Request {
        flags: 0,
        command: command::WRITE,
        cookie: 7,
        offset: 0,
        len: (32 << 20) + 1,
    };
    for bad_magic in [false, true] {
        let mut wire = Wire::connect(&setup);
        wire.hello().await;
        wire.option(proto::option::STRUCTURED_REPLY, b"").await;
        wire.go("disk").await;
        let mut bytes = Vec::new();
        request.encode(false, &mut bytes);
        if bad_magic {
            bytes[0] ^= 1;
        }
        wire.stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        wire.stream.read_to_end(&mut answer).await.unwrap();
        let text = if bad_magic {
            "invalid magic (got 0x24609513, expected 0x25609513)"
        } else {
            "len (33554433) is larger than max len (33554432)"
        };
        assert_eq!(answer[8..16], 7u64.to_be_bytes());
        assert_eq!(answer[20..24], 22u32.to_be_bytes());
        assert_eq!(String::from_utf8_lossy(&answer[26..]), text);
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_sent_away() {
    let config = ServerConfig {
        handshake_timeout: Some(Duration::from_millis(50)),
        ..ServerConfig::default()
    };
    let setup = setup_in(tempfile::tempdir().unwrap(), 1 << 20, config, true).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    assert_eq!(setup.server.connections(), 1);
    assert_eq!(wire.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn closing_an_export_waits_for_its_clients_and_frees_the_node() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    wire.go("disk").await;
    let export = setup.server.remove("disk").unwrap();
    assert_eq!(export.clients(), 1);
    export.close().await;
    assert_eq!(export.clients(), 0);
    assert_eq!(wire.stream.read(&mut [0; 1]).await.unwrap(), 0);
    setup.graph.remove(&"disk".into()).await.unwrap();
}

#[tokio::test]
async fn a_drain_holds_requests_of_clients() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    wire.go("disk").await;
    let guard = setup.graph.drain(std::slice::from_ref(&setup.node)).await;
    wire.send(request(command::READ, 0, 512)).await;
    wire.send(request(command::FLUSH, 1, 0)).await;
    let mut byte = [0; 1];
    assert!(
        tokio::time::timeout(Duration::from_millis(50), wire.stream.read(&mut byte))
            .await
            .is_err()
    );
    drop(guard);
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let (errno, cookie) = wire.simple().await;
        assert_eq!(errno, 0);
        if cookie == 1 {
            wire.stream.read_exact(&mut [0; 512]).await.unwrap();
        }
        cookies.push(cookie);
    }
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_agree() {
    let setup = setup(8 << 20).await;
    listen(&setup);
    let uri = setup.uri();
    if let Some((ok, text)) = tool("nbdinfo", &[&uri]).await {
        assert!(ok, "{text}");
        for line in [
            "export-size: 8388608",
            "can_multi_conn: true",
            "can_fast_zero: true",
            "base:allocation",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    let writes = [
        "-c",
        "write -P 7 1M 64k",
        "-c",
        "write -z 2M 1M",
        "-c",
        "discard 4M 1M",
        "-c",
        "flush",
    ];
    let reads = [
        "-c",
        "read -P 7 1M 64k",
        "-c",
        "read -P 0 2M 1M",
        "-c",
        "write -f -P 9 5M 3M",
        "-c",
        "aio_read 0 4M",
    ];
    let mut all = vec!["-f", "raw"];
    all.extend(writes);
    all.extend(reads);
    all.push(&uri);
    if let Some((ok, text)) = tool("qemu-io", &all).await {
        assert!(ok && !text.contains("failed"), "{text}");
    }
    let copy = setup.folder.path().join("copy");
    if let Some((ok, text)) = tool("nbdcopy", &[&uri, copy.to_str().unwrap()]).await {
        assert!(ok, "{text}");
        assert!(same(&setup.disk(), &copy));
    }
    if let Some((ok, text)) = tool("nbdinfo", &["--map", &uri]).await {
        assert!(ok, "{text}");
        assert!(text.contains("data") && text.contains("zero"), "{text}");
    }
    if let Some((ok, text)) = tool("nbdinfo", &["--map=qemu:allocation-depth", &uri]).await {
        assert!(ok, "{text}");
        assert_eq!(
            text.split_whitespace().take(4).collect::<Vec<_>>(),
            ["0", "8388608", "1", "local"]
        );
    }
    let image = setup.folder.path().join("image.qcow2");
    let convert = [
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        &uri,
        image.to_str().unwrap(),
    ];
    if let Some((ok, text)) = tool("qemu-img", &convert).await {
        assert!(ok, "{text}");
        let compare = [
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            &uri,
            image.to_str().unwrap(),
        ];
        let (ok, text) = tool("qemu-img", &compare).await.unwrap();
        assert!(ok, "{text}");
    }
    setup.server.close().await;
    assert_eq!(setup.server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_export_refuses_writes() {
    let setup = setup_in(
        tempfile::tempdir().unwrap(),
        1 << 20,
        ServerConfig::default(),
        false,
    )
    .await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    wire.go("disk").await;
    wire.send(request(command::WRITE, 0, 512)).await;
    wire.stream.write_all(&[1; 512]).await.unwrap();
    assert_eq!(wire.simple().await, (22, 1));
    wire.send(request(command::TRIM, 0, 512)).await;
    assert_eq!(wire.simple().await, (22, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_changes_the_length() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    let info = wire.go("disk").await;
    let main = &info.iter().find(|(_, data)| data.starts_with(&[0, 0])).unwrap().1;
    let flags = u16::from_be_bytes([main[10], main[11]]);
    assert!(flags & proto::export_flag::SEND_RESIZE != 0);
    wire.send(request(command::RESIZE, 2 << 20, 0)).await;
    assert_eq!(wire.simple().await.0, 0);
    assert_eq!(setup.node.length(), 2 << 20);
    wire.send(request(command::READ, (2 << 20) - 512, 512)).await;
    assert_eq!(wire.simple().await.0, 0);
    let mut data = [1; 512];
    wire.stream.read_exact(&mut data).await.unwrap();
    assert_eq!(data, [0; 512]);
    // Nobody else may, as long as the export is there.
    assert!(setup.graph.resize(&setup.node, 1 << 20).await.is_err());
    wire.send(request(command::RESIZE, 1 << 63, 0)).await;
    assert_eq!(wire.simple().await.0, 22);
    wire.send(request(command::RESIZE, 1 << 20, 0)).await;
    assert_eq!(wire.simple().await.0, 0);
    assert_eq!(std::fs::metadata(setup.disk()).unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn a_payload_chooses_among_the_contexts_of_block_status() {
    let setup = setup(1 << 20).await;
    let mut wire = Wire::connect(&setup);
    wire.hello().await;
    assert_eq!(
        wire.option(proto::option::EXTENDED_HEADERS, b"").await,
        [(proto::reply::ACK, Vec::new())]
    );
    let mut query = 4u32.to_be_bytes().to_vec();
    query.extend_from_slice(b"disk");
    query.extend_from_slice(&2u32.to_be_bytes());
    for name in ["base:allocation", "qemu:allocation-depth"] {
        query.extend_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
        query.extend_from_slice(name.as_bytes());
    }
    let replies = wire.option(proto::option::SET_META_CONTEXT, &query).await;
    let ids: Vec<u32> = replies[..2]
        .iter()
        .map(|(_, data)| u32::from_be_bytes(data[..4].try_into().unwrap()))
        .collect();
    wire.go("disk").await;
    let ask = |len: u64, ids: &[u32]| {
        let mut payload = len.to_be_bytes().to_vec();
        ids.iter()
            .for_each(|id| payload.extend_from_slice(&id.to_be_bytes()));
        let mut bytes = Vec::new();
        Request {
            flags: command_flag::PAYLOAD_LEN,
            ..request(command::BLOCK_STATUS, 4096, payload.len() as u64)
        }
        .encode(true, &mut bytes);
        bytes.extend_from_slice(&payload);
        bytes
    };
    wire.stream.write_all(&ask(8192, &ids[1..])).await.unwrap();
    let mut head = [0; 32];
    wire.stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], 0x6e8a_278c_u32.to_be_bytes());
    // The last chunk, of extended block status.
    assert_eq!(head[4..8], [0, 1, 0, 6]);
    let len = u64::from_be_bytes(head[24..].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    wire.stream.read_exact(&mut payload).await.unwrap();
    assert_eq!(payload[..4], ids[1].to_be_bytes());
    assert_eq!(payload[8..16], 8192u64.to_be_bytes());
    // A context that was not negotiated, none at all, a range past the end, a payload cut short.
    let mut bad = vec![ask(512, &[99]), ask(512, &[]), ask(1 << 20, &ids)];
    let mut short = Vec::new();
    Request {
        flags: command_flag::PAYLOAD_LEN,
        ..request(command::BLOCK_STATUS, 4096, 5)
    }
    .encode(true, &mut short);
    short.extend_from_slice(&[0; 5]);
    bad.push(short);
    for bytes in bad {
        wire.stream.write_all(&bytes).await.unwrap();
        wire.stream.read_exact(&mut head).await.unwrap();
        // An error chunk, the last one.
        assert_eq!(head[4..8], [0, 1, 0x80, 1]);
        let len = u64::from_be_bytes(head[24..].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        wire.stream.read_exact(&mut payload).await.unwrap();
        assert_eq!(payload[..4], 22u32.to_be_bytes());
    }
}
