//! Internal snapshots: sharing, copying on write, deleting, and QEMU reading them.

use super::basic::{assert_content, compare, fresh, play};
use super::{Folder, Random, assert_check, qemu};
use crate::driver::{Driver, ImageStore, SnapshotInfo};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2};

fn named(name: &str) -> SnapshotInfo {
    SnapshotInfo {
        name: name.into(),
        date: (1_700_000_000, 5),
        ..SnapshotInfo::default()
    }
}

#[tokio::test]
async fn snapshots_keep_their_content() {
    for (cluster_bytes, refcount_bits, version) in
        [(65536, 16, 3), (512, 8, 3), (4096, 64, 3), (65536, 16, 2)]
    {
        let size = 2 << 20;
        let options = CreateOptions {
            size,
            cluster_bytes,
            refcount_bits,
            version,
            ..CreateOptions::default()
        };
        let (file, image) = fresh(&options).await;
        let mut model = vec![0u8; 2 << 20];
        let mut random = Random::new(3);
        play(&image, &mut model, &mut random, 40).await;
        let first = image.create_snapshot(named("first")).await.unwrap();
        assert_eq!(first.id, "1");
        let then = model.clone();
        play(&image, &mut model, &mut random, 40).await;
        let second = image.create_snapshot(named("second")).await.unwrap();
        let between = model.clone();
        play(&image, &mut model, &mut random, 40).await;
        image.flush().await.unwrap();
        let report = image.check(false).await.unwrap();
        assert_eq!((report.corruptions, report.broken), (0, 0), "{report:?}");
        image.close().await.unwrap();

        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
        for (name, content) in [("first", &then), ("second", &between)] {
            let raw = folder.path("snapshot.raw");
            let arguments = [
                "convert",
                "-l",
                name,
                "-O",
                "raw",
                path.to_str().unwrap(),
                raw.to_str().unwrap(),
            ];
            if let Some((code, text)) = qemu("qemu-img", &arguments) {
                assert_eq!(code, 0, "{text}");
                assert!(std::fs::read(&raw).unwrap() == *content, "{name}");
            }
        }

        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_eq!(image.snapshots().len(), 2);
        assert_eq!(image.snapshots()[0].disk_bytes, size);
        image.delete_snapshot(&first.id).await.unwrap();
        play(&image, &mut model, &mut random, 40).await;
        image.delete_snapshot(&second.id).await.unwrap();
        assert!(image.delete_snapshot("1").await.is_err());
        play(&image, &mut model, &mut random, 40).await;
        assert_content(&image, &model).await;
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
    }
}

#[tokio::test]
async fn one_bit_refcounts_cannot_share() {
    let options = CreateOptions {
        size: 1 << 20,
        refcount_bits: 1,
        ..CreateOptions::default()
    };
    let (file, image) = fresh(&options).await;
    let mut model = vec![0u8; 1 << 20];
    play(&image, &mut model, &mut Random::new(9), 40).await;
    assert!(image.create_snapshot(named("no")).await.is_err());
    assert_content(&image, &model).await;
    image.close().await.unwrap();
    let folder = Folder::new();
    let path = folder.path("image.qcow2");
    std::fs::write(&path, file.bytes()).unwrap();
    assert_check(&path, false);
}
