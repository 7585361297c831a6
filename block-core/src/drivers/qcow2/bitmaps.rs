//! Dirty bitmaps that are stored in the image: the bitmaps extension.
//!
//! The directory stays in memory as it lies on disk. Storing writes everything anew and switches over with one write
//! of the header's sector; what was there before is freed afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::bytes::{be16, be32, be64, encode_table, part, to_u64, to_usize};
use super::header::{AUTOCLEAR_BITMAPS, BitmapsExtension, Header, MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS};
use super::meta::{Free, FreeReason, Meta};
use super::storage::Storage;
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::{StoredBitmap, StoredBitmapInfo, WriteFlags};
use crate::sync::lock;

const FLAG_IN_USE: u32 = 1;
const FLAG_AUTO: u32 = 1 << 1;
const TYPE_DIRTY_TRACKING: u8 = 1;
const MAX_NAME: usize = 1023;
/// Most bytes of one bitmap's bits.
const MAX_BITMAP_BYTES: u64 = 512 << 20;
/// Most dirty ranges that one stored bitmap is read as; beyond it gaps count as dirty, which is safe.
const MAX_RANGES: usize = 4 << 20;
const OFFSET_MASK: u64 = super::entry::OFFSET_MASK;

/// One bitmap of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    table_offset: u64,
    table_entries: u32,
    flags: u32,
    granularity_bits: u8,
    name: String,
}

impl Entry {
    fn bytes(&self) -> u64 {
        to_u64((24 + self.name.len()).next_multiple_of(8))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.table_offset.to_be_bytes());
        out.extend_from_slice(&self.table_entries.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&[TYPE_DIRTY_TRACKING, self.granularity_bits]);
        out.extend_from_slice(&u16::try_from(self.name.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&0u32.to_be_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.resize(start + (out.len() - start).next_multiple_of(8), 0);
    }
}

fn invalid(message: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, message)
}

/// Bytes of the bits of one bitmap over a disk.
fn bitmap_bytes(size: u64, granularity_bits: u8) -> u64 {
    size.div_ceil(1 << granularity_bits).div_ceil(8)
}

/// Reads the directory.
pub(super) async fn read_directory(file: &dyn Storage, header: &Header) -> Result<Vec<Entry>> {
    let Some(extension) = header.bitmaps else {
        return Ok(Vec::new());
    };
    if extension.directory_bytes == 0 {
        return Err(invalid("Requested bitmap directory size is zero"));
    }
    // What the file does not hold cannot be entries: no memory for it.
    let inside = file.length().saturating_sub(extension.directory_offset);
    if extension.directory_bytes > MAX_BITMAP_DIRECTORY_BYTES || extension.directory_bytes > inside {
        return Err(invalid("Requested bitmap directory size is too big"));
    }
    let mut bytes = vec![0u8; to_usize(extension.directory_bytes)?];
    file.read(extension.directory_offset, &mut bytes)
        .await
        .map_err(|error| error.context("Failed to read bitmap directory"))?;
    parse_directory(&bytes, header)
}

