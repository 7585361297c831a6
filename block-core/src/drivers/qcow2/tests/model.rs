//! Random histories, shrunk when they fail, against a plain vector; and many tasks at once.

use std::sync::Arc;

use proptest::prelude::*;

use super::Random;
use super::basic::{assert_content, fresh, play};
use super::memory::Memory;
use crate::driver::{Driver, ImageStore, Preallocation, SnapshotInfo, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2};

/// One request, in sectors.
#[derive(Debug, Clone)]
enum Request {
    Write { at: u64, len: u64, value: u8 },
    Compressed { at: u64, value: u8 },
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Mapped { at: u64, len: u64, commit: bool },
    Resize { sectors: u64 },
    Snapshot,
    Flush,
    Reopen,
}

const SECTORS: u64 = 1024;

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => (0..SECTORS, 1..80u64, 1..255u8).prop_map(|(at, len, value)| Request::Write { at, len, value }),
        1 => (0..SECTORS, 1..255u8).prop_map(|(at, value)| Request::Compressed { at, value }),
        2 => (0..SECTORS, 1..80u64, any::<bool>()).prop_map(|(at, len, unmap)| Request::Zero { at, len, unmap }),
        2 => (0..SECTORS, 1..80u64).prop_map(|(at, len)| Request::Discard { at, len }),
        1 => (0..SECTORS, 1..80u64, any::<bool>()).prop_map(|(at, len, commit)| Request::Mapped { at, len, commit }),
        1 => (1..SECTORS).prop_map(|sectors| Request::Resize { sectors }),
        1 => Just(Request::Snapshot),
        1 => Just(Request::Flush),
        1 => Just(Request::Reopen),
    ]
}

fn range(at: u64, len: u64, model: &[u8]) -> std::ops::Range<usize> {
    let size = model.len();
    let start = usize::try_from(at * 512).unwrap().min(size);
    start..(start + usize::try_from(len * 512).unwrap()).min(size)
}

