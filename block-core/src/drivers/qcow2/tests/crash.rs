//! Power cuts: whatever of the unflushed writes is lost, torn or reordered, the image stays consistent and what was
//! flushed is there.

use std::sync::Arc;

use super::memory::Memory;
use super::{Folder, Random, assert_check};
use crate::driver::{Driver, ImageStore, Preallocation, SnapshotInfo, StoredBitmap, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::{CreateOptions, OpenOptions, Qcow2, Storage, create};

const SIZE: u64 = 256 << 10;

/// The seeds of a test: its own, or those that `QCOW2_CRASH_SEEDS=FIRST:COUNT` asks for.
fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("QCOW2_CRASH_SEEDS").ok().and_then(|text| {
        let (first, count) = text.split_once(':')?;
        Some((first.parse().ok()?, count.parse().ok()?))
    });
    let (first, count): (u64, u64) = asked.unwrap_or((first, count));
    first..first + count
}

/// What the disk may hold at a place: the last flushed value, or any written since.
struct Model {
    now: Vec<u8>,
    flushed: Vec<u8>,
    /// Sectors written since the last flush may hold anything that was ever put there meanwhile.
    touched: Vec<bool>,
}

impl Model {
    fn new() -> Self {
        let len = usize::try_from(SIZE).unwrap();
        Self {
            now: vec![0; len],
            flushed: vec![0; len],
            touched: vec![false; len / 512],
        }
    }

    fn write(&mut self, offset: u64, len: u64, value: u8) {
        let (start, end) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(offset + len).unwrap(),
        );
        self.now[start..end].fill(value);
        self.touched[start / 512..end.div_ceil(512)].fill(true);
    }

    fn flush(&mut self) {
        self.flushed.clone_from(&self.now);
        self.touched.fill(false);
    }

    fn check(&self, content: &[u8], why: &str) {
        for (nth, touched) in self.touched.iter().enumerate() {
            let range = nth * 512..nth * 512 + 512;
            assert!(
                *touched || content[range.clone()] == self.flushed[range],
                "flushed data lost at {}: {why}",
                nth * 512
            );
        }
    }
}

/// The scripted run; stops quietly when a request fails.
async fn script(image: &Qcow2, model: &mut Model, seed: u64, snapshots: bool) -> crate::Result<()> {
    let mut random = Random::new(seed);
    for step in 0..40 {
        let offset = random.below(SIZE / 512) * 512;
        let len = (random.below(40) * 512 + 512).min(SIZE - offset);
        match random.below(12) {
            0..=5 => {
                let value = u8::try_from(random.below(250) + 1).unwrap();
                model.write(offset, len, value);
                let data = vec![value; usize::try_from(len).unwrap()];
                image.write(offset, &data, WriteFlags::default()).await?;
            }
            6 => {
                model.write(offset, len, 0);
                let flags = ZeroFlags {
                    may_unmap: random.below(2) == 0,
                    ..ZeroFlags::default()
                };
                image.write_zeroes(offset, len, flags).await?;
            }
            7 => {
                let cluster = u64::from(image.limits().cluster_bytes);
                let (from, to) = (
                    offset.next_multiple_of(cluster),
                    (offset + len) / cluster * cluster,
                );
                if from < to {
                    model.write(from, to - from, 0);
                    image.discard(from, to - from).await?;
                }
            }
            8 => {
                let cluster = u64::from(image.limits().cluster_bytes);
                let at = offset / cluster * cluster;
                let data = vec![7; usize::try_from(cluster).unwrap()];
                let flags = WriteFlags {
                    compressed: true,
                    ..WriteFlags::default()
                };
                // Refused where plain data are already.
                model.write(at, cluster, 7);
                if image.write(at, &data, flags).await.is_err() {
                    image.write(at, &data, WriteFlags::default()).await?;
                }
            }
            9 if snapshots && step % 3 == 0 => {
                let taken = image.create_snapshot(SnapshotInfo::default()).await?;
                // It flushed on the way.
                model.flush();
                if random.below(2) == 0 {
                    image.delete_snapshot(&taken.id).await?;
                }
            }
            10 if image.can_store_bitmap("b", 512).is_ok() => {
                let bitmap = StoredBitmap {
                    name: format!("b{step}"),
                    granularity_bytes: 512,
                    auto: true,
                    inconsistent: false,
                    dirty: vec![(0, 65536), (SIZE / 2, 512)],
                };
                image.store_bitmaps(vec![bitmap]).await?;
            }
            _ => {
                image.flush().await?;
                model.flush();
            }
        }
    }
    Ok(())
}

/// Opens what a power cut left, checks it, and compares what was flushed.
async fn judge(bytes: Vec<u8>, model: &Model, folder: Option<&Folder>, why: &str) {
    let file = Memory::with(bytes);
    if let Some(folder) = folder {
        let path = folder.path("image.qcow2");
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, true);
    }
    let image = match Qcow2::open(file.clone(), OpenOptions::default()).await {
        Ok(image) => image,
        Err(error) => panic!("cannot be opened: {error}: {why}"),
    };
    let report = image.check(false).await.unwrap();
    assert_eq!((report.corruptions, report.broken), (0, 0), "{report:?}: {why}");
    let mut content = vec![0u8; usize::try_from(SIZE).unwrap()];
    image.read(0, &mut content).await.unwrap();
    model.check(&content, why);
    // It goes on working.
    image.write(0, &[1; 4096], WriteFlags::default()).await.unwrap();
    image.close().await.unwrap();
    let image = Qcow2::open(file, OpenOptions::default()).await.unwrap();
    let report = image.check(false).await.unwrap();
    assert_eq!(
        (report.corruptions, report.broken),
        (0, 0),
        "after going on {report:?}: {why}"
    );
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
    let snapshots = options.version >= 3 && options.refcount_bits > 1;
    let (file, image) = start(options).await;
    let base = file.writes();
    script(&image, &mut Model::new(), seed, snapshots).await.unwrap();
    image.close().await.unwrap();
    let total = file.writes() - base;
    let folder = Folder::new();
    for budget in 0..=total {
        let (file, image) = start(options).await;
        file.fail_after(budget);
        let mut model = Model::new();
        let ended = script(&image, &mut model, seed, snapshots).await;
        drop(image);
        let why = format!(
            "seed {seed}, variant {nth}, killed after write {budget} of {total}, script {}",
            ended.is_ok()
        );
        // QEMU's own judgement now and then: it takes a process each.
        let folder = (budget % 97 == 0).then_some(&folder);
        // All that was written is there, as after kill -9.
        judge(file.bytes(), &model, folder.filter(|_| !snapshots), &why).await;
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(budget));
        for cut in 0..3 {
            let why = format!("{why}, power cut {cut}");
            judge(
                file.after_power_cut(&mut random),
                &model,
                folder.filter(|_| !snapshots),
                &why,
            )
            .await;
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
async fn futures_poll(future: &mut crate::driver::IoFuture<'_>) -> bool {
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
        let mut model = Model::new();
        script(&image, &mut model, seed, false).await.unwrap();
        image.flush().await.unwrap();
        model.flush();
        assert_eq!(image.info().dirty, Some(true));
        drop(image);
        judge(file.after_power_cut(&mut Random::new(seed)), &model, None, "lazy").await;
        let (file, image) = start(&options).await;
        script(&image, &mut Model::new(), seed, false).await.unwrap();
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