fn parse_directory(bytes: &[u8], header: &Header) -> Result<Vec<Entry>> {
    let broken = |_| invalid("Broken bitmap directory");
    let mut entries: Vec<Entry> = Vec::new();
    let expected = header.bitmaps.map_or(0, |extension| extension.count);
    let mut names = HashSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let name_len = usize::from(be16(bytes, at + 18).map_err(broken)?);
        let extra_len = to_usize(u64::from(be32(bytes, at + 20).map_err(broken)?))?;
        part(bytes, at + 24, extra_len).map_err(broken)?;
        let name = part(bytes, at + 24 + extra_len, name_len).map_err(broken)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let (kind, granularity_bits) = match part(bytes, at + 16, 2).map_err(broken)? {
            [kind, bits] => (*kind, *bits),
            _ => return Err(invalid("Broken bitmap directory")),
        };
        if to_u64(entries.len()) >= u64::from(expected) {
            return Err(invalid("More bitmaps found than specified in header extension"));
        }
        let entry = Entry {
            table_offset: be64(bytes, at).map_err(broken)?,
            table_entries: be32(bytes, at + 8).map_err(broken)?,
            flags: be32(bytes, at + 12).map_err(broken)?,
            granularity_bits,
            name,
        };
        if extra_len > 0 {
            // It may change what the bits mean.
            return Err(BlockError::new(
                ErrorKind::Unsupported,
                "Bitmap extra data is not supported",
            ));
        }
        let constraints = invalid(format!("Bitmap '{}' doesn't satisfy the constraints", entry.name));
        let cluster = 1u64 << header.cluster_bits;
        let known = FLAG_IN_USE | FLAG_AUTO;
        let well_formed = kind == TYPE_DIRTY_TRACKING
            && entry.flags & !known == 0
            && (9..=31).contains(&granularity_bits)
            && name_len <= MAX_NAME
            && entry.table_offset & (cluster - 1) == 0
            && entry.table_offset & !OFFSET_MASK == 0
            && (entry.table_offset != 0 || entry.table_entries == 0)
            && (entry.table_entries != 0 || header.size == 0)
            && u64::from(entry.table_entries) * cluster <= MAX_BITMAP_BYTES.max(cluster);
        if !well_formed {
            return Err(constraints);
        }
        let needed = bitmap_bytes(header.size, granularity_bits);
        let fits = needed <= MAX_BITMAP_BYTES && u64::from(entry.table_entries) == needed.div_ceil(cluster);
        // One in use may be from before a resize.
        if entry.flags & FLAG_IN_USE == 0 && !fits {
            return Err(constraints);
        }
        if !names.insert(entry.name.clone()) {
            return Err(invalid(format!("Bitmap already exists: {}", entry.name)));
        }
        at += to_usize(entry.bytes())?;
        entries.push(entry);
    }
    if to_u64(entries.len()) != u64::from(expected) {
        return Err(invalid("Less bitmaps found than specified in header extension"));
    }
    Ok(entries)
}

impl Meta {
    /// Guards the directory's and the tables' clusters against guest data.
    pub(super) fn mark_bitmaps(&mut self, entries: &[Entry]) {
        if let Some(extension) = self.header.bitmaps {
            self.mark_metadata(extension.directory_offset, extension.directory_bytes);
        }
        for entry in entries {
            self.mark_metadata(entry.table_offset, u64::from(entry.table_entries) * 8);
        }
    }
}

/// Collects dirty ranges out of bits.
struct Ranges {
    size: u64,
    granularity_bits: u8,
    list: Vec<(u64, u64)>,
}

impl Ranges {
    fn push(&mut self, first_bit: u64, bits: u64) {
        let start = first_bit << self.granularity_bits;
        let end = ((first_bit + bits) << self.granularity_bits).min(self.size);
        if start >= end {
            return;
        }
        let full = self.list.len() >= MAX_RANGES;
        match self.list.last_mut() {
            Some((at, len)) if *at + *len == start || full => *len = end - *at,
            _ => self.list.push((start, end - start)),
        }
    }

    fn push_bytes(&mut self, first_bit: u64, bytes: &[u8]) {
        for (nth, byte) in bytes.iter().enumerate() {
            let bit = first_bit + to_u64(nth) * 8;
            match byte {
                0 => {}
                0xff => self.push(bit, 8),
                _ => {
                    for shift in 0..8 {
                        if byte >> shift & 1 != 0 {
                            self.push(bit + shift, 1);
                        }
                    }
                }
            }
        }
    }
}

