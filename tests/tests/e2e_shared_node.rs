#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why and ends")]
//! Everything at once on one node: three writable exports, one of them with a bitmap, several clients with many requests in
//! flight, a backup that starts in the middle, a crash at the end. A model says what every byte must be.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use serde_json::json;
use tests::{Daemon, PATIENCE, have, run_ok};

const DISK: usize = 16 << 20;
const CLIENTS: usize = 4;
/// Each client has a part of the disk of its own, so that what it reads is known.
const PART: usize = DISK / CLIENTS;
const BLOCK: usize = 4096;
const DEPTH: usize = 8;
/// Rounds before and after the start of the backup.
const ROUNDS: usize = 40;

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const ZEROES: u16 = 6;
const FUA: u16 = 1;

/// A client of the plainest kind: simple replies, many requests in flight.
struct Client {
    stream: UnixStream,
    next: u64,
}

impl Client {
    fn connect(socket: &Path, export: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        let mut out = 3u32.to_be_bytes().to_vec();
        out.extend_from_slice(b"IHAVEOPT\0\0\0\x01");
        out.extend_from_slice(&u32::try_from(export.len()).unwrap().to_be_bytes());
        out.extend_from_slice(export.as_bytes());
        stream.write_all(&out).unwrap();
        let mut told = [0; 10];
        stream.read_exact(&mut told).unwrap();
        assert_eq!(told[..8], (DISK as u64).to_be_bytes());
        Self { stream, next: 1 }
    }

    fn send(&mut self, command: u16, flags: u16, offset: usize, len: usize, payload: &[u8]) -> u64 {
        let cookie = self.next;
        self.next += 1;
        let mut out = 0x2560_9513_u32.to_be_bytes().to_vec();
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&command.to_be_bytes());
        out.extend_from_slice(&cookie.to_be_bytes());
        out.extend_from_slice(&(offset as u64).to_be_bytes());
        out.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        out.extend_from_slice(payload);
        self.stream.write_all(&out).unwrap();
        cookie
    }

    /// The next reply: whose it is. It must be a success.
    fn reply(&mut self) -> u64 {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        assert_eq!(header[..4], 0x6744_6698_u32.to_be_bytes());
        assert_eq!(header[4..8], [0; 4], "a request failed");
        u64::from_be_bytes(header[8..].try_into().unwrap())
    }

    fn data(&mut self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data).unwrap();
        data
    }

    fn one(&mut self, command: u16, flags: u16, offset: usize, len: usize, payload: &[u8]) {
        let cookie = self.send(command, flags, offset, len, payload);
        assert_eq!(self.reply(), cookie);
    }

    fn read(&mut self, offset: usize, len: usize) -> Vec<u8> {
        self.one(READ, 0, offset, len, b"");
        self.data(len)
    }
}

/// Small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// What a part of the disk must hold, and which of it was changed.
struct Part {
    start: usize,
    content: Vec<u8>,
    touched: Vec<bool>,
}

impl Part {
    fn set(&mut self, at: usize, len: usize, value: u8) {
        self.content[at..at + len].fill(value);
        self.touched[at / BLOCK..(at + len).div_ceil(BLOCK)].fill(true);
    }
}

