//! Random work on an image with a model of what must be there afterwards, whatever went wrong on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::memory::Memory;
use super::{Folder, Random, assert_check, qemu};
use crate::Result;
use crate::driver::{Driver, ImageStore, Preallocation, SnapshotInfo, StoredBitmap, WriteFlags, ZeroFlags};
use crate::drivers::qcow2::{Compression, CreateOptions, OpenOptions, Qcow2, create};

/// What a script may do besides writing, zeroing, discarding and flushing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kinds {
    pub(super) snapshots: bool,
    pub(super) bitmaps: bool,
    pub(super) resize: bool,
    pub(super) names: bool,
    /// Goes on after a request that failed.
    pub(super) goes_on: bool,
}

/// What the stored bitmaps must be.
#[derive(Debug, Clone)]
enum Stored {
    Sure(Vec<StoredBitmap>),
    Unsure,
}

/// What the disk may hold: the last flushed value, or anything written since.
#[derive(Debug)]
pub(super) struct Model {
    now: Vec<u8>,
    flushed: Vec<u8>,
    /// Sectors written since the last flush.
    touched: Vec<bool>,
    /// Sectors whose last write failed: nobody knows what they hold.
    unsure: Vec<bool>,
    stored: Stored,
    /// What the snapshots hold, by name.
    snapshots: BTreeMap<String, Vec<u8>>,
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

impl Model {
    pub(super) fn new(size: u64) -> Self {
        let len = index(size);
        Self {
            now: vec![0; len],
            flushed: vec![0; len],
            touched: vec![false; len / 512],
            unsure: vec![false; len / 512],
            stored: Stored::Sure(Vec::new()),
            snapshots: BTreeMap::new(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.now.len() as u64
    }

    /// A write begins.
    pub(super) fn write(&mut self, offset: u64, len: u64, value: u8) {
        let (start, end) = (index(offset), index(offset + len));
        self.now[start..end].fill(value);
        self.touched[start / 512..end.div_ceil(512)].fill(true);
        self.unsure[start / 512..end.div_ceil(512)].fill(true);
    }

    /// It came to a good end.
    pub(super) fn done(&mut self, offset: u64, len: u64) {
        self.unsure[index(offset) / 512..index(offset + len).div_ceil(512)].fill(false);
    }

    pub(super) fn flush(&mut self) {
        self.flushed.clone_from(&self.now);
        self.touched.clone_from(&self.unsure);
    }

    /// Nothing is known of the stored bitmaps any more.
    pub(super) fn forget_bitmaps(&mut self) {
        self.stored = Stored::Unsure;
    }

    /// The disk has this length now; nothing is known of what it lost or gained.
    pub(super) fn fit(&mut self, size: u64) {
        self.resize(size);
    }

    fn resize(&mut self, size: u64) {
        let len = index(size);
        self.now.resize(len, 0);
        self.flushed.resize(len, 0);
        self.touched.resize(len / 512, false);
        self.unsure.resize(len / 512, false);
    }

    fn compare(&self, content: &[u8], expected: &[u8], skip: &[bool], why: &str) {
        for (nth, skip) in skip.iter().enumerate() {
            let range = nth * 512..nth * 512 + 512;
            assert!(
                *skip
                    || content.get(range.clone()) == expected.get(range.clone())
                    || content.len() < range.end,
                "data lost at {} ({:?} instead of {:?}): {why}",
                range.start,
                content.get(range.start),
                expected.get(range.start)
            );
        }
    }

    /// What was flushed is there.
    fn check_flushed(&self, content: &[u8], why: &str) {
        self.compare(content, &self.flushed, &self.touched, why);
    }

    /// What was written is there.
    pub(super) fn check_now(&self, content: &[u8], why: &str) {
        self.compare(content, &self.now, &self.unsure, why);
    }
}

fn bitmap(name: &str, random: &mut Random, size: u64) -> StoredBitmap {
    let bits = size / 4096;
    let first = random.below(bits) * 4096;
    let second = first + 8192;
    let mut dirty = vec![(first, 4096)];
    if second + 4096 <= size {
        dirty.push((second, 4096));
    }
    StoredBitmap {
        name: name.into(),
        granularity_bytes: 4096,
        auto: true,
        inconsistent: false,
        dirty,
    }
}

/// How many steps a script has mostly.
pub(super) const STEPS: u64 = 40;

/// So many steps; stops at the first failure unless it is to go on.
pub(super) async fn script(
    image: &Qcow2,
    model: &mut Model,
    seed: u64,
    kinds: Kinds,
    steps: u64,
) -> Result<()> {
    let mut random = Random::new(seed);
    for step in 0..steps {
        let result = one_step(image, model, &mut random, step, kinds).await;
        if result.is_err() && !kinds.goes_on {
            return result;
        }
    }
    Ok(())
}

async fn one_step(
    image: &Qcow2,
    model: &mut Model,
    random: &mut Random,
    step: u64,
    kinds: Kinds,
) -> Result<()> {
    let size = model.size();
    let cluster = u64::from(image.limits().cluster_bytes);
    let offset = random.below(size / 512) * 512;
    let len = (random.below(40) * 512 + 512).min(size - offset);
    let kind = random.below(16);
    let coin = random.below(2) == 0;
    match kind {
        0..=5 => {
            let value = u8::try_from(random.below(250) + 1).unwrap();
            model.write(offset, len, value);
            let flags = WriteFlags {
                fua: kind == 5,
                ..WriteFlags::default()
            };
            image.write(offset, &vec![value; index(len)], flags).await?;
            model.done(offset, len);
        }
        6 => {
            model.write(offset, len, 0);
            let flags = ZeroFlags {
                may_unmap: coin,
                ..ZeroFlags::default()
            };
            image.write_zeroes(offset, len, flags).await?;
            model.done(offset, len);
        }
        7 => {
            let (from, to) = (
                offset.next_multiple_of(cluster),
                (offset + len) / cluster * cluster,
            );
            if from < to {
                model.write(from, to - from, 0);
                image.discard(from, to - from).await?;
                model.done(from, to - from);
            }
        }
        8 => {
            let at = offset / cluster * cluster;
            let len = cluster.min(size - at);
            // What compresses well and what does not so well.
            let data: Vec<u8> = (0..len)
                .map(|at| if coin { 7 } else { (at / 9 % 251) as u8 })
                .collect();
            model.write(at, len, 7);
            model.now[index(at)..index(at + len)].copy_from_slice(&data);
            let flags = WriteFlags {
                compressed: true,
                ..WriteFlags::default()
            };
            // Refused where plain data are already.
            if image.write(at, &data, flags).await.is_err() {
                image.write(at, &data, WriteFlags::default()).await?;
            }
            model.done(at, len);
        }
        9 | 10 if kinds.snapshots && step.is_multiple_of(2) => {
            let list = image.snapshots();
            if list.len() >= 2 && coin {
                let gone = &list[index(random.below(2))];
                model.snapshots.remove(&gone.name);
                image.delete_snapshot(&gone.id).await?;
            } else {
                let name = format!("s{step}-{}", random.next());
                let info = SnapshotInfo {
                    name: name.clone(),
                    ..SnapshotInfo::default()
                };
                let unsure = model.unsure.contains(&true);
                image.create_snapshot(info).await?;
                // It flushes on the way.
                model.flush();
                if !unsure {
                    model.snapshots.insert(name, model.now.clone());
                }
            }
        }
        11 | 12 if kinds.bitmaps && image.can_store_bitmap("b", 4096).is_ok() => {
            let Stored::Sure(now) = &model.stored else {
                // Everything anew.
                image.store_bitmaps(Vec::new()).await?;
                model.stored = Stored::Sure(Vec::new());
                return Ok(());
            };
            let mut list = now.clone();
            model.stored = Stored::Unsure;
            match random.below(5) {
                0 if !list.is_empty() => {
                    // In use from now on: nothing can be said before they are stored again.
                    image.load_bitmaps().await?;
                    return Ok(());
                }
                1 if !list.is_empty() => {
                    let gone = list.remove(0);
                    image.remove_bitmap(&gone.name).await?;
                }
                2 if list.len() >= 2 => {
                    // Merged: the union takes the place of both.
                    let other = list.remove(0);
                    let mut all: Vec<_> = list[0]
                        .dirty
                        .iter()
                        .chain(&other.dirty)
                        .map(|range| range.0)
                        .collect();
                    all.sort_unstable();
                    all.dedup();
                    let mut dirty: Vec<(u64, u64)> = Vec::new();
                    for at in all {
                        match dirty.last_mut() {
                            Some((start, len)) if *start + *len == at => *len += 4096,
                            _ => dirty.push((at, 4096)),
                        }
                    }
                    list[0].dirty = dirty;
                    image.store_bitmaps(list.clone()).await?;
                }
                _ => {
                    list.push(bitmap(&format!("b{step}-{}", random.next()), random, size));
                    image.store_bitmaps(list.clone()).await?;
                }
            }
            model.stored = Stored::Sure(list);
        }
        13 if kinds.resize => {
            // The bitmaps that are stored are of the old size: they go first.
            if !matches!(&model.stored, Stored::Sure(list) if list.is_empty()) {
                model.stored = Stored::Unsure;
                image.store_bitmaps(Vec::new()).await?;
                model.stored = Stored::Sure(Vec::new());
            }
            if image.snapshots().is_empty() || !coin {
                let new = (random.below(3 * MAX_SIZE / 8192) + 1) * 4096;
                let old = model.size();
                if new < old {
                    model.touched[index(new) / 512..].fill(true);
                    model.unsure[index(new) / 512..].fill(true);
                }
                match image.truncate(new, Preallocation::Off).await {
                    Err(error) if error.kind() == crate::ErrorKind::Unsupported => {}
                    Err(error) => return Err(error),
                    Ok(()) => model.flush(),
                }
                model.resize(image.length());
            }
        }
        14 if kinds.names => {
            // Reads as zeroes, which is what is seen without it; the name is as long as the spaces make it.
            let spaces = " ".repeat(index(random.below(300)));
            let name = format!(
                r#"json:{{{spaces}"driver":"raw","file":{{"driver":"null-co","size":4194304,"read-zeroes":true}}}}"#
            );
            let format = (random.below(2) == 0).then(|| "raw".to_owned());
            let backing = coin.then_some((name, format));
            let _ = image.change_backing_file(backing).await;
        }
        _ => {
            image.flush().await?;
            model.flush();
        }
    }
    Ok(())
}

/// The largest disk of a script, twice.
const MAX_SIZE: u64 = 1 << 20;

/// Opens what was left, checks it, compares what was flushed. With a folder QEMU has a look as well.
pub(super) async fn judge(bytes: Vec<u8>, model: &Model, folder: Option<&Folder>, why: &str) {
    let dirty = bytes[4..8] == [0, 0, 0, 3] && bytes[79] & 1 != 0;
    let file = Memory::with(bytes);
    // Refcounts that are behind on purpose are nothing to show before they are set right.
    let path = folder.map(|folder| folder.path("image.qcow2"));
    if let Some(path) = path.as_ref().filter(|_| !dirty) {
        std::fs::write(path, file.bytes()).unwrap();
        check(path, why);
        if let Some(folder) = folder {
            check_snapshots(folder, path, model, why);
        }
    }
    let image = match Qcow2::open(file.clone(), OpenOptions::default()).await {
        Ok(image) => image,
        Err(error) => panic!("cannot be opened: {error}: {why}"),
    };
    let report = image.check(false).await.unwrap();
    assert_eq!((report.corruptions, report.broken), (0, 0), "{report:?}: {why}");
    let mut content = vec![0u8; index(image.length())];
    image.read(0, &mut content).await.unwrap();
    model.check_flushed(&content, why);
    if let Stored::Sure(expected) = &model.stored {
        let mut found = image
            .load_bitmaps()
            .await
            .unwrap_or_else(|error| panic!("{error}: {why}"));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let mut expected = expected.clone();
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        let brief = |list: &[StoredBitmap]| -> Vec<_> {
            list.iter()
                .map(|bitmap| (bitmap.name.clone(), bitmap.inconsistent, bitmap.dirty.clone()))
                .collect()
        };
        assert_eq!(brief(&found), brief(&expected), "{why}");
    }
    // It goes on working.
    image.write(0, &[1; 4096], WriteFlags::default()).await.unwrap();
    image.close().await.unwrap();
    let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
    let report = image.check(false).await.unwrap();
    assert_eq!(
        (report.corruptions, report.broken),
        (0, 0),
        "after going on {report:?}: {why}"
    );
    if let Some(path) = path.filter(|_| dirty) {
        std::fs::write(&path, file.bytes()).unwrap();
        check(&path, why);
    }
}

fn check(path: &std::path::Path, why: &str) {
    let caught = std::panic::catch_unwind(|| assert_check(path, true));
    assert!(caught.is_ok(), "{why}");
}

/// The snapshots that must be there hold what they held.
fn check_snapshots(folder: &Folder, path: &std::path::Path, model: &Model, why: &str) {
    let raw = folder.path("snapshot.raw");
    for (name, content) in &model.snapshots {
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
            assert_eq!(code, 0, "{text}: {why}");
            let found = std::fs::read(&raw).unwrap();
            // As long as the disk is now, and what the snapshot lacks or has beyond that is not shown.
            let differs = found.iter().zip(content).position(|(a, b)| a != b);
            assert!(differs.is_none(), "snapshot {name} differs at {differs:?}: {why}");
        }
    }
}

/// An image of some kind, and how it is opened.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) create: CreateOptions,
    pub(super) small_caches: bool,
}

impl Variant {
    pub(super) async fn start(&self) -> (Arc<Memory>, Arc<Qcow2>) {
        let file = Memory::new();
        create(file.clone(), &self.create).await.unwrap();
        let options = OpenOptions {
            l2_cache_bytes: self.small_caches.then_some(512),
            refcount_cache_bytes: self.small_caches.then_some(512),
            ..OpenOptions::default()
        };
        let image = Qcow2::open(file.clone(), options).await.unwrap();
        (file, image)
    }

    pub(super) fn model(&self) -> Model {
        Model::new(self.create.size)
    }
}

/// The `nth` of endlessly many kinds of images; small clusters and odd widths come often.
pub(super) fn variant(nth: u64) -> Variant {
    let mut random = Random::new(nth ^ 0x5eed);
    let version = if random.below(4) == 0 { 2 } else { 3 };
    let cluster_bytes = 512
        << if random.below(16) == 0 {
            12
        } else {
            [0, 0, 1, 2, 3, 3, 5, 7][index(random.below(8))]
        };
    let v3 = version == 3;
    Variant {
        create: CreateOptions {
            size: (random.below(60) + 4) * 4096 + if random.below(3) == 0 { 512 } else { 0 },
            cluster_bytes,
            refcount_bits: if v3 { 1 << random.below(7) } else { 16 },
            version,
            lazy_refcounts: v3 && random.below(4) == 0,
            compression: if v3 && random.below(2) == 0 {
                Compression::Zstd
            } else {
                Compression::Zlib
            },
            preallocation: if random.below(6) == 0 {
                Preallocation::Metadata
            } else {
                Preallocation::Off
            },
            ..CreateOptions::default()
        },
        small_caches: random.below(3) == 0,
    }
}