/// Writes the bits of ascending ranges, cluster by cluster; clusters without a bit are left out.
fn clusters_of(bitmap: &StoredBitmap, cluster: u64, size: u64) -> Vec<(u64, Vec<u8>)> {
    let bits_per_cluster = cluster * 8;
    let granularity = u64::from(bitmap.granularity_bytes);
    let mut clusters: Vec<(u64, Vec<u8>)> = Vec::new();
    for (offset, len) in &bitmap.dirty {
        let end = offset.saturating_add(*len).min(size);
        let (mut bit, end_bit) = (offset / granularity, end.div_ceil(granularity));
        while bit < end_bit {
            let nth = bit / bits_per_cluster;
            if clusters.last().is_none_or(|(last, _)| *last != nth) {
                clusters.push((nth, vec![0u8; usize::try_from(cluster).unwrap_or(0)]));
            }
            let stop = end_bit.min((nth + 1) * bits_per_cluster);
            if let Some((_, bytes)) = clusters.last_mut() {
                set_bits(bytes, bit % bits_per_cluster, stop - bit);
            }
            bit = stop;
        }
    }
    clusters
}

fn set_bits(bytes: &mut [u8], first: u64, count: u64) {
    let (mut at, end) = (first, first + count);
    while at < end {
        let Some(byte) = usize::try_from(at / 8)
            .ok()
            .and_then(|index| bytes.get_mut(index))
        else {
            return;
        };
        if at % 8 == 0 && end - at >= 8 {
            *byte = 0xff;
            at += 8;
        } else {
            *byte |= 1 << (at % 8);
            at += 1;
        }
    }
}

impl Qcow2 {
    /// What the directory on disk says.
    pub(super) fn bitmap_infos(&self) -> Vec<StoredBitmapInfo> {
        let info = |entry: &Entry| StoredBitmapInfo {
            name: entry.name.clone(),
            granularity_bytes: 1 << entry.granularity_bits.min(31),
            in_use: entry.flags & FLAG_IN_USE != 0,
            auto: entry.flags & FLAG_AUTO != 0,
        };
        lock(&self.directory).iter().map(info).collect()
    }

    /// Whether one more bitmap can be kept; the text is what comes after `Can't make bitmap '..' persistent in '..': `.
    pub(super) fn can_store(&self, name: &str, granularity_bytes: u32) -> Result<()> {
        let (version, size) = {
            let meta = lock(&self.meta);
            (meta.geometry.version, meta.header.size)
        };
        if version < 3 {
            return Err(BlockError::new(
                ErrorKind::Unsupported,
                "Cannot store dirty bitmaps in qcow2 v2 files",
            ));
        }
        // An image that is read-only now may be writable when it is closed; one that is not stores nothing.
        if granularity_bytes < 512 {
            return Err(invalid("Granularity is under minimum (512 bytes)"));
        }
        if granularity_bytes > 1 << 31 {
            return Err(invalid("Granularity exceeds maximum (2147483648 bytes)"));
        }
        let bits = u8::try_from(granularity_bytes.trailing_zeros()).unwrap_or(31);
        if bitmap_bytes(size, bits) > MAX_BITMAP_BYTES {
            return Err(invalid(
                "Too much space will be occupied by the bitmap. Use larger granularity",
            ));
        }
        if lock(&self.directory).len() >= usize::try_from(MAX_BITMAPS).unwrap_or(usize::MAX) {
            return Err(invalid("Maximum number of persistent bitmaps is already reached"));
        }
        if name.len() > MAX_NAME {
            return Err(invalid(format!(
                "Name length exceeds maximum ({MAX_NAME} characters)"
            )));
        }
        Ok(())
    }

    /// Reads every stored bitmap and marks them in use when the image is writable.
    pub(super) async fn load(&self) -> Result<Vec<StoredBitmap>> {
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let entries = lock(&self.directory).clone();
        let mut bitmaps = Vec::new();
        for entry in &entries {
            let inconsistent = entry.flags & FLAG_IN_USE != 0;
            let dirty = if inconsistent {
                Vec::new()
            } else {
                self.load_bits(entry).await?
            };
            bitmaps.push(StoredBitmap {
                name: entry.name.clone(),
                granularity_bytes: 1 << entry.granularity_bits.min(31),
                auto: entry.flags & FLAG_AUTO != 0,
                inconsistent,
                dirty,
            });
        }
        let marks = entries.iter().any(|entry| entry.flags & FLAG_IN_USE == 0);
        if marks && !self.read_only.load(Ordering::Acquire) {
            let mut entries = entries;
            for entry in &mut entries {
                entry.flags |= FLAG_IN_USE;
            }
            self.rewrite_flags(&entries).await?;
        }
        Ok(bitmaps)
    }