async fn run(requests: Vec<Request>, cluster_bytes: u64, backing: bool) {
    let options = CreateOptions {
        size: SECTORS * 512,
        cluster_bytes,
        ..CreateOptions::default()
    };
    let (file, mut image) = fresh(&options).await;
    let mut model = vec![0u8; usize::try_from(SECTORS * 512).unwrap()];
    // Shorter than the disk.
    let below: Arc<Memory> = Memory::with(vec![0xbb; 300 * 512]);
    if backing {
        image.set_backing(Some(below.clone()));
        model[..300 * 512].fill(0xbb);
    }
    for request in requests {
        match request {
            Request::Write { at, len, value } => {
                let range = range(at, len, &model);
                image
                    .write(
                        range.start as u64,
                        &vec![value; range.len()],
                        WriteFlags::default(),
                    )
                    .await
                    .unwrap();
                model[range].fill(value);
            }
            Request::Compressed { at, value } => {
                let start = at * 512 / cluster_bytes * cluster_bytes;
                let range = range(start / 512, cluster_bytes / 512, &model);
                let flags = WriteFlags {
                    compressed: true,
                    ..WriteFlags::default()
                };
                let data = vec![value; range.len()];
                if !range.is_empty() && image.write(start, &data, flags).await.is_ok() {
                    model[range].fill(value);
                }
            }
            Request::Zero { at, len, unmap } => {
                let range = range(at, len, &model);
                let flags = ZeroFlags {
                    may_unmap: unmap,
                    ..ZeroFlags::default()
                };
                if !range.is_empty() {
                    image
                        .write_zeroes(range.start as u64, range.len() as u64, flags)
                        .await
                        .unwrap();
                }
                model[range].fill(0);
            }
            Request::Discard { at, len } => {
                let range = range(at, len, &model);
                if range.is_empty() {
                    continue;
                }
                let (start, end) = (range.start as u64, range.end as u64);
                image.discard(start, end - start).await.unwrap();
                let from = start.next_multiple_of(cluster_bytes);
                let whole = if range.end == model.len() {
                    end
                } else {
                    end / cluster_bytes * cluster_bytes
                };
                if from < whole {
                    model[usize::try_from(from).unwrap()..usize::try_from(whole).unwrap()].fill(0);
                }
            }
            Request::Mapped { at, len, commit } => {
                let range = range(at, len, &model);
                if range.is_empty() {
                    continue;
                }
                let mapped = image
                    .map_for_write(range.start as u64, range.len() as u64)
                    .await
                    .unwrap();
                let Some(mapping) = mapped else { continue };
                let data = vec![0x77; usize::try_from(mapping.len).unwrap()];
                file.fill_mapping(&mapping, &data);
                if commit {
                    model[range.start..range.start + data.len()].fill(0x77);
                    image.commit_write(mapping).await.unwrap();
                } else {
                    image.abandon_write(mapping);
                }
            }
            Request::Resize { sectors } => {
                let old = model.len();
                image.truncate(sectors * 512, Preallocation::Off).await.unwrap();
                model.resize(usize::try_from(sectors * 512).unwrap(), 0);
                let _ = old;
            }
            Request::Snapshot => {
                let taken = image.create_snapshot(SnapshotInfo::default()).await.unwrap();
                if taken.id.ends_with(['2', '4']) {
                    image.delete_snapshot(&taken.id).await.unwrap();
                }
            }
            Request::Flush => image.flush().await.unwrap(),
            Request::Reopen => {
                image.close().await.unwrap();
                image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
                if backing {
                    image.set_backing(Some(below.clone()));
                }
            }
        }
        assert_content(&image, &model).await;
    }
    image.close().await.unwrap();
    let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
    let report = image.check(false).await.unwrap();
    assert_eq!(
        (report.corruptions, report.broken, report.leaks),
        (0, 0, 0),
        "{report:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn like_a_vector(
        requests in prop::collection::vec(request(), 1..40),
        cluster_bits in prop_oneof![Just(9u32), Just(12), Just(16)],
        backing in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(requests, 1 << cluster_bits, backing));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_at_once() {
    for inline in [false, true] {
        let options = CreateOptions {
            size: 4 << 20,
            cluster_bytes: 4096,
            ..CreateOptions::default()
        };
        let (file, image) = fresh(&options).await;
        if inline {
            file.inline();
        } else {
            file.stall(9);
        }
        let mut tasks = Vec::new();
        for quarter in 0..4u64 {
            let image = Arc::clone(&image);
            tasks.push(tokio::spawn(async move {
                // Rims of neighbours share clusters: quarters do not end with one.
                let (base, len) = (quarter * (1 << 20) + 512, (1u64 << 20) - 1024);
                let mut random = Random::new(quarter + 40);
                let mut model = vec![0u8; usize::try_from(len).unwrap()];
                for _ in 0..150 {
                    let at = random.below(len / 512) * 512;
                    let count = (random.below(40) * 512 + 512).min(len - at);
                    let range = usize::try_from(at).unwrap()..usize::try_from(at + count).unwrap();
                    let value = u8::try_from(random.below(255)).unwrap();
                    if random.below(5) == 0 {
                        let flags = ZeroFlags {
                            may_unmap: true,
                            ..ZeroFlags::default()
                        };
                        image.write_zeroes(base + at, count, flags).await.unwrap();
                        model[range].fill(0);
                    } else {
                        let data = vec![value; range.len()];
                        match image.try_write(base + at, &data, WriteFlags::default()) {
                            Some(result) => result.unwrap(),
                            None => image
                                .write(base + at, &data, WriteFlags::default())
                                .await
                                .unwrap(),
                        }
                        model[range].fill(value);
                    }
                    if random.below(20) == 0 {
                        image.flush().await.unwrap();
                    }
                    if random.below(60) == 0 {
                        let taken = image.create_snapshot(SnapshotInfo::default()).await.unwrap();
                        image.delete_snapshot(&taken.id).await.unwrap();
                    }
                }
                (base, model)
            }));
        }
        for task in tasks {
            let (base, model) = task.await.unwrap();
            let mut buf = vec![0u8; model.len()];
            image.read(base, &mut buf).await.unwrap();
            assert!(buf == model, "quarter at {base}");
        }
        image.close().await.unwrap();
        let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
        let report = image.check(false).await.unwrap();
        assert_eq!(
            (report.corruptions, report.broken, report.leaks),
            (0, 0, 0),
            "{report:?}"
        );
    }
}

/// A sparse disk of 64 TiB opens at once and in little memory.
#[tokio::test]
async fn huge_disks_are_cheap() {
    let options = CreateOptions {
        size: 64 << 40,
        ..CreateOptions::default()
    };
    let (file, image) = fresh(&options).await;
    // The L1 table of 1 MiB is all that grows with the disk.
    assert!(file.bytes().len() < 2 << 20);
    let status = image.block_status(0, 64 << 40, false).await.unwrap();
    assert_eq!(status.len, 64 << 40);
    for nth in 0..200u64 {
        image
            .write(
                nth * (64 << 40) / 200 / 4096 * 4096,
                &[1; 4096],
                WriteFlags::default(),
            )
            .await
            .unwrap();
    }
    image.discard(0, 64 << 40).await.unwrap();
    image.close().await.unwrap();
    let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
    let mut model = vec![0u8; 1 << 20];
    play(&image, &mut model, &mut Random::new(1), 20).await;
}
