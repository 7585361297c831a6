#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why and ends")]
//! NBD from outside: TLS with certificates made on the spot, the connection limit, the time a handshake may take, and
//! clients and servers of other people on both ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Daemon, have, run};

/// A certificate authority in a folder, and certificates that it signs.
struct Authority<'a> {
    folder: &'a Path,
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Path, name: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let this = Self { folder };
        this.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-keyout",
            "ca-key.pem",
            "-out",
            "ca-cert.pem",
        ]);
        this
    }

    fn openssl(&self, args: &[&str]) {
        let output = std::process::Command::new("openssl")
            .args(args)
            .current_dir(self.folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes `NAME-cert.pem` and `NAME-key.pem`.
    fn sign(&self, name: &str, usage: &str) {
        let (key, request, cert) = (
            format!("{name}-key.pem"),
            format!("{name}.csr"),
            format!("{name}-cert.pem"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        std::fs::write(
            self.folder.join("extensions"),
            format!("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n"),
        )
        .unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca-cert.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &cert,
        ]);
    }
}

#[test]
fn tls_lets_in_whom_the_authority_knows() {
    if !(have("openssl") && have("nbdinfo")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (pki, stranger) = (folder.path().join("pki"), folder.path().join("stranger"));
    let ours = Authority::new(&pki, "ours");
    ours.sign("server", "serverAuth");
    ours.sign("client", "clientAuth");
    let other = Authority::new(&stranger, "stranger");
    other.sign("client", "clientAuth");
    let daemon = Daemon::start(|_| {
        [
            "--object",
            &format!(
                "tls-creds-x509,id=tls,endpoint=server,dir={},verify-peer=on",
                pki.display()
            ),
            "--object",
            &format!("tls-creds-x509,id=client,endpoint=client,dir={}", pki.display()),
            "--object",
            &format!(
                "tls-creds-x509,id=lost,endpoint=client,dir={}",
                stranger.display()
            ),
            "--blockdev",
            "null-co,node-name=disk,size=1048576,read-zeroes=on",
        ]
        .map(str::to_owned)
        .to_vec()
    });
    let mut qmp = daemon.client();
    let socket = folder.path().join("nbd");
    qmp.ok(
        "nbd-server-start",
        json!({"id": "more", "addr": {"type": "unix", "data": {"path": socket}}, "tls-creds": "tls"}),
    );
    qmp.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "disk", "name": "e", "server": "more",
            "writable": true}),
    );
    let uri = |scheme: &str, certificates: Option<&Path>| {
        let mut uri = format!("{scheme}+unix:///e?socket={}", socket.display());
        if let Some(certificates) = certificates {
            uri.push_str(&format!(
                "&tls-certificates={}&tls-hostname=localhost",
                certificates.display()
            ));
        }
        uri
    };
    let nbdinfo = |uri: String| run("nbdinfo", &["--size", &uri]);
    let good = nbdinfo(uri("nbds", Some(&pki)));
    assert_eq!(
        String::from_utf8_lossy(&good.stdout).trim(),
        "1048576",
        "{good:?}"
    );
    // A client of another authority, one without a certificate, one in the clear.
    for bad in [uri("nbds", Some(&stranger)), uri("nbds", None), uri("nbd", None)] {
        let output = nbdinfo(bad.clone());
        assert!(!output.status.success(), "{bad}: {output:?}");
    }
    if have("qemu-io") {
        for (pki, works) in [(&pki, true), (&stranger, false)] {
            let output = run(
                "qemu-io",
                &[
                    "--object",
                    &format!("tls-creds-x509,id=t,endpoint=client,dir={}", pki.display()),
                    "--image-opts",
                    &format!(
                        "driver=nbd,server.type=unix,server.path={},export=e,tls-creds=t,tls-hostname=localhost",
                        socket.display()
                    ),
                    "-c",
                    "write -P 3 0 64k",
                    "-c",
                    "read 0 64k",
                ],
            );
            assert_eq!(output.status.success(), works, "{output:?}");
        }
    }
    // Our own client, in the same way.
    let node = |name: &str, credentials: &str| {
        json!({"driver": "nbd", "node-name": name, "export": "e", "tls-creds": credentials,
            "tls-hostname": "localhost", "server": {"type": "unix", "path": socket}})
    };
    qmp.ok("blockdev-add", node("remote", "client"));
    let error = qmp.fails("blockdev-add", node("refused", "lost"));
    assert!(!error.is_empty());
    qmp.ok("blockdev-del", json!({"node-name": "remote"}));
    // Keys that both ends know beforehand are another mechanism, which is not offered.
    let error = qmp.fails(
        "object-add",
        json!({"qom-type": "tls-creds-psk", "id": "psk", "endpoint": "server", "dir": pki}),
    );
    assert!(error.contains("tls-creds-psk"), "{error}");
    drop(qmp);
    let _ = daemon.quit();
}