    /// Writes the directory over itself: nothing but flags differs, and each is right on its own.
    async fn rewrite_flags(&self, entries: &[Entry]) -> Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            entry.encode(&mut bytes);
        }
        let extension = lock(&self.meta).header.bitmaps;
        let Some(extension) = extension.filter(|found| found.directory_bytes == to_u64(bytes.len())) else {
            return Err(invalid("Cannot update bitmap directory"));
        };
        self.file
            .write(extension.directory_offset, &bytes, WriteFlags::default())
            .await?;
        self.file.flush().await?;
        *lock(&self.directory) = entries.to_vec();
        Ok(())
    }

    /// The dirty ranges of one stored bitmap.
    async fn load_bits(&self, entry: &Entry) -> Result<Vec<(u64, u64)>> {
        let fail = || format!("Could not read bitmap '{}' from image", entry.name);
        let (size, cluster) = {
            let meta = lock(&self.meta);
            (meta.header.size, meta.geometry.cluster())
        };
        let mut ranges = Ranges {
            size,
            granularity_bits: entry.granularity_bits,
            list: Vec::new(),
        };
        let mut buf = vec![0u8; to_usize(cluster)?];
        let mut bit = 0;
        for host in self.read_bitmap_table(entry).await? {
            match host & OFFSET_MASK {
                0 if host & 1 != 0 => ranges.push(bit, cluster * 8),
                0 => {}
                offset if offset & (cluster - 1) == 0 && host & !OFFSET_MASK == 0 => {
                    self.read_file(offset, &mut buf)
                        .await
                        .map_err(|error| error.context(fail()))?;
                    ranges.push_bytes(bit, &buf);
                }
                _ => return Err(invalid(fail())),
            }
            bit += cluster * 8;
        }
        Ok(ranges.list)
    }

    async fn read_bitmap_table(&self, entry: &Entry) -> Result<Vec<u64>> {
        // At most a MiB of entries per GiB of bits, see the directory's checks.
        let mut bytes = vec![0u8; to_usize(u64::from(entry.table_entries) * 8)?];
        self.read_file(entry.table_offset, &mut bytes)
            .await
            .map_err(|error| {
                error.context(format!(
                    "Could not read bitmap_table table from image for bitmap '{}'",
                    entry.name
                ))
            })?;
        let table = super::bytes::decode_table(&bytes);
        let cluster = lock(&self.meta).geometry.cluster();
        let possible = |entry: u64| match entry & OFFSET_MASK {
            0 => entry <= 1,
            offset => offset == entry && offset & (cluster - 1) == 0,
        };
        if table.iter().all(|entry| possible(*entry)) {
            Ok(table)
        } else {
            Err(invalid(format!(
                "Could not read bitmap_table table from image for bitmap '{}': Invalid argument",
                entry.name
            )))
        }
    }

    /// Everything that a bitmap occupies besides its directory entry.
    async fn bitmap_clusters(&self, entry: &Entry) -> Result<Vec<Free>> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let free = |offset: u64, count| Free {
            first: offset >> bits,
            count,
            reason: FreeReason::Other,
        };
        let mut list = Vec::new();
        for host in self.read_bitmap_table(entry).await? {
            let offset = host & OFFSET_MASK;
            if offset != 0 {
                list.push(free(offset, 1));
            }
        }
        let table_clusters = (u64::from(entry.table_entries) * 8).div_ceil(1 << bits);
        if table_clusters > 0 {
            list.push(free(entry.table_offset, table_clusters));
        }
        Ok(list)
    }

    /// Everything that the stored bitmaps occupy, as offsets and lengths in bytes.
    pub(super) async fn bitmap_spans(&self) -> Result<Vec<(u64, u64)>> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let mut spans = Vec::new();
        if let Some(extension) = lock(&self.meta).header.bitmaps {
            spans.push((extension.directory_offset, extension.directory_bytes));
        }
        let entries = lock(&self.directory).clone();
        for entry in &entries {
            spans.extend(
                self.bitmap_clusters(entry)
                    .await?
                    .iter()
                    .map(|free| (free.first << bits, free.count << bits)),
            );
        }
        Ok(spans)
    }

    /// Replaces the stored bitmaps.
    pub(super) async fn store(&self, bitmaps: Vec<StoredBitmap>) -> Result<()> {
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let old = lock(&self.directory).clone();
        if bitmaps.is_empty() && old.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        let (version, size, cluster, bits) = {
            let meta = lock(&self.meta);
            (
                meta.geometry.version,
                meta.header.size,
                meta.geometry.cluster(),
                meta.geometry.cluster_bits,
            )
        };
        if version < 3 {
            return Err(BlockError::new(
                ErrorKind::Unsupported,
                "Cannot store dirty bitmaps in qcow2 v2 files",
            ));
        }
        let keeps: HashSet<&str> = bitmaps
            .iter()
            .filter(|bitmap| bitmap.inconsistent)
            .map(|bitmap| bitmap.name.as_str())
            .collect();
        let stays = |entry: &Entry| keeps.contains(entry.name.as_str());
        let mut entries: Vec<Entry> = old.iter().filter(|entry| stays(entry)).cloned().collect();
        let mut gone = Vec::new();
        for entry in old.iter().filter(|entry| !stays(entry)) {
            gone.append(&mut self.bitmap_clusters(entry).await?);
        }
        // References to what is written are given back unless the header comes to refer to it.
        let mut taken = Vec::new();
        for bitmap in bitmaps.iter().filter(|bitmap| !bitmap.inconsistent) {
            let text = format!("Bitmap '{}' doesn't satisfy the constraints", bitmap.name);
            self.can_store(&bitmap.name, bitmap.granularity_bytes)
                .map_err(|error| error.context(text))?;
            let granularity_bits = u8::try_from(bitmap.granularity_bytes.trailing_zeros()).unwrap_or(31);
            let table_entries = bitmap_bytes(size, granularity_bits).div_ceil(cluster);
            let mut table = vec![0u64; to_usize(table_entries)?];
            let data = clusters_of(bitmap, cluster, size);
            let fail = |error: BlockError| {
                error.context(format!("Failed to write bitmap '{}' to file", bitmap.name))
            };
            if !data.is_empty() {
                let run = self.take(to_u64(data.len())).await.map_err(fail)?;
                for (nth, (at, bytes)) in data.iter().enumerate() {
                    let host = (run.first + to_u64(nth)) << bits;
                    self.file
                        .write(host, bytes, WriteFlags::default())
                        .await
                        .map_err(fail)?;
                    if let Some(place) = table.get_mut(to_usize(*at)?) {
                        *place = host;
                    }
                }
                taken.push(run);
            }
            let mut table_offset = 0;
            if !table.is_empty() {
                let run = self
                    .take((table_entries * 8).div_ceil(cluster))
                    .await
                    .map_err(fail)?;
                table_offset = run.first << bits;
                let mut bytes = encode_table(&table);
                bytes.resize(to_usize(run.count << bits)?, 0);
                self.file
                    .write(table_offset, &bytes, WriteFlags::default())
                    .await
                    .map_err(fail)?;
                taken.push(run);
            }
            entries.push(Entry {
                table_offset,
                table_entries: u32::try_from(table_entries).map_err(|_| invalid("Bitmap is too big"))?,
                flags: if bitmap.auto { FLAG_AUTO } else { 0 },
                granularity_bits,
                name: bitmap.name.clone(),
            });
        }
        // A bitmap keeps its place in the directory; new ones follow, the newest first, as QEMU lists them.
        let places: HashMap<&str, usize> = old
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.name.as_str(), at))
            .collect();
        let ages: HashMap<&str, usize> = bitmaps
            .iter()
            .enumerate()
            .map(|(age, bitmap)| (bitmap.name.as_str(), old.len().saturating_add(age)))
            .collect();
        entries.sort_by_key(|entry| {
            let name = entry.name.as_str();
            places.get(name).or_else(|| ages.get(name)).copied()
        });
        self.switch_directory(entries, taken, gone).await
    }

    /// Writes a directory at a new place and makes it the image's.
    async fn switch_directory(
        &self,
        entries: Vec<Entry>,
        mut taken: Vec<super::io::Taken<'_>>,
        mut gone: Vec<Free>,
    ) -> Result<()> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        if count > MAX_BITMAPS {
            return Err(invalid("Too many persistent bitmaps"));
        }
        let directory_bytes = to_u64(bytes.len());
        if directory_bytes > MAX_BITMAP_DIRECTORY_BYTES {
            return Err(invalid("Bitmap directory is too large"));
        }
        let extension = if entries.is_empty() {
            None
        } else {
            let run = self.take(directory_bytes.div_ceil(1 << bits)).await?;
            let directory_offset = run.first << bits;
            bytes.resize(to_usize(run.count << bits)?, 0);
            self.file
                .write(directory_offset, &bytes, WriteFlags::default())
                .await?;
            taken.push(run);
            Some(BitmapsExtension {
                count,
                directory_bytes,
                directory_offset,
            })
        };
        // Refcounts and data are durable before the header refers to them.
        self.write_back_with(true, true).await?;
        if let Some(old) = lock(&self.meta).header.bitmaps {
            let count = old.directory_bytes.div_ceil(1 << bits);
            gone.push(Free {
                first: old.directory_offset >> bits,
                count,
                reason: FreeReason::Other,
            });
        }
        // The header on disk may refer to the new clusters from the next line on, whatever comes of it.
        taken.into_iter().for_each(super::io::Taken::keep);
        self.update_header(|header| {
            header.bitmaps = extension;
            if extension.is_some() {
                header.autoclear |= AUTOCLEAR_BITMAPS;
            } else {
                header.autoclear &= !AUTOCLEAR_BITMAPS;
            }
        })
        .await
        .map_err(|error| error.context("Failed to update bitmap extension"))?;
        self.file.flush().await?;
        {
            let mut meta = lock(&self.meta);
            meta.mark_bitmaps(&entries);
            for free in gone {
                meta.frees.push(free);
            }
        }
        *lock(&self.directory) = entries;
        self.write_back(true).await
    }

    /// Deletes one stored bitmap; one that is not stored is no error.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        // Held over awaits: only operations on the image's structure wait for it.
        let _operation = self.operations.lock().await;
        let mut entries = lock(&self.directory).clone();
        let Some(at) = entries.iter().position(|entry| entry.name == name) else {
            return Ok(());
        };
        self.check_writable()?;
        let entry = entries.remove(at);
        let gone = self.bitmap_clusters(&entry).await?;
        self.switch_directory(entries, Vec::new(), gone).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_the_bits() {
        let dirty = vec![(0, 65536), (3 * 65536, 2 * 65536), (99 * 65536, 65536)];
        let size = 100 * 65536 - 512;
        let bitmap = StoredBitmap {
            name: "b".into(),
            granularity_bytes: 65536,
            auto: true,
            inconsistent: false,
            dirty: dirty.clone(),
        };
        for cluster in [512u64, 65536] {
            let mut ranges = Ranges {
                size,
                granularity_bits: 16,
                list: Vec::new(),
            };
            for (nth, bytes) in clusters_of(&bitmap, cluster, size) {
                ranges.push_bytes(nth * cluster * 8, &bytes);
            }
            assert_eq!(
                ranges.list,
                [(0, 65536), (3 * 65536, 2 * 65536), (99 * 65536, 65536 - 512)]
            );
        }
    }
}
