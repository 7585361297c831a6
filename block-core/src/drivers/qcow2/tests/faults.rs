//! Everything that an image can be asked for, on images of every kind, with one thing going wrong at a time: killed,
//! power cut, a request that fails once or for ever, no space, no flush, a future that is dropped.

use std::sync::Arc;

use super::crash::{futures_poll, seeds};
use super::memory::Fault;
use super::script::{Kinds, Model, STEPS, Variant, judge, script, variant};
use super::{Folder, Random};
use crate::driver::{Driver, ImageStore, Preallocation, SnapshotInfo, StoredBitmap, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::Qcow2;

/// Every how manieth point is looked at; `QCOW2_CRASH_EVERY=1` is all of them.
fn every(default: u64) -> u64 {
    std::env::var("QCOW2_CRASH_EVERY")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn kinds_of(variant: &Variant, goes_on: bool) -> Kinds {
    Kinds {
        snapshots: variant.create.refcount_bits > 1,
        bitmaps: true,
        resize: true,
        names: variant.create.cluster_bytes > 512,
        goes_on,
    }
}

/// One way of going wrong after another, over a script that does a bit of everything.
#[tokio::test]
async fn whatever_goes_wrong() {
    for seed in seeds(1000, 4) {
        let variant = variant(seed);
        let (file, image) = variant.start().await;
        let base = file.requests();
        script(
            &image,
            &mut variant.model(),
            seed,
            kinds_of(&variant, false),
            STEPS,
        )
        .await
        .unwrap();
        image.close().await.unwrap();
        let total = file.requests() - base;
        let folder = Folder::new();
        // Large clusters take long to look at.
        let stride = every(if variant.create.cluster_bytes > 65536 {
            97
        } else {
            23
        });
        let mut at = seed % stride;
        while at <= total {
            let fault = base + at;
            for (nth, fault) in [
                Fault::From(fault),
                Fault::Once(fault),
                Fault::Half(fault),
                Fault::Done(fault),
                Fault::Flushes(fault),
            ]
            .into_iter()
            .enumerate()
            {
                let why = format!("seed {seed}, {fault:?} of {base}+{total}, {variant:?}");
                // Those that fail for ever end the script; after the others it goes on.
                let goes_on = !matches!(fault, Fault::From(_) | Fault::Flushes(_));
                let (file, image) = variant.start().await;
                file.fault(Some(fault));
                let mut model = variant.model();
                let _ = script(&image, &mut model, seed, kinds_of(&variant, goes_on), STEPS).await;
                let with_qemu = at / stride % 8 == nth as u64;
                finish(
                    &file,
                    image,
                    &model,
                    seed ^ at,
                    goes_on,
                    with_qemu.then_some(&folder),
                    &why,
                )
                .await;
            }
            at += stride;
        }
    }
}

/// Looks at what is left, after a kill and after a power cut, and after a close where that should work.
async fn finish(
    file: &super::memory::Memory,
    image: Arc<Qcow2>,
    model: &Model,
    seed: u64,
    closes: bool,
    folder: Option<&Folder>,
    why: &str,
) {
    let mut random = Random::new(seed);
    judge(file.bytes(), model, folder, why).await;
    for cut in 0..2 {
        let bytes = file.after_power_cut(&mut random);
        judge(
            bytes,
            model,
            folder.filter(|_| cut == 0),
            &format!("{why}, power cut {cut}"),
        )
        .await;
    }
    if closes {
        file.fault(None);
        file.limit(None);
        let mut content = vec![0u8; usize::try_from(image.length()).unwrap()];
        image
            .read(0, &mut content)
            .await
            .unwrap_or_else(|error| panic!("{error}: {why}"));
        model.check_now(&content, why);
        image
            .close()
            .await
            .unwrap_or_else(|error| panic!("{error}: {why}"));
        judge(file.bytes(), model, None, &format!("{why}, closed")).await;
    }
}

/// The file cannot grow for a while.
#[tokio::test]
async fn no_space_for_a_while() {
    for seed in seeds(2000, 12) {
        let variant = variant(seed);
        let (file, image) = variant.start().await;
        let folder = Folder::new();
        let mut model = variant.model();
        let why = format!("seed {seed}, no space, {variant:?}");
        let kinds = kinds_of(&variant, true);
        let _ = script(&image, &mut model, seed, kinds, STEPS).await;
        let room = file.bytes().len() as u64 + (seed % 4) * 1024;
        file.limit(Some(room));
        let _ = script(&image, &mut model, seed + 1, kinds, STEPS).await;
        judge(file.bytes(), &model, Some(&folder), &why).await;
        file.limit(None);
        let _ = script(&image, &mut model, seed + 2, kinds, STEPS).await;
        finish(&file, image, &model, seed, true, Some(&folder), &why).await;
    }
}

/// What a request of each kind does before it is dropped at its first, second, third.. await does no harm.
#[tokio::test]
async fn dropped_at_every_await() {
    for seed in seeds(3000, 2) {
        let variant = variant(seed);
        for operation in 0..9 {
            let mut polls = 0;
            let every = every(4);
            while !drop_after(&variant, seed, operation, polls).await {
                // The first awaits one by one, the many of a large operation here and there.
                polls += 1 + polls * (every - 1) / 8;
            }
        }
    }
}

/// True when the operation came to its end.
async fn drop_after(variant: &Variant, seed: u64, operation: u64, polls: u64) -> bool {
    let (file, image) = variant.start().await;
    let mut model = variant.model();
    let kinds = Kinds {
        snapshots: variant.create.refcount_bits > 1,
        goes_on: true,
        ..Kinds::default()
    };
    let why = format!("seed {seed}, operation {operation} dropped after {polls}, {variant:?}");
    script(&image, &mut model, seed, kinds, 12).await.unwrap();
    image.flush().await.unwrap();
    model.flush();
    file.stall(seed + polls);
    let size = model.size();
    let bitmap = StoredBitmap {
        name: "b".into(),
        granularity_bytes: 4096,
        auto: true,
        inconsistent: false,
        dirty: vec![(0, 4096)],
    };
    let cluster = usize::try_from(image.limits().cluster_bytes).unwrap();
    let data = vec![9u8; 3 * 4096];
    let whole = vec![5u8; cluster.min(usize::try_from(size).unwrap())];
    let compressed = WriteFlags {
        compressed: true,
        ..WriteFlags::default()
    };
    let done = {
        let mut snapshot = None;
        let mut plain = None;
        match operation {
            0 => {
                model.write(512, 3 * 4096, 9);
                plain = Some(image.write(512, &data, WriteFlags::default()));
            }
            1 => {
                model.write(0, whole.len() as u64, 5);
                plain = Some(image.write(0, &whole, compressed));
            }
            2 => {
                model.write(0, size, 0);
                plain = Some(image.write_zeroes(0, size, ZeroFlags::default()));
            }
            3 => {
                model.write(0, size, 0);
                plain = Some(image.discard(0, size));
            }
            4 => snapshot = Some(image.create_snapshot(SnapshotInfo::default())),
            5 => match image.snapshots().first() {
                // A future that owns what it borrows.
                Some(first) => {
                    let (image, id) = (Arc::clone(&image), first.id.clone());
                    plain = Some(Box::pin(async move { image.delete_snapshot(&id).await }));
                }
                None => return true,
            },
            6 if variant.create.version >= 3 => plain = Some(image.store_bitmaps(vec![bitmap])),
            7 => {
                model.write(size / 2, size - size / 2, 0);
                plain = Some(image.truncate(size / 2 / 512 * 512, Preallocation::Off));
            }
            8 => plain = Some(image.truncate(size + (1 << 20), Preallocation::Off)),
            _ => return true,
        }
        let mut done = false;
        for _ in 0..=polls {
            done = match (&mut plain, &mut snapshot) {
                (Some(request), _) => futures_poll(request).await,
                (_, Some(request)) => futures_poll(request).await,
                _ => true,
            };
            if done {
                break;
            }
        }
        done
    };
    let mut random = Random::new(seed + polls);
    model.forget_bitmaps();
    judge(file.bytes(), &model, None, &why).await;
    judge(
        file.after_power_cut(&mut random),
        &model,
        None,
        &format!("{why}, power cut"),
    )
    .await;
    // Others go on, and then it is closed.
    let length = image.length();
    if length >= 8192 {
        image
            .write(length - 8192, &[3; 4096], WriteFlags::default())
            .await
            .unwrap();
        model.fit(length);
        model.write(length - 8192, 4096, 3);
        model.done(length - 8192, 4096);
    }
    image.flush().await.unwrap();
    model.flush();
    judge(
        file.after_power_cut(&mut random),
        &model,
        None,
        &format!("{why}, went on"),
    )
    .await;
    let mut content = vec![0u8; usize::try_from(length).unwrap()];
    image.read(0, &mut content).await.unwrap();
    model.check_now(&content, &why);
    image.close().await.unwrap();
    let folder = Folder::new();
    judge(
        file.bytes(),
        &model,
        polls.is_multiple_of(8).then_some(&folder),
        &format!("{why}, closed"),
    )
    .await;
    done
}

/// Several writers, each in a part of its own, some of whose requests are dropped, while snapshots come and go and the
/// power fails at some moment.
#[tokio::test]
async fn several_at_once() {
    const PARTS: u64 = 4;
    for seed in seeds(4000, 30) {
        let variant = variant(seed);
        let part = variant.create.size / 512 / PARTS * 512;
        let (file, image) = variant.start().await;
        file.stall(seed);
        let mut random = Random::new(seed);
        let base = file.requests();
        file.fault(Some(Fault::From(base + 20 + random.below(400))));
        let mut model = variant.model();
        for round in 0..20u64 {
            let mut tasks = Vec::new();
            for task in 0..=PARTS {
                let image = Arc::clone(&image);
                let offset = task.min(PARTS - 1) * part + random.below(part / 512) * 512;
                let len = (random.below(30) * 512 + 512).min((task.min(PARTS - 1) + 1) * part - offset);
                let value = u8::try_from(random.below(250) + 1).unwrap();
                let (what, drops) = (random.below(8), random.below(3) == 0);
                let polls = random.below(20);
                if task == PARTS {
                    if variant.create.refcount_bits == 1 || round % 4 != 0 {
                        continue;
                    }
                } else {
                    model.write(offset, len, if what < 6 { value } else { 0 });
                }
                tasks.push(tokio::spawn(async move {
                    let data = vec![value; usize::try_from(len).unwrap()];
                    let mut request: crate::driver::IoFuture<'_> = match (task == PARTS, what) {
                        (true, 0..4) => Box::pin(async {
                            image.create_snapshot(SnapshotInfo::default()).await.map(|_| ())
                        }),
                        (true, _) => Box::pin(async {
                            match image.snapshots().first() {
                                Some(first) => image.delete_snapshot(&first.id).await,
                                None => Ok(()),
                            }
                        }),
                        (_, 0..6) => image.write(offset, &data, WriteFlags::default()),
                        _ => image.write_zeroes(offset, len, ZeroFlags::default()),
                    };
                    let done = if drops {
                        // What it ends with is not looked at: nobody knows what is there.
                        for _ in 0..polls {
                            if futures_poll(&mut request).await {
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        false
                    } else {
                        request.await.is_ok()
                    };
                    (done && task < PARTS).then_some((offset, len))
                }));
            }
            for task in tasks {
                if let Some((offset, len)) = task.await.unwrap() {
                    model.done(offset, len);
                }
            }
            if round % 3 == 0 && image.flush().await.is_ok() {
                model.flush();
            }
        }
        model.forget_bitmaps();
        let folder = Folder::new();
        let why = format!("seed {seed}, {variant:?}");
        drop(image);
        judge(file.bytes(), &model, Some(&folder), &why).await;
        for cut in 0..3 {
            let bytes = file.after_power_cut(&mut random);
            judge(
                bytes,
                &model,
                (cut == 0).then_some(&folder),
                &format!("{why}, power cut {cut}"),
            )
            .await;
        }
    }
}
