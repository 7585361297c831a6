//! The whole path: create, write, read back, close, and have QEMU look at it.

use std::sync::Arc;

use super::memory::Memory;
use super::{Folder, Random, assert_check, qemu};
use crate::driver::{Driver, Preallocation, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::{Compression, CreateOptions, OpenOptions, Qcow2, create};

pub(super) async fn fresh(options: &CreateOptions) -> (Arc<Memory>, Arc<Qcow2>) {
    let file = Memory::new();
    create(file.clone(), options).await.unwrap();
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    (file, image)
}

/// Random work on an image and on a plain vector beside it.
pub(super) async fn play(image: &Qcow2, model: &mut [u8], random: &mut Random, steps: u64) {
    let size = model.len() as u64;
    for _ in 0..steps {
        let offset = random.below(size / 512) * 512;
        let len = (random.below(200) * 512 + 512).min(size - offset);
        let (start, end) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(offset + len).unwrap(),
        );
        match random.below(10) {
            0..=5 => {
                let value = u8::try_from(random.below(256)).unwrap();
                let data = vec![value; end - start];
                match image.try_write(offset, &data, WriteFlags::default()) {
                    Some(result) => result.unwrap(),
                    None => image.write(offset, &data, WriteFlags::default()).await.unwrap(),
                }
                model[start..end].copy_from_slice(&data);
            }
            6 => {
                let flags = ZeroFlags {
                    may_unmap: random.below(2) == 0,
                    ..ZeroFlags::default()
                };
                image.write_zeroes(offset, len, flags).await.unwrap();
                model[start..end].fill(0);
            }
            7 => {
                let cluster = u64::from(image.limits().cluster_bytes);
                let (from, to) = (
                    offset.next_multiple_of(cluster),
                    (offset + len) / cluster * cluster,
                );
                if from < to && image.discard(from, to - from).await.is_ok() {
                    model[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(0);
                }
            }
            8 => image.flush().await.unwrap(),
            _ => {
                let mut buf = vec![0xaa; end - start];
                match image.try_read(offset, &mut buf) {
                    Some(result) => result.unwrap(),
                    None => image.read(offset, &mut buf).await.unwrap(),
                }
                assert!(buf == model[start..end], "read at {offset}, {len} bytes");
            }
        }
    }
}

pub(super) async fn assert_content(image: &Qcow2, model: &[u8]) {
    let mut buf = vec![0u8; model.len()];
    image.read(0, &mut buf).await.unwrap();
    if buf != model {
        let at = buf.iter().zip(model).position(|(a, b)| a != b).unwrap();
        panic!("content differs at {at}: {} instead of {}", buf[at], model[at]);
    }
}

#[tokio::test]
async fn written_data_are_there_after_reopening() {
    for (cluster_bytes, refcount_bits, version) in [
        (65536, 16, 3),
        (512, 16, 3),
        (4096, 1, 3),
        (512, 64, 3),
        (1 << 20, 2, 3),
        (65536, 16, 2),
        (512, 8, 3),
    ] {
        let size = (1 << 20) + 512;
        let options = CreateOptions {
            size,
            cluster_bytes,
            refcount_bits,
            version,
            ..CreateOptions::default()
        };
        for inline in [false, true] {
            let (file, image) = fresh(&options).await;
            if inline {
                file.inline();
            }
            let mut model = vec![0u8; usize::try_from(size).unwrap()];
            let mut random = Random::new(cluster_bytes + refcount_bits);
            play(&image, &mut model, &mut random, 150).await;
            assert_content(&image, &model).await;
            image.close().await.unwrap();
            let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
            assert_content(&image, &model).await;
            play(&image, &mut model, &mut random, 100).await;
            image.close().await.unwrap();
            let folder = Folder::new();
            let path = folder.path("image.qcow2");
            std::fs::write(&path, file.bytes()).unwrap();
            assert_check(&path, false);
            compare(&folder, &path, &model);
        }
    }
}

/// QEMU reads the same.
pub(super) fn compare(folder: &Folder, path: &std::path::Path, model: &[u8]) {
    let raw = folder.path("model.raw");
    std::fs::write(&raw, model).unwrap();
    let arguments = [
        "compare",
        "-f",
        "qcow2",
        "-F",
        "raw",
        path.to_str().unwrap(),
        raw.to_str().unwrap(),
    ];
    if let Some((code, text)) = qemu("qemu-img", &arguments) {
        assert_eq!(code, 0, "{text}");
    }
}

#[tokio::test]
async fn preallocation_allocates() {
    for preallocation in [
        Preallocation::Metadata,
        Preallocation::Falloc,
        Preallocation::Full,
    ] {
        let (file, image) = fresh(&CreateOptions {
            size: 5 << 20,
            preallocation,
            ..CreateOptions::default()
        })
        .await;
        let status = image.block_status(0, 5 << 20, false).await.unwrap();
        assert!(status.data && status.len == 5 << 20, "{status:?}");
        assert_content(&image, &vec![0; 5 << 20]).await;
        image.close().await.unwrap();
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
    }
}

#[tokio::test]
async fn compressed_clusters_are_read_by_qemu() {
    for compression in [Compression::Zlib, Compression::Zstd] {
        for cluster_bytes in [4096u64, 65536] {
            let size = 1 << 20;
            let (file, image) = fresh(&CreateOptions {
                size,
                compression,
                cluster_bytes,
                ..CreateOptions::default()
            })
            .await;
            let mut model: Vec<u8> = (0..size).map(|at| (at / 300).to_le_bytes()[0]).collect();
            let flags = WriteFlags {
                compressed: true,
                ..WriteFlags::default()
            };
            image.write(0, &model, flags).await.unwrap();
            assert_content(&image, &model).await;
            // Some are overwritten plainly, some discarded.
            image
                .write(70_000, &[9; 5000], WriteFlags::default())
                .await
                .unwrap();
            model[70_000..75_000].fill(9);
            image.discard(2 * 65536, 65536).await.unwrap();
            model[2 * 65536..3 * 65536].fill(0);
            image.close().await.unwrap();
            let folder = Folder::new();
            let path = folder.path("image.qcow2");
            std::fs::write(&path, file.bytes()).unwrap();
            assert_check(&path, false);
            compare(&folder, &path, &model);
        }
    }
}

#[tokio::test]
async fn resizing_keeps_content() {
    for cluster_bytes in [512, 65536] {
        let options = CreateOptions {
            size: 1 << 20,
            cluster_bytes,
            ..CreateOptions::default()
        };
        let (file, image) = fresh(&options).await;
        let mut model = vec![0u8; 1 << 20];
        let mut random = Random::new(5);
        for size in [3 << 20, 512 * 777, 5 << 20, (2 << 20) + 512, 9 << 20] {
            play(&image, &mut model, &mut random, 60).await;
            image.truncate(size, Preallocation::Off).await.unwrap();
            model.resize(usize::try_from(size).unwrap(), 0);
            assert_content(&image, &model).await;
        }
        image.close().await.unwrap();
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
    }
}
