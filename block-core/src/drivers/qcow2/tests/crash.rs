//! Power cuts: whatever of the unflushed writes is lost, torn or reordered, the image stays consistent and what was
//! flushed is there.

use std::sync::Arc;

use super::memory::Memory;
use super::script::{Kinds, Model, STEPS, judge, script};
use super::{Folder, Random, assert_check};
use crate::driver::{Driver, Preallocation, WriteFlags};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2, Storage, create};

const SIZE: u64 = 256 << 10;

/// The seeds of a test: its own, or those that `QCOW2_CRASH_SEEDS=FIRST:COUNT` asks for.
pub(super) fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("QCOW2_CRASH_SEEDS").ok().and_then(|text| {
        let (first, count) = text.split_once(':')?;
        Some((first.parse().ok()?, count.parse().ok()?))
    });
    let (first, count): (u64, u64) = asked.unwrap_or((first, count));
    first..first + count
}

async fn start(options: &CreateOptions) -> (Arc<Memory>, Arc<Qcow2>) {
    let file = Memory::new();
    create(file.clone(), options).await.unwrap();
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    (file, image)
}

fn variants() -> Vec<CreateOptions> {
    let of = |cluster_bytes, refcount_bits, version| CreateOptions {
        size: SIZE,
        cluster_bytes,
        refcount_bits,
        version,
        ..CreateOptions::default()
    };
    vec![of(512, 16, 3), of(4096, 16, 2), of(4096, 1, 3), of(65536, 64, 3)]
}

#[tokio::test]
async fn killed_after_every_write() {
    for seed in seeds(11, 1) {
        for (nth, options) in variants().into_iter().enumerate() {
            kill_after_every_write(seed, nth, &options).await;
        }
    }
}

async fn kill_after_every_write(seed: u64, nth: usize, options: &CreateOptions) {
    let kinds = Kinds {
        snapshots: options.refcount_bits > 1,
        bitmaps: true,
        ..Kinds::default()
    };
    let (file, image) = start(options).await;
    let base = file.writes();
    script(&image, &mut Model::new(SIZE), seed, kinds, STEPS)
        .await
        .unwrap();
    image.close().await.unwrap();
    let total = file.writes() - base;
    let folder = Folder::new();
    for budget in 0..=total {
        let (file, image) = start(options).await;
        file.fail_after(budget);
        let mut model = Model::new(SIZE);
        let ended = script(&image, &mut model, seed, kinds, STEPS).await;
        drop(image);
        let why = format!(
            "seed {seed}, variant {nth}, killed after write {budget} of {total}, script {}",
            ended.is_ok()
        );
        // QEMU's own judgement now and then: it takes a process each.
        let folder = (budget % 17 == 0).then_some(&folder);
        // All that was written is there, as after kill -9.
        judge(file.bytes(), &model, folder, &why).await;
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(budget));
        for cut in 0..3 {
            let why = format!("{why}, power cut {cut}");
            let bytes = file.after_power_cut(&mut random);
            judge(bytes, &model, folder.filter(|_| cut == 0), &why).await;
        }
    }
}

/// Requests at the same time, some of them dropped half-way.
#[tokio::test]
async fn dropped_requests_do_no_harm() {
    for seed in seeds(0, 60) {
        let options = variants().remove(usize::try_from(seed % 4).unwrap());
        let (file, image) = start(&options).await;
        file.stall(seed + 1);
        let mut random = Random::new(seed + 100);
        let mut sure = vec![0u8; usize::try_from(SIZE).unwrap()];
        for _ in 0..40 {
            // Four neighbours at a time, each in a quarter of its own, so that the outcome is known.
            let mut parts = Vec::new();
            for quarter in 0..4u64 {
                let base = quarter * SIZE / 4;
                let offset = base + random.below(SIZE / 4 / 512) * 512;
                let len = (random.below(30) * 512 + 512).min(base + SIZE / 4 - offset);
                let value = u8::try_from(random.below(250) + 1).unwrap();
                parts.push((offset, len, value, random.below(3) == 0, random.below(12)));
            }
            let mut tasks = Vec::new();
            for (offset, len, value, drops, after) in parts.clone() {
                let image = Arc::clone(&image);
                tasks.push(tokio::spawn(async move {
                    let data = vec![value; usize::try_from(len).unwrap()];
                    let write = image.write(offset, &data, WriteFlags::default());
                    if drops {
                        // Polled a few times, then dropped.
                        let mut write = write;
                        for _ in 0..after {
                            let done = futures_poll(&mut write).await;
                            if done {
                                return true;
                            }
                            tokio::task::yield_now().await;
                        }
                        false
                    } else {
                        write.await.unwrap();
                        true
                    }
                }));
            }
            for (task, (offset, len, value, ..)) in tasks.into_iter().zip(parts) {
                let done = task.await.unwrap();
                let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
                if done {
                    sure[range].fill(value);
                } else {
                    // Old or new, sector by sector: write it again to know.
                    let data = vec![value; usize::try_from(len).unwrap()];
                    image.write(offset, &data, WriteFlags::default()).await.unwrap();
                    sure[range].fill(value);
                }
            }
            if random.below(3) == 0 {
                image.flush().await.unwrap();
            }
        }
        let mut content = vec![0u8; sure.len()];
        image.read(0, &mut content).await.unwrap();
        assert!(content == sure, "seed {seed}");
        image.close().await.unwrap();
        let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
        let report = image.check(false).await.unwrap();
        assert_eq!(
            (report.corruptions, report.broken, report.leaks),
            (0, 0, 0),
            "seed {seed}: {report:?}"
        );
    }
}