/// One round: as many requests as fit in flight, no two at the same place.
fn round(client: &mut Client, part: &mut Part, random: &mut Random) {
    let slot = PART / DEPTH;
    let mut waiting = HashMap::new();
    for index in 0..DEPTH {
        // A place inside of its slot, mostly not at the edge of a block.
        let at = index * slot + random.below(slot - 3 * BLOCK);
        let len = 1 + random.below(3 * BLOCK - 1);
        let offset = part.start + at;
        let kind = random.below(10);
        let value = u8::try_from(1 + random.below(250)).unwrap();
        let cookie = match kind {
            0..4 => {
                let flags = if kind == 0 { FUA } else { 0 };
                client.send(WRITE, flags, offset, len, &vec![value; len])
            }
            4 | 5 => client.send(ZEROES, 0, offset, len, b""),
            6 => client.send(TRIM, 0, offset / BLOCK * BLOCK, BLOCK, b""),
            _ => client.send(READ, 0, offset, len, b""),
        };
        waiting.insert(cookie, (kind, at, len, value));
    }
    while !waiting.is_empty() {
        let cookie = client.reply();
        let (kind, at, len, value) = waiting.remove(&cookie).unwrap();
        match kind {
            0..4 => part.set(at, len, value),
            4 | 5 => part.set(at, len, 0),
            6 => {
                // A trim leaves the old bytes or zeroes: which of them is read back.
                let at = (part.start + at) / BLOCK * BLOCK - part.start;
                part.touched[at / BLOCK] = true;
                part.content[at..at + BLOCK].fill(0xff);
            }
            _ => {
                let data = client.data(len);
                assert!(data == part.content[at..at + len], "at {at}, {len} bytes");
            }
        }
    }
    // Trimmed blocks are written, so that their content is known again.
    for index in 0..DEPTH {
        let within = part.content[index * slot..(index + 1) * slot]
            .chunks(BLOCK)
            .position(|block| block.iter().all(|byte| *byte == 0xff));
        if let Some(block) = within {
            let at = index * slot + block * BLOCK;
            client.one(WRITE, 0, part.start + at, BLOCK, &[1; BLOCK]);
            part.set(at, BLOCK, 1);
        }
    }
    if random.below(4) == 0 {
        client.one(FLUSH, 0, 0, 0, b"");
    }
}

fn whole(parts: &[Arc<Mutex<Part>>]) -> Vec<u8> {
    let mut all = Vec::with_capacity(DISK);
    for part in parts {
        all.extend_from_slice(&part.lock().unwrap().content);
    }
    all
}

fn differing(a: &[u8], b: &[u8]) -> Vec<usize> {
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate();
    blocks.filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect()
}

/// The bitmap that an export shows has every change, and nothing that lies far from any.
fn check_bitmap(uri: &str, parts: &[Arc<Mutex<Part>>]) {
    const GRANULARITY: usize = 65536;
    let text = run_ok("nbdinfo", &["--map=qemu:dirty-bitmap:changes", "--json", uri]);
    let extents: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut dirty = vec![false; DISK / GRANULARITY];
    for extent in extents.as_array().unwrap() {
        let number = |name: &str| usize::try_from(extent[name].as_u64().unwrap()).unwrap();
        let start = number("offset") / GRANULARITY;
        dirty[start..start + number("length") / GRANULARITY].fill(extent["type"] == 1);
    }
    let touched: Vec<bool> = parts
        .iter()
        .flat_map(|part| part.lock().unwrap().touched.clone())
        .collect();
    let blocks = GRANULARITY / BLOCK;
    let expected: Vec<bool> = touched.chunks(blocks).map(|all| all.contains(&true)).collect();
    assert_eq!(dirty, expected);
}

