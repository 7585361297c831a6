//! Stored bitmaps: ours read by QEMU, QEMU's read by us, and what a crash makes of them.

use super::basic::{fresh, play};
use super::memory::Memory;
use super::{Folder, Random, assert_check, qemu};
use crate::driver::{Driver, ImageStore, StoredBitmap};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2, create};

fn bitmap(name: &str, granularity_bytes: u32, dirty: &[(u64, u64)]) -> StoredBitmap {
    StoredBitmap {
        name: name.into(),
        granularity_bytes,
        auto: true,
        inconsistent: false,
        dirty: dirty.to_vec(),
    }
}

/// Other programs put the backing file's name right behind the header extensions. When a bitmap needs that room, the name
/// moves and is still there.
#[tokio::test]
async fn a_backing_name_that_must_move_is_not_lost() {
    for name_len in [9, 300] {
        let name = "b".repeat(name_len);
        let options = CreateOptions {
            size: 4 << 20,
            cluster_bytes: 4096,
            backing_file: Some(name.clone()),
            backing_format: Some("raw".into()),
            ..CreateOptions::default()
        };
        let file = Memory::new();
        create(file.clone(), &options).await.unwrap();
        let mut bytes = file.bytes();
        // The optional table of feature names gives way to the end of the extensions and the name.
        let table = bytes
            .windows(4)
            .position(|four| four == 0x6803_f857_u32.to_be_bytes())
            .unwrap();
        bytes[table..4096].fill(0);
        bytes[table + 8..table + 8 + name_len].copy_from_slice(name.as_bytes());
        bytes[8..16].copy_from_slice(&(table as u64 + 8).to_be_bytes());
        let file = Memory::with(bytes);
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_eq!(image.backing_file().map(|(name, _)| name), Some(name.clone()));
        image
            .store_bitmaps(vec![bitmap("b", 65536, &[(0, 65536)])])
            .await
            .unwrap();
        image.close().await.unwrap();
        let image = Qcow2::open(Memory::with(file.bytes()), OpenOptions::default())
            .await
            .unwrap();
        assert_eq!(image.backing_file().map(|(name, _)| name), Some(name));
        assert_eq!(image.load_bitmaps().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn stored_bitmaps_come_back() {
    for cluster_bytes in [512, 65536] {
        let size = 64 << 20;
        let options = CreateOptions {
            size,
            cluster_bytes,
            ..CreateOptions::default()
        };
        let (file, image) = fresh(&options).await;
        let dirty = [(0, 65536), (3 << 20, 1 << 20), (size - 65536, 65536)];
        let all = [(0, size)];
        let stored = vec![
            bitmap("some", 65536, &dirty),
            bitmap("all", 512, &all),
            bitmap("none", 1 << 20, &[]),
        ];
        image.store_bitmaps(stored).await.unwrap();
        let mut model = vec![0u8; 64 << 20];
        play(&image, &mut model, &mut Random::new(1), 20).await;
        image.close().await.unwrap();
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        if let Some((code, text)) = qemu("qemu-img", &["info", path.to_str().unwrap()]) {
            assert_eq!(code, 0);
            assert!(
                text.contains("name: some") && text.contains("granularity: 65536"),
                "{text}"
            );
            assert!(!text.contains("in-use"), "{text}");
        }

        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        let loaded = image.load_bitmaps().await.unwrap();
        let names: Vec<_> = loaded.iter().map(|bitmap| bitmap.name.as_str()).collect();
        assert_eq!(names, ["some", "all", "none"]);
        assert_eq!(loaded[0].dirty, dirty);
        assert_eq!(loaded[1].dirty, all);
        assert!(loaded[2].dirty.is_empty() && loaded[0].auto);
        // Not stored back: in use for whoever opens it next.
        image.close().await.unwrap();
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        let loaded = image.load_bitmaps().await.unwrap();
        assert!(loaded.iter().all(|bitmap| bitmap.inconsistent));
        // Inconsistent ones stay as they lie; others are added and removed beside them.
        let mut next = vec![bitmap("new", 65536, &dirty)];
        next.extend(loaded.into_iter().skip(1));
        image.store_bitmaps(next).await.unwrap();
        image.remove_bitmap("all").await.unwrap();
        image.remove_bitmap("unheard of").await.unwrap();
        let names: Vec<_> = image
            .bitmap_infos()
            .into_iter()
            .map(|info| (info.name, info.in_use))
            .collect();
        assert_eq!(names, [("none".to_owned(), true), ("new".to_owned(), false)]);
        image.store_bitmaps(Vec::new()).await.unwrap();
        assert!(image.bitmap_infos().is_empty());
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
    }
}

#[tokio::test]
async fn bitmaps_made_by_qemu_are_read() {
    let folder = Folder::new();
    let path = folder.path("image.qcow2");
    let name = path.to_str().unwrap();
    for arguments in [
        vec!["create", "-q", "-f", "qcow2", name, "64M"],
        vec!["bitmap", "--add", "-g", "64k", name, "b"],
        vec!["bitmap", "--add", "--disable", name, "off"],
    ] {
        match qemu("qemu-img", &arguments) {
            Some((code, text)) => assert_eq!(code, 0, "{text}"),
            None => return,
        }
    }
    let io = ["-f", "qcow2", "-c", "write 1M 64k", "-c", "write 10M 200k", name];
    let Some((code, text)) = qemu("qemu-io", &io) else {
        return;
    };
    assert_eq!(code, 0, "{text}");
    let file = Memory::with(std::fs::read(&path).unwrap());
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    let loaded = image.load_bitmaps().await.unwrap();
    assert_eq!(loaded[0].dirty, [(1 << 20, 65536), (10 << 20, 4 * 65536)]);
    assert!(loaded[0].auto && !loaded[1].auto);
    image.store_bitmaps(loaded).await.unwrap();
    image.close().await.unwrap();
    std::fs::write(&path, file.bytes()).unwrap();
    assert_check(&path, false);
    // And QEMU goes on with what we stored.
    let (code, text) = qemu("qemu-img", &["bitmap", "--merge", "b", name, "off"]).unwrap();
    assert_eq!(code, 0, "{text}");
    let file = Memory::with(std::fs::read(&path).unwrap());
    let image = Qcow2::open(
        file,
        OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        },
    )
    .await
    .unwrap();
    let loaded = image.load_bitmaps().await.unwrap();
    assert_eq!(loaded[1].dirty, [(1 << 20, 65536), (10 << 20, 4 * 65536)]);
}

#[tokio::test]
async fn limits_are_told() {
    let (_, image) = fresh(&CreateOptions {
        size: 1 << 20,
        ..CreateOptions::default()
    })
    .await;
    let text = |name: &str, granularity| image.can_store_bitmap(name, granularity).unwrap_err().to_string();
    assert_eq!(text("b", 256), "Granularity is under minimum (512 bytes)");
    assert_eq!(
        text(&"x".repeat(1024), 512),
        "Name length exceeds maximum (1023 characters)"
    );
    let options = CreateOptions {
        size: 1 << 20,
        version: 2,
        ..CreateOptions::default()
    };
    let (_, image) = fresh(&options).await;
    let text = image.can_store_bitmap("b", 65536).unwrap_err().to_string();
    assert_eq!(text, "Cannot store dirty bitmaps in qcow2 v2 files");
}
