//! Images as other programs and other versions write them, made here byte by byte: what QEMU takes is taken, what it
//! refuses is refused in its words, and what is not understood is kept.

use super::memory::Memory;
use super::{Folder, assert_check, qemu};
use crate::driver::{Driver, ImageStore, SnapshotInfo, WriteFlags};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2, create};

const CLUSTER: usize = 65536;

async fn base(version: u32) -> Vec<u8> {
    let file = Memory::new();
    let options = CreateOptions {
        size: 4 << 20,
        version,
        ..CreateOptions::default()
    };
    create(file.clone(), &options).await.unwrap();
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    image
        .write(0, &[5; 100_000], WriteFlags::default())
        .await
        .unwrap();
    image.close().await.unwrap();
    let mut bytes = file.bytes();
    bytes.resize(bytes.len().next_multiple_of(CLUSTER), 0);
    // No extensions to begin with.
    let end = if version == 2 { 72 } else { 112 };
    bytes[end..4096].fill(0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn get(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

fn extension(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// Adds a cluster with this content at the end of the file, counted once; where it is.
fn add_cluster(bytes: &mut Vec<u8>, content: &[u8]) -> usize {
    let at = bytes.len();
    bytes.extend_from_slice(content);
    bytes.resize(at + CLUSTER, 0);
    let block = get(bytes, get(bytes, 48));
    put(bytes, block + at / CLUSTER * 2, &[0, 1]);
    at
}

/// Patches of a header, by name.
fn patches() -> Vec<(String, usize, Vec<u8>)> {
    let mut list = Vec::new();
    let mut add = |name: &str, at: usize, value: &[u8]| {
        list.push((format!("{name} {value:02x?}"), at, value.to_vec()));
    };
    for version in [0u32, 1, 4, 99] {
        add("version", 4, &version.to_be_bytes());
    }
    for bits in [0u32, 8, 22, 63, u32::MAX] {
        add("cluster bits", 20, &bits.to_be_bytes());
    }
    for length in [
        0u32,
        72,
        100,
        103,
        104,
        105,
        112,
        113,
        120,
        128,
        65536,
        65544,
        u32::MAX,
    ] {
        add("header length", 100, &length.to_be_bytes());
    }
    for bit in [0u64, 1, 3, 5, 6, 40, 63] {
        add("incompatible", 72, &(1u64 << bit).to_be_bytes());
    }
    for bit in [0u64, 1, 5, 63] {
        add("compatible", 80, &(1u64 << bit).to_be_bytes());
        // The second is that of raw external data; `qemu-img info` does no I/O and has nothing against it.
        let bit = if bit == 1 { 2 } else { bit };
        add("autoclear", 88, &(1u64 << bit).to_be_bytes());
    }
    for order in [7u32, 8, u32::MAX] {
        add("refcount order", 96, &order.to_be_bytes());
    }
    for kind in [1u8, 2, 255] {
        add("compression", 104, &[kind]);
    }
    add("encryption", 32, &3u32.to_be_bytes());
    add("encryption", 32, &u32::MAX.to_be_bytes());
    for offset in [65537u64, 1 << 40] {
        add("backing offset", 8, &offset.to_be_bytes());
    }
    for size in [0u64, 1, 511, 513, 4 << 20 | 1, 1 << 40, 1 << 62, 1 << 63] {
        add("size", 24, &size.to_be_bytes());
    }
    for entries in [0u32, 1, 1 << 22, (1 << 22) + 1, u32::MAX] {
        add("L1 entries", 36, &entries.to_be_bytes());
    }
    for offset in [0x200u64, 1 << 56, 1 << 63] {
        add("L1 offset", 40, &offset.to_be_bytes());
        add("refcount table offset", 48, &offset.to_be_bytes());
    }
    for clusters in [0u32, 1, 129, u32::MAX] {
        add("refcount table clusters", 56, &clusters.to_be_bytes());
    }
    add("snapshots", 60, &65537u32.to_be_bytes());
    add("snapshots", 60, &u32::MAX.to_be_bytes());
    let mut feature = vec![0, 7];
    feature.extend_from_slice(b"my feature");
    feature.resize(48, 0);
    for (kind, body) in [
        (0x1234, &b"abc"[..]),
        (0xe279_2aca, b"raw"),
        (0xe279_2aca, b"rrrrrrrrrrrrrrr"),
        (0xe279_2aca, b"rrrrrrrrrrrrrrrr"),
        (0x6803_f857, b"\0\x07hello"),
        (0x6803_f857, &feature),
        (0x0537_be77, b"123"),
        (0x2385_2875, b""),
        (0x2385_2875, &[0; 23]),
        (0x2385_2875, &[0; 24]),
    ] {
        add("extension", 112, &extension(kind, body));
    }
    add("extension too large", 112, &[0, 0, 0x12, 0x34, 0, 1, 0x11, 0x11]);
    list
}

/// Opens with both; the texts must be the same.
async fn compare_opening(folder: &Folder, name: &str, bytes: &[u8]) {
    let path = folder.path("image.qcow2");
    std::fs::write(&path, bytes).unwrap();
    let Some((code, text)) = qemu("qemu-img", &["info", "-U", "-f", "qcow2", path.to_str().unwrap()]) else {
        return;
    };
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let ours = Qcow2::open(Memory::with(bytes.to_vec()), options).await;
    match ours {
        Ok(image) => {
            assert_eq!(code, 0, "{name}: QEMU refuses: {text}");
            let size = format!("({} bytes)", image.length());
            assert!(text.contains(&size), "{name}: {size} or: {text}");
        }
        Err(error) => assert!(text.contains(&error.to_string()), "{name}: {error} or: {text}"),
    }
}

#[tokio::test]
async fn headers_are_taken_and_refused_as_qemu_does() {
    let folder = Folder::new();
    let image = base(3).await;
    for (name, at, value) in patches() {
        let mut bytes = image.clone();
        put(&mut bytes, at, &value);
        compare_opening(&folder, &name, &bytes).await;
    }
}

/// One bitmap of the directory: flags, type, granularity, table entries, name length, extra bytes, first table entry.
type Bitmap = (u32, u8, u8, u32, usize, usize, u64);

fn with_bitmaps(mut bytes: Vec<u8>, list: &[Bitmap], count: u32) -> Vec<u8> {
    let mut directory = Vec::new();
    for (flags, kind, granularity, entries, name, extra, first) in list {
        let table = add_cluster(&mut bytes, &first.to_be_bytes());
        let start = directory.len();
        directory.extend_from_slice(&(table as u64).to_be_bytes());
        directory.extend_from_slice(&entries.to_be_bytes());
        directory.extend_from_slice(&flags.to_be_bytes());
        directory.extend_from_slice(&[*kind, *granularity]);
        directory.extend_from_slice(&u16::try_from(*name).unwrap().to_be_bytes());
        directory.extend_from_slice(&u32::try_from(*extra).unwrap().to_be_bytes());
        directory.resize(directory.len() + extra, b'x');
        directory.resize(directory.len() + name, b'b');
        directory.resize(start + (directory.len() - start).next_multiple_of(8), 0);
    }
    let at = add_cluster(&mut bytes, &directory);
    let mut body = count.to_be_bytes().to_vec();
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&(directory.len() as u64).to_be_bytes());
    body.extend_from_slice(&(at as u64).to_be_bytes());
    put(&mut bytes, 112, &extension(0x2385_2875, &body));
    bytes[95] |= 1;
    bytes
}

#[tokio::test]
async fn bitmap_directories_are_taken_and_refused_as_qemu_does() {
    let folder = Folder::new();
    let image = base(3).await;
    let good: Bitmap = (2, 1, 16, 1, 2, 0, 0);
    let mut lists = vec![vec![good], vec![good, (0, 1, 9, 1, 3, 0, 1)]];
    for flags in [0, 1, 3, 4, 6, 8, 1 << 31] {
        lists.push(vec![(flags, 1, 16, 1, 2, 0, 0)]);
    }
    for kind in [0, 2, 255] {
        lists.push(vec![(2, kind, 16, 1, 2, 0, 0)]);
    }
    for granularity in [0, 8, 9, 31, 32, 255] {
        lists.push(vec![(2, 1, granularity, 1, 2, 0, 0)]);
    }
    lists.push(vec![(2, 1, 16, 0, 2, 0, 0)]);
    lists.push(vec![(3, 1, 16, 0, 2, 0, 0)]);
    for name in [0, 1023, 1024] {
        lists.push(vec![(2, 1, 16, 1, name, 0, 0)]);
    }
    lists.push(vec![(2, 1, 16, 1, 2, 8, 0)]);
    lists.push(vec![(6, 1, 16, 1, 2, 8, 0)]);
    for list in lists {
        let count = u32::try_from(list.len()).unwrap();
        let bytes = with_bitmaps(image.clone(), &list, count);
        compare_opening(&folder, &format!("{list:?}"), &bytes).await;
    }
    for count in [0, 2, 65535, 65536] {
        let bytes = with_bitmaps(image.clone(), &[good], count);
        compare_opening(&folder, &format!("count {count}"), &bytes).await;
    }
    // Without the autoclear bit nothing of it counts.
    let mut bytes = with_bitmaps(image, &[(8, 9, 99, 7, 2, 0, 0)], 77);
    bytes[95] = 0;
    let image = Qcow2::open(Memory::with(bytes), OpenOptions::default())
        .await
        .unwrap();
    assert!(image.load_bitmaps().await.unwrap().is_empty());
}

/// Snapshot tables of programs that knew less or more than we do.
#[tokio::test]
async fn snapshots_with_any_extra_data() {
    let folder = Folder::new();
    for version in [2, 3] {
        for extra in [0usize, 7, 8, 16, 24, 40, 1024, 1025] {
            let mut bytes = base(version).await;
            let l1 = get(&bytes, 40);
            // The snapshot has an L1 table of its own that maps nothing.
            let own = add_cluster(&mut bytes, &[]);
            let mut entry = (own as u64).to_be_bytes().to_vec();
            entry.extend_from_slice(&bytes[36..40]);
            entry.extend_from_slice(&[0, 1, 0, 4]);
            entry.extend_from_slice(&[0; 20]);
            entry.extend_from_slice(&u32::try_from(extra).unwrap().to_be_bytes());
            let known = [0u64.to_be_bytes(), (4u64 << 20).to_be_bytes(), 9u64.to_be_bytes()].concat();
            let more = (0..extra).map(|at| known.get(at).copied().unwrap_or(b'm'));
            entry.extend(more);
            entry.extend_from_slice(b"7snap");
            entry.resize(entry.len().next_multiple_of(8), 0);
            let table = add_cluster(&mut bytes, &entry);
            put(&mut bytes, 60, &1u32.to_be_bytes());
            put(&mut bytes, 64, &(table as u64).to_be_bytes());
            assert!(l1 != own);
            compare_opening(
                &folder,
                &format!("extra data of {extra} in version {version}"),
                &bytes,
            )
            .await;
            if extra > 1024 {
                continue;
            }
            let file = Memory::with(bytes);
            let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
            let found = image.snapshots();
            assert_eq!((found[0].id.as_str(), found[0].name.as_str()), ("7", "snap"));
            assert_eq!(found[0].icount, (extra >= 24).then_some(9));
            let taken = image.create_snapshot(SnapshotInfo::default()).await.unwrap();
            assert_eq!(taken.id, "8");
            image.delete_snapshot("7").await.unwrap();
            image.close().await.unwrap();
            let path = folder.path("image.qcow2");
            std::fs::write(&path, file.bytes()).unwrap();
            assert_check(&path, false);
        }
    }
}

/// Header fields and extensions that nobody here knows are there after the header was written anew; autoclear bits that
/// nobody here knows are not.
#[tokio::test]
async fn what_is_unknown_is_kept() {
    let mut bytes = base(3).await;
    put(&mut bytes, 100, &128u32.to_be_bytes());
    put(&mut bytes, 112, b"sixteen bytes ok");
    let unknown = extension(0x1234_5678, b"keep me");
    put(&mut bytes, 128, &unknown);
    put(&mut bytes, 88, &(1u64 << 50).to_be_bytes());
    let file = Memory::with(bytes);
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    image.create_snapshot(SnapshotInfo::default()).await.unwrap();
    image.close().await.unwrap();
    let bytes = file.bytes();
    assert_eq!(&bytes[112..128], b"sixteen bytes ok");
    assert_eq!(get(&bytes, 88), 0);
    assert!(
        bytes[128..4096]
            .windows(unknown.len())
            .any(|part| part == unknown)
    );
    let folder = Folder::new();
    let path = folder.path("image.qcow2");
    std::fs::write(&path, &bytes).unwrap();
    assert_check(&path, false);
}

/// A write that would hit metadata is refused, and the image is marked, in QEMU's words.
#[tokio::test]
async fn overlaps_are_named() {
    for version in [2, 3] {
        let image = base(version).await;
        let (l1, table) = (get(&image, 40), get(&image, 48));
        let l2 = get(&image, l1) & 0x00ff_ffff_ffff_fe00;
        for (host, name) in [
            (l1, "active L1 table"),
            (l2, "active L2 table"),
            (table, "refcount table"),
            (get(&image, table), "refcount block"),
        ] {
            let mut bytes = image.clone();
            put(&mut bytes, l2, &(host as u64 | 1 << 63).to_be_bytes());
            let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let teller = std::sync::Arc::clone(&told);
            let options = OpenOptions {
                on_corruption: Some(std::sync::Arc::new(move |message, place, fatal| {
                    teller.lock().unwrap().push((message.to_owned(), place, fatal));
                })),
                ..OpenOptions::default()
            };
            let file = Memory::with(bytes);
            let opened = Qcow2::open(file.clone(), options).await.unwrap();
            let error = opened
                .write(4096, &[1; 8192], WriteFlags::default())
                .await
                .unwrap_err();
            assert_eq!(error.errno(), 5);
            let text = format!("Preventing invalid write on metadata (overlaps with {name})");
            assert_eq!(
                *told.lock().unwrap(),
                [(text, Some((host as u64 + 4096, 8192)), true)]
            );
            assert_eq!(file.bytes()[79] & 2 != 0, version == 3);
            // Nothing works after that.
            assert!(
                opened
                    .write(1 << 20, &[1; 512], WriteFlags::default())
                    .await
                    .is_err()
            );
        }
    }
}

#[tokio::test]
async fn caches_that_cannot_be_are_refused() {
    let image = base(3).await;
    let open = |total, refcount| {
        let options = OpenOptions {
            cache_bytes: total,
            refcount_cache_bytes: refcount,
            ..OpenOptions::default()
        };
        Qcow2::open(Memory::with(image.clone()), options)
    };
    for (total, refcount, text) in [
        (Some(1 << 40), None, "Could not allocate metadata caches"),
        (None, Some(1 << 40), "Could not allocate metadata caches"),
        (Some(i64::MAX.unsigned_abs()), None, "Refcount cache size too big"),
        (None, Some(1 << 50), "Refcount cache size too big"),
    ] {
        assert_eq!(open(total, refcount).await.unwrap_err().to_string(), text);
    }
    open(Some(1 << 30), None).await.unwrap();
    open(None, Some(1 << 30)).await.unwrap();
}