#[test]
fn a_server_takes_so_many_clients_and_waits_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(|_| Vec::new());
    let mut qmp = daemon.client();
    let socket = folder.path().join("nbd");
    qmp.ok(
        "nbd-server-start",
        json!({"id": "more", "addr": {"type": "unix", "data": {"path": socket}}, "max-connections": 2,
            "handshake-max-seconds": 1}),
    );
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    };
    let greeted = |stream: &mut UnixStream| {
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).is_ok() && hello.starts_with(b"NBDMAGIC")
    };
    let (mut first, mut second, mut third) = (connect(), connect(), connect());
    assert!(greeted(&mut first) && greeted(&mut second));
    // The third is not even greeted, until there is room.
    assert!(!greeted(&mut third));
    // The first two never say anything: they are sent away after a second, and the third gets its turn.
    let began = Instant::now();
    first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    third.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(greeted(&mut third));
    drop(qmp);
    let _ = daemon.quit();
}

#[test]
fn an_export_may_name_a_bitmap_twice_and_lets_it_go_once() {
    let daemon = Daemon::start(|_| Vec::new());
    let mut qmp = daemon.client();
    qmp.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "a", "size": 65536}),
    );
    qmp.ok("block-dirty-bitmap-add", json!({"node": "a", "name": "b"}));
    qmp.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "a", "writable": true, "bitmaps": ["b", {"node": "a", "name": "b"}]}),
    );
    let busy = qmp.fails("block-dirty-bitmap-clear", json!({"node": "a", "name": "b"}));
    assert!(busy.contains("in use"), "{busy}");
    qmp.ok("block-export-del", json!({"id": "e"}));
    let deadline = Instant::now() + Duration::from_secs(20);
    while qmp.ok("query-block-exports", json!({})) != json!([]) {
        assert!(Instant::now() < deadline, "the export does not go");
        std::thread::sleep(Duration::from_millis(5));
    }
    qmp.ok("block-dirty-bitmap-clear", json!({"node": "a", "name": "b"}));
    // A bitmap of another disk says nothing about this one.
    qmp.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "longer", "size": 131_072}),
    );
    qmp.ok(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "target", "size": 131_072}),
    );
    let other = qmp.fails(
        "blockdev-add",
        json!({"driver": "copy-before-write", "node-name": "cbw", "file": "longer", "target": "target",
            "bitmap": {"node": "a", "name": "b"}}),
    );
    assert_eq!(
        other,
        "Cannot create block-copy-state: Failed to merge bitmap 'b' to internal copy-bitmap: Bitmaps are of \
         different sizes (destination size is 131072, source size is 65536) and can't be merged"
    );
    // A new bitmap has a name: told before its node is looked for.
    let nameless = qmp.fails("block-dirty-bitmap-add", json!({"node": "nobody", "name": ""}));
    assert_eq!(nameless, "Bitmap name cannot be empty");
    drop(qmp);
    let _ = daemon.quit();
}

#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(|_| {
        ["--blockdev", "null-co,node-name=disk,size=65536,read-zeroes=on"]
            .map(str::to_owned)
            .to_vec()
    });
    let mut qmp = daemon.client();
    let socket = folder.path().join("nbd");
    qmp.ok(
        "nbd-server-start",
        json!({"id": "more", "addr": {"type": "unix", "data": {"path": socket}}}),
    );
    qmp.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "disk", "name": "e", "server": "more",
            "writable": true}),
    );
    let options = |option: u32, len: u32, data: &[u8]| {
        let mut bytes = 3u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"IHAVEOPT");
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    };
    let go = options(7, 7, b"\0\0\0\x01e\0\0");
    let with = |request: &[u8]| [go.as_slice(), request].concat();
    let mut long_write = 0x2560_9513_u32.to_be_bytes().to_vec();
    long_write.extend_from_slice(&[0, 0, 0, 1]);
    long_write.extend_from_slice(&[9; 8]);
    long_write.extend_from_slice(&[0; 8]);
    long_write.extend_from_slice(&u32::MAX.to_be_bytes());
    for bytes in [
        vec![0xff; 4096],
        options(7, u32::MAX, b""),
        options(1, 1 << 20, &[b'x'; 8192]),
        options(7, 3, b"\0\0\0"),
        options(10, 12, &[0xff; 12]),
        options(5, 0, b""),
        with(&[0; 28]),
        with(&long_write),
        with(b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The server may hang up before it has read all.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"NBDMAGIC"));
        assert!(answer.len() < 4096, "{} bytes", answer.len());
    }
    if have("nbdinfo") {
        let output = run(
            "nbdinfo",
            &["--size", &format!("nbd+unix:///e?socket={}", socket.display())],
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "65536");
    }
    drop(qmp);
    let _ = daemon.quit();
}