#[test]
fn exports_jobs_and_clients_share_a_node() {
    if !have("qemu-img") {
        return;
    }
    let seed = 0x5eed_0000_1234_5678_u64;
    eprintln!("seed {seed:#x}");
    let arguments = |folder: &Path| {
        let node = |name: &str, format: &str| {
            format!(
                "{{\"driver\": \"{format}\", \"node-name\": \"{name}\", \"discard\": \"unmap\", \"file\": \
                 {{\"driver\": \"file\", \"filename\": \"{}\", \"discard\": \"unmap\"}}}}",
                folder.join(name).display()
            )
        };
        let mut arguments = vec!["--blockdev".to_owned(), node("disk", "qcow2")];
        arguments.extend(["--blockdev".to_owned(), node("target", "raw")]);
        arguments
    };
    let mut daemon = Daemon::start(|folder| {
        let size = DISK.to_string();
        for (format, name) in [("qcow2", "disk"), ("raw", "target")] {
            let path = folder.join(name);
            run_ok(
                "qemu-img",
                &["create", "-q", "-f", format, path.to_str().unwrap(), &size],
            );
        }
        arguments(folder)
    });
    let socket = daemon.folder().join("nbd");
    let mut qmp = daemon.client();
    qmp.ok(
        "block-dirty-bitmap-add",
        json!({"node": "disk", "name": "changes", "granularity": 65536}),
    );
    for (name, bitmaps) in [("a", json!([])), ("b", json!([])), ("map", json!(["changes"]))] {
        qmp.ok(
            "block-export-add",
            json!({"type": "nbd", "id": name, "node-name": "disk", "name": name, "writable": true,
                "bitmaps": bitmaps}),
        );
    }
    let parts: Vec<Arc<Mutex<Part>>> = (0..CLIENTS)
        .map(|index| {
            Arc::new(Mutex::new(Part {
                start: index * PART,
                content: vec![0; PART],
                touched: vec![false; PART / BLOCK],
            }))
        })
        .collect();
    // All stop here while the backup begins, so that its point in time is known.
    let stop = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let (socket, stop, part) = (socket.clone(), Arc::clone(&stop), Arc::clone(&parts[index]));
            std::thread::spawn(move || {
                let (own, other) = if index % 2 == 0 { ("a", "b") } else { ("b", "a") };
                let mut client = Client::connect(&socket, own);
                let mut witness = Client::connect(&socket, other);
                let mut random = Random(seed + u64::try_from(index).unwrap());
                for phase in 0..2 {
                    let mut part = part.lock().unwrap();
                    for _ in 0..ROUNDS {
                        round(&mut client, &mut part, &mut random);
                        // What was acknowledged by one export is seen through the other.
                        let at = random.below(PART - BLOCK);
                        let seen = witness.read(part.start + at, BLOCK);
                        assert!(seen == part.content[at..at + BLOCK], "at {at}");
                    }
                    drop(part);
                    if phase == 0 {
                        stop.wait();
                        stop.wait();
                    }
                }
                client.one(FLUSH, 0, 0, 0, b"");
            })
        })
        .collect();
    stop.wait();
    let point_in_time = whole(&parts);
    qmp.ok(
        "blockdev-backup",
        json!({"job-id": "copy", "device": "disk", "target": "target", "sync": "full", "speed": 32 << 20,
            "auto-dismiss": true}),
    );
    stop.wait();
    for client in clients {
        client.join().unwrap();
    }
    let end = qmp.job_end("copy");
    assert_eq!(end["event"], "BLOCK_JOB_COMPLETED", "{end}");
    assert!(end["data"].get("error").is_none(), "{end}");
    let copy = std::fs::read(daemon.folder().join("target")).unwrap();
    assert_eq!(differing(&copy, &point_in_time), Vec::<usize>::new());
    let expected = whole(&parts);
    let mut client = Client::connect(&socket, "map");
    let content: Vec<u8> = (0..CLIENTS)
        .flat_map(|index| client.read(index * PART, PART))
        .collect();
    assert_eq!(differing(&content, &expected), Vec::<usize>::new());
    drop(client);
    if have("nbdinfo") {
        check_bitmap(&daemon.nbd_uri("map"), &parts);
    }
    // Everything was flushed: a crash loses nothing, and leaves the image sound.
    drop(qmp);
    let again = arguments(daemon.folder());
    daemon.crash_and_restart(&again);
    let mut qmp = daemon.client();
    qmp.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "again", "node-name": "disk", "name": "again"}),
    );
    let mut client = Client::connect(&socket, "again");
    let content: Vec<u8> = (0..CLIENTS)
        .flat_map(|index| client.read(index * PART, PART))
        .collect();
    assert_eq!(differing(&content, &expected), Vec::<usize>::new());
    drop((client, qmp));
    let folder = daemon.quit();
    run_ok(
        "qemu-img",
        &["check", "-q", folder.path().join("disk").to_str().unwrap()],
    );
}
