//! Images that lie: whatever the bytes say, nothing panics, loops or takes more memory than the file's size allows for.

use super::Random;
use super::memory::Memory;
use crate::driver::{Driver, ImageStore, SnapshotInfo, StoredBitmap, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2, create};

/// An image with something of everything.
async fn rich(cluster_bytes: u64) -> Vec<u8> {
    let file = Memory::new();
    let options = CreateOptions {
        size: 1 << 20,
        cluster_bytes,
        ..CreateOptions::default()
    };
    create(file.clone(), &options).await.unwrap();
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    image
        .write(1000 * 512, &[1; 5000], WriteFlags::default())
        .await
        .unwrap();
    image
        .create_snapshot(SnapshotInfo {
            name: "s".into(),
            ..SnapshotInfo::default()
        })
        .await
        .unwrap();
    image.write(0, &[2; 70_000], WriteFlags::default()).await.unwrap();
    image
        .write_zeroes(300 * 512, 65536, ZeroFlags::default())
        .await
        .unwrap();
    let cluster = usize::try_from(cluster_bytes).unwrap();
    let flags = WriteFlags {
        compressed: true,
        ..WriteFlags::default()
    };
    image
        .write((1 << 20) - 2 * cluster_bytes, &vec![3; cluster], flags)
        .await
        .unwrap();
    let bitmap = StoredBitmap {
        name: "b".into(),
        granularity_bytes: 512,
        auto: true,
        inconsistent: false,
        dirty: vec![(512, 1024)],
    };
    image.store_bitmaps(vec![bitmap]).await.unwrap();
    image.close().await.unwrap();
    file.bytes()
}

/// Opens an image and does some of everything to it; errors are fine.
pub(super) async fn exercise(bytes: Vec<u8>, read_only: bool) {
    let file = Memory::with(bytes);
    let options = OpenOptions {
        read_only,
        ..OpenOptions::default()
    };
    let Ok(image) = Qcow2::open(file, options).await else {
        return;
    };
    let size = image.length();
    let mut buf = vec![0u8; 100_000];
    for offset in [0, 500 * 512, size.saturating_sub(100_000)] {
        let len = usize::try_from(size.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let _ = image.read(offset, &mut buf[..len]).await;
        let _ = image.try_read(offset, &mut buf[..len]);
        if len > 0 {
            let _ = image.block_status(offset, len as u64, true).await;
            if !read_only {
                let _ = image.try_write(offset, &buf[..len], WriteFlags::default());
                let _ = image.write(offset, &buf[..len], WriteFlags::default()).await;
                let _ = image.write_zeroes(offset, len as u64, ZeroFlags::default()).await;
                let _ = image.discard(offset, len as u64).await;
            }
        }
    }
    let _ = image.load_bitmaps().await;
    let _ = image.info();
    let _ = image.snapshots();
    if !read_only {
        let _ = image.flush().await;
        for snapshot in image.snapshots() {
            let _ = image.delete_snapshot(&snapshot.id).await;
        }
        let _ = image.store_bitmaps(Vec::new()).await;
        let _ = image
            .truncate(size / 2 / 512 * 512, crate::driver::Preallocation::Off)
            .await;
    }
    let _ = image.check(false).await;
    let _ = image.close().await;
}

#[tokio::test]
async fn mutated_images_do_no_harm() {
    let rounds = std::env::var("QCOW2_MUTATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(150);
    for cluster_bytes in [512u64, 4096] {
        let image = rich(cluster_bytes).await;
        let clusters = image.len() as u64 / cluster_bytes;
        for seed in 0..rounds {
            let mut random = Random::new(seed + 1);
            let mut bytes = image.clone();
            for _ in 0..=random.below(4) {
                // Mostly whole fields of headers and tables, so that the lies are believed for a while.
                let at = match random.below(3) {
                    0 => random.below(30) * 4,
                    1 => random.below(clusters) * cluster_bytes + random.below(16) * 8,
                    _ => random.below(image.len() as u64 - 8),
                };
                let value = match random.below(5) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => random.below(clusters) * cluster_bytes,
                    3 => (random.below(clusters) * cluster_bytes) | 1 << 63 | random.below(2),
                    _ => random.next(),
                };
                let at = usize::try_from(at).unwrap();
                let width = if random.below(2) == 0 { 8 } else { 4 };
                bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
            }
            let read_only = seed % 3 == 0;
            let run = exercise(bytes, read_only);
            let limit = std::time::Duration::from_secs(60);
            assert!(
                tokio::time::timeout(limit, run).await.is_ok(),
                "seed {seed} does not end"
            );
        }
    }
}