/// Polls once; true when done.
pub(super) async fn futures_poll<T>(future: &mut crate::driver::IoFuture<'_, T>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn lazy_refcounts_are_repaired() {
    let options = CreateOptions {
        size: SIZE,
        cluster_bytes: 4096,
        lazy_refcounts: true,
        ..CreateOptions::default()
    };
    for seed in seeds(0, 10) {
        let (file, image) = start(&options).await;
        let mut model = Model::new(SIZE);
        script(&image, &mut model, seed, Kinds::default(), STEPS)
            .await
            .unwrap();
        image.flush().await.unwrap();
        model.flush();
        assert_eq!(image.info().dirty, Some(true));
        drop(image);
        judge(file.after_power_cut(&mut Random::new(seed)), &model, None, "lazy").await;
        let (file, image) = start(&options).await;
        script(&image, &mut Model::new(SIZE), seed, Kinds::default(), STEPS)
            .await
            .unwrap();
        image.close().await.unwrap();
        let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
        assert_eq!(image.info().dirty, Some(false));
        let report = image.check(false).await.unwrap();
        assert_eq!(
            (report.corruptions, report.broken, report.leaks),
            (0, 0, 0),
            "{report:?}"
        );
    }
}

/// A dirty image may lack whole refcount blocks: they are made anew.
#[tokio::test]
async fn missing_refcount_blocks_are_made_anew() {
    for (refcount_bits, lost) in [(16, vec![0]), (64, vec![1, 3]), (64, vec![0, 1, 2, 3, 4])] {
        let options = CreateOptions {
            size: SIZE,
            cluster_bytes: 512,
            refcount_bits,
            ..CreateOptions::default()
        };
        let (file, image) = start(&options).await;
        let data: Vec<u8> = (0..SIZE)
            .map(|at| u8::try_from(at / 512 % 251).unwrap())
            .collect();
        image.write(0, &data, WriteFlags::default()).await.unwrap();
        image.close().await.unwrap();
        let mut bytes = file.bytes();
        let table = usize::try_from(u64::from_be_bytes(bytes[48..56].try_into().unwrap())).unwrap();
        for block in lost {
            bytes[table + block * 8..table + block * 8 + 8].fill(0);
        }
        // Dirty, so that opening repairs.
        bytes[79] |= 1;
        let file = Memory::with(bytes);
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        let mut back = vec![0; data.len()];
        image.read(0, &mut back).await.unwrap();
        assert!(back == data);
        image.write(512, &[9; 2048], WriteFlags::default()).await.unwrap();
        image.close().await.unwrap();
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        let report = image.check(false).await.unwrap();
        assert_eq!(
            (report.corruptions, report.broken, report.leaks),
            (0, 0, 0),
            "{report:?}"
        );
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
    }
}

#[tokio::test]
async fn small_caches_make_progress() {
    let file = Memory::new();
    let options = CreateOptions {
        size: 32 << 20,
        cluster_bytes: 512,
        refcount_bits: 64,
        ..CreateOptions::default()
    };
    create(file.clone(), &options).await.unwrap();
    let small = OpenOptions {
        l2_cache_bytes: Some(512),
        refcount_cache_bytes: Some(512),
        ..OpenOptions::default()
    };
    let image = Qcow2::open(file.clone(), small).await.unwrap();
    let mut model = vec![0u8; 32 << 20];
    super::basic::play(&image, &mut model, &mut Random::new(4), 600).await;
    super::basic::assert_content(&image, &model).await;
    image.truncate(33 << 20, Preallocation::Off).await.unwrap();
    image.close().await.unwrap();
    let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
    let report = image.check(false).await.unwrap();
    assert_eq!(
        (report.corruptions, report.broken, report.leaks),
        (0, 0, 0),
        "{report:?}"
    );
    let _: &dyn Storage = image.file.as_ref();
}
