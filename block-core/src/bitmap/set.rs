//! The bitmaps of one node: names, states, and who may change what.
//!
//! One lock guards all bitmaps of a node. A job that uses a bitmap freezes it: what the guest writes from then on goes
//! to a second set of bits (the successor), and the end of the job decides what becomes of the two.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::hbitmap::HBitmap;
use crate::driver::StoredBitmap;
use crate::error::{BlockError, ErrorKind, Result};
use crate::sync::lock;
use crate::types::BitmapName;

/// The longest name of a bitmap, in bytes.
pub const MAX_NAME_BYTES: usize = 1023;

/// What a new bitmap is like.
#[derive(Debug, Clone)]
pub struct BitmapSpec {
    /// Its name.
    pub name: BitmapName,
    /// Bytes a bit stands for.
    pub granularity_bytes: u32,
    /// Kept in the image.
    pub persistent: bool,
    /// Does not record yet.
    pub disabled: bool,
}

/// The granularity of a bitmap for which none was asked: the cluster size within 4 KiB and 64 KiB, else 64 KiB.
pub fn default_granularity(cluster_bytes: Option<u32>) -> u32 {
    match cluster_bytes {
        Some(bytes) if bytes > 0 => bytes.clamp(4096, 65536),
        _ => 65536,
    }
}

/// What a user wants of a bitmap; decides which states stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitmapUse {
    /// Change its bits (clear, merge into, consume by a backup).
    Change,
    /// Read its bits or flip recording (a source of a merge, an export, enable, disable).
    Read,
    /// Remove it.
    Remove,
}

/// What becomes of a bitmap when its job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitmapMode {
    /// Consumed when the job succeeds.
    OnSuccess,
    /// Never consumed.
    Never,
    /// What was copied is consumed, whatever the outcome.
    Always,
}

/// What queries show of a bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitmapInfo {
    /// Its name; the successor that records for a bitmap in use by a job has none.
    pub name: Option<BitmapName>,
    /// Bytes a bit stands for.
    pub granularity_bytes: u32,
    /// Dirty bytes, in whole granules.
    pub dirty_bytes: u64,
    /// Writes are recorded (in the successor, if it has one).
    pub recording: bool,
    /// In use by a job, an export or an action.
    pub busy: bool,
    /// Kept in the image.
    pub persistent: bool,
    /// Was not stored cleanly: only good for removal.
    pub inconsistent: bool,
}

/// The bitmaps of a node.
#[derive(Default)]
pub struct BitmapSet {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// How many bitmaps may record: what the write path looks at.
    recording: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By age.
    bitmaps: BTreeMap<u64, Bitmap>,
    names: HashMap<BitmapName, u64>,
    next_id: u64,
}

struct Bitmap {
    name: BitmapName,
    /// Bits of a byte offset within a granule.
    shift: u32,
    length: u64,
    bits: HBitmap,
    enabled: bool,
    /// How many users hold it.
    users: u32,
    read_only: bool,
    inconsistent: bool,
    persistent: bool,
    /// Removed by a transaction that has not ended.
    hidden: bool,
    successor: Option<Successor>,
    /// Where it stands by age since a successor took its place; its id before.
    place: Option<u64>,
}

struct Successor {
    /// Where it stands among the bitmaps by age.
    id: u64,
    bits: HBitmap,
    enabled: bool,
}

impl Bitmap {
    fn granularity(&self) -> u64 {
        1 << self.shift
    }

    fn granules(&self, length: u64) -> u64 {
        length.div_ceil(self.granularity())
    }

    fn recording(&self) -> bool {
        match &self.successor {
            Some(successor) => successor.enabled,
            None => self.enabled && !self.inconsistent,
        }
    }

    fn mark(&mut self, start: u64, end: u64) {
        let (from, to) = (start >> self.shift, self.granules(end));
        if let Some(successor) = &mut self.successor {
            if successor.enabled {
                successor.bits.set(from, to);
            }
        } else if self.enabled {
            self.bits.set(from, to);
        }
    }

    /// Whether its bits can be added to a bitmap of this length.
    fn check_source(&self, length: u64) -> Result<()> {
        self.check(BitmapUse::Read)?;
        if self.length == length {
            return Ok(());
        }
        let text = format!(
            "Bitmaps are of different sizes (destination size is {length}, source size is {}) and can't be merged",
            self.length
        );
        Err(BlockError::new(ErrorKind::Invalid, text))
    }

    fn check(&self, wanted: BitmapUse) -> Result<()> {
        let name = &self.name;
        if self.users > 0 {
            let text = format!("Bitmap '{name}' is currently in use by another operation and cannot be used");
            return Err(BlockError::new(ErrorKind::Busy, text));
        }
        if self.read_only && wanted != BitmapUse::Read {
            return Err(BlockError::new(
                ErrorKind::ReadOnly,
                format!("Bitmap '{name}' is readonly and cannot be modified"),
            ));
        }
        if self.inconsistent && wanted != BitmapUse::Remove {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Bitmap '{name}' is inconsistent and cannot be used"),
            ));
        }
        Ok(())
    }

    fn info(&self) -> BitmapInfo {
        BitmapInfo {
            name: Some(self.name.clone()),
            granularity_bytes: 1 << self.shift,
            dirty_bytes: self.bits.count() << self.shift,
            recording: self.recording(),
            busy: self.users > 0,
            persistent: self.persistent,
            inconsistent: self.inconsistent,
        }
    }

    fn dirty_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        self.bits.for_each_run(|from, to| {
            let start = from << self.shift;
            ranges.push((start, (to << self.shift).min(self.length) - start));
        });
        ranges
    }
}

impl State {
    fn insert(&mut self, bitmap: Bitmap) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.names.insert(bitmap.name.clone(), id);
        self.bitmaps.insert(id, bitmap);
        id
    }

    fn remove(&mut self, id: u64) {
        if let Some(bitmap) = self.bitmaps.remove(&id)
            && self.names.get(&bitmap.name) == Some(&id)
        {
            self.names.remove(&bitmap.name);
        }
    }
}

impl Inner {
    /// Runs a change under the lock and counts anew what records.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let result = change(&mut state);
        let recording = state.bitmaps.values().filter(|bitmap| bitmap.recording()).count();
        self.recording.store(recording, Ordering::Release);
        result
    }
}

impl BitmapSet {
    /// Whether nothing records; one load on the write path.
    pub fn is_empty(&self) -> bool {
        self.inner.recording.load(Ordering::Acquire) == 0
    }

    /// Tells every recording bitmap that the range was written.
    pub fn mark_dirty(&self, offset: u64, len: u64) {
        let Some(end) = offset.checked_add(len).filter(|_| len > 0) else {
            return;
        };
        if self.is_empty() {
            return;
        }
        for bitmap in lock(&self.inner.state).bitmaps.values_mut() {
            bitmap.mark(offset, end);
        }
    }

    /// Follows a change of the node's length; what is new is clean.
    pub fn resize(&self, length: u64) {
        for bitmap in lock(&self.inner.state).bitmaps.values_mut() {
            let granules = bitmap.granules(length);
            bitmap.length = length;
            bitmap.bits.resize(granules);
            if let Some(successor) = &mut bitmap.successor {
                successor.bits.resize(granules);
            }
        }
    }

    /// Whether the name can be given to a new bitmap.
    pub fn check_name(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(BlockError::new(ErrorKind::Invalid, "Bitmap name cannot be empty"));
        }
        if lock(&self.inner.state).names.contains_key(name) {
            return Err(BlockError::new(
                ErrorKind::Exists,
                format!("Bitmap already exists: {name}"),
            ));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Bitmap name too long: {name}"),
            ));
        }
        Ok(())
    }

    /// Adds a bitmap to a node of this length.
    pub fn add(&self, length: u64, spec: &BitmapSpec) -> Result<BitmapHandle> {
        check_granularity(spec.granularity_bytes)?;
        self.check_name(spec.name.as_str())?;
        let shift = spec.granularity_bytes.trailing_zeros();
        let bitmap = Bitmap {
            name: spec.name.clone(),
            shift,
            length,
            bits: HBitmap::new(length.div_ceil(1 << shift)),
            enabled: !spec.disabled,
            users: 0,
            read_only: false,
            inconsistent: false,
            persistent: spec.persistent,
            hidden: false,
            successor: None,
            place: None,
        };
        let mut state = lock(&self.inner.state);
        let id = state.insert(bitmap);
        if !spec.disabled {
            // Under the lock, because others count anew under it.
            self.inner.recording.fetch_add(1, Ordering::AcqRel);
        }
        drop(state);
        Ok(self.handle(id))
    }

    fn handle(&self, id: u64) -> BitmapHandle {
        BitmapHandle {
            set: Arc::clone(&self.inner),
            id,
        }
    }

    /// The bitmap of this name.
    pub fn find(&self, name: &str) -> Option<BitmapHandle> {
        let id = *lock(&self.inner.state).names.get(name)?;
        Some(self.handle(id))
    }

    /// The bitmap of this name, or the error that clients know.
    pub fn get(&self, name: &str) -> Result<BitmapHandle> {
        self.find(name)
            .ok_or_else(|| BlockError::new(ErrorKind::NotFound, format!("Dirty bitmap '{name}' not found")))
    }

    /// Every bitmap, newest first; also the successors, which have no name.
    pub fn infos(&self) -> Vec<BitmapInfo> {
        let state = lock(&self.inner.state);
        let mut infos = Vec::with_capacity(state.bitmaps.len());
        for (id, bitmap) in &state.bitmaps {
            infos.push((bitmap.place.unwrap_or(*id), bitmap.info()));
            if let Some(successor) = &bitmap.successor {
                let info = BitmapInfo {
                    name: None,
                    granularity_bytes: 1 << bitmap.shift,
                    dirty_bytes: successor.bits.count() << bitmap.shift,
                    recording: successor.enabled,
                    busy: false,
                    persistent: false,
                    inconsistent: false,
                };
                infos.push((successor.id, info));
            }
        }
        infos.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        infos.into_iter().map(|(_, info)| info).collect()
    }

    /// How many bitmaps there are.
    pub fn count(&self) -> usize {
        lock(&self.inner.state).bitmaps.len()
    }

    /// Takes over the bitmaps that an image keeps, when its node opens. Names that are taken already stay as they are.
    pub fn load(&self, length: u64, stored: Vec<StoredBitmap>, read_only: bool) {
        self.inner.change(|state| {
            for stored in stored {
                let name = BitmapName::from(stored.name);
                if state.names.contains_key(&name) || check_granularity(stored.granularity_bytes).is_err() {
                    continue;
                }
                let shift = stored.granularity_bytes.trailing_zeros();
                let mut bits = HBitmap::new(length.div_ceil(1 << shift));
                if !stored.inconsistent {
                    for (offset, len) in stored.dirty {
                        bits.set(offset >> shift, offset.saturating_add(len).div_ceil(1 << shift));
                    }
                }
                state.insert(Bitmap {
                    name,
                    shift,
                    length,
                    bits,
                    enabled: stored.auto && !stored.inconsistent,
                    users: 0,
                    read_only,
                    inconsistent: stored.inconsistent,
                    persistent: true,
                    hidden: false,
                    successor: None,
                    place: None,
                });
            }
        });
    }

    /// The persistent bitmaps as an image shall keep them, newest first.
    pub fn to_store(&self) -> Vec<StoredBitmap> {
        let state = lock(&self.inner.state);
        let kept = state
            .bitmaps
            .values()
            .rev()
            .filter(|bitmap| bitmap.persistent && !bitmap.hidden);
        kept.map(|bitmap| StoredBitmap {
            name: bitmap.name.as_str().to_owned(),
            granularity_bytes: 1 << bitmap.shift,
            auto: bitmap.enabled,
            inconsistent: bitmap.inconsistent,
            dirty: if bitmap.inconsistent {
                Vec::new()
            } else {
                bitmap.dirty_ranges()
            },
        })
        .collect()
    }

    /// Whether some bitmap must be kept in the image.
    pub fn has_persistent(&self) -> bool {
        lock(&self.inner.state)
            .bitmaps
            .values()
            .any(|bitmap| bitmap.persistent && !bitmap.hidden)
    }

    /// Forgets the persistent bitmaps, after they were stored for good (the image goes read-only or away).
    pub fn forget_persistent(&self) {
        self.inner.change(|state| {
            let gone: Vec<u64> = state
                .bitmaps
                .iter()
                .filter(|(_, bitmap)| bitmap.persistent)
                .map(|(id, _)| *id)
                .collect();
            for id in gone {
                state.remove(id);
            }
        });
    }

    /// Follows the node's persistent bitmaps into and out of read-only mode.
    pub fn set_read_only(&self, read_only: bool) {
        for bitmap in lock(&self.inner.state)
            .bitmaps
            .values_mut()
            .filter(|bitmap| bitmap.persistent)
        {
            bitmap.read_only = read_only;
        }
    }

    /// Whether a bitmap forbids that the length changes: one in use, or one that cannot be trusted.
    pub fn check_resize(&self) -> Result<()> {
        let state = lock(&self.inner.state);
        let stuck = state.bitmaps.values().filter(|bitmap| bitmap.persistent);
        for bitmap in stuck {
            bitmap.check(BitmapUse::Change)?;
        }
        Ok(())
    }

    /// Bytes of memory that the bits take.
    pub fn memory_bytes(&self) -> usize {
        lock(&self.inner.state)
            .bitmaps
            .values()
            .map(|bitmap| bitmap.bits.memory_bytes())
            .sum()
    }
}

impl fmt::Debug for BitmapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.infos()).finish()
    }
}

fn check_granularity(bytes: u32) -> Result<()> {
    if bytes.is_power_of_two() && bytes >= 512 {
        Ok(())
    } else {
        Err(BlockError::new(
            ErrorKind::Invalid,
            "Granularity must be power of 2 and at least 512",
        ))
    }
}

/// One bitmap of a node. The handle stays valid when the bitmap is removed; it then does nothing.
#[derive(Clone)]
pub struct BitmapHandle {
    set: Arc<Inner>,
    id: u64,
}

impl fmt::Debug for BitmapHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BitmapHandle")
            .field("info", &self.info())
            .finish()
    }
}

impl PartialEq for BitmapHandle {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && Arc::ptr_eq(&self.set, &other.set)
    }
}

impl BitmapHandle {
    fn read<T>(&self, read: impl FnOnce(&Bitmap) -> T) -> Option<T> {
        lock(&self.set.state).bitmaps.get(&self.id).map(read)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Bitmap) -> T) -> Option<T> {
        let mut state = lock(&self.set.state);
        let bitmap = state.bitmaps.get_mut(&self.id)?;
        let before = bitmap.recording();
        let result = change(bitmap);
        match (before, bitmap.recording()) {
            (false, true) => {
                self.set.recording.fetch_add(1, Ordering::AcqRel);
            }
            (true, false) => {
                self.set.recording.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
        Some(result)
    }

    fn checked<T>(&self, wanted: BitmapUse, change: impl FnOnce(&mut Bitmap) -> T) -> Result<T> {
        self.change(|bitmap| bitmap.check(wanted).map(|()| change(bitmap)))
            .unwrap_or_else(|| Err(gone()))
    }

    /// What queries show of it; `None` once it is removed.
    pub fn info(&self) -> Option<BitmapInfo> {
        self.read(Bitmap::info)
    }

    /// Its name.
    pub fn name(&self) -> Option<BitmapName> {
        self.read(|bitmap| bitmap.name.clone())
    }

    /// Whether its state allows this use.
    pub fn check(&self, wanted: BitmapUse) -> Result<()> {
        self.read(|bitmap| bitmap.check(wanted))
            .unwrap_or_else(|| Err(gone()))
    }

    /// Starts recording; says whether it did before.
    pub fn enable(&self) -> Result<bool> {
        self.checked(BitmapUse::Read, |bitmap| {
            std::mem::replace(&mut bitmap.enabled, true)
        })
    }

    /// Stops recording; says whether it did before.
    pub fn disable(&self) -> Result<bool> {
        self.checked(BitmapUse::Read, |bitmap| {
            std::mem::replace(&mut bitmap.enabled, false)
        })
    }

    /// Undoes an enable or disable, whatever the state is now.
    pub(super) fn restore_enabled(&self, enabled: bool) {
        self.change(|bitmap| bitmap.enabled = enabled);
    }

    /// Clears every bit and gives the old ones back.
    pub fn clear(&self) -> Result<HBitmap> {
        self.checked(BitmapUse::Change, |bitmap| {
            let empty = HBitmap::new(bitmap.bits.len());
            std::mem::replace(&mut bitmap.bits, empty)
        })
    }

    /// Puts back the bits that an undone merge replaced.
    pub(super) fn restore_bits(&self, bits: HBitmap) {
        self.change(|bitmap| bitmap.bits = bits);
    }

    /// Puts back the bits that an undone clear took, beside those that were set since.
    pub(super) fn add_bits(&self, bits: &HBitmap) {
        self.change(|bitmap| bitmap.bits.merge(bits));
    }

    /// Removes it from the node. A copy in the image is the caller's business.
    pub fn remove(&self) -> Result<()> {
        self.check(BitmapUse::Remove)?;
        self.release();
        Ok(())
    }

    /// Removes it from the node whatever its state is.
    pub(crate) fn release(&self) {
        self.change(|bitmap| {
            // So that the count of what records follows.
            bitmap.successor = None;
            bitmap.enabled = false;
        });
        lock(&self.set.state).remove(self.id);
    }

    /// Hides it from storing and holds it, as the first step of an undoable removal.
    pub(super) fn hide(&self) -> Result<()> {
        self.checked(BitmapUse::Remove, |bitmap| {
            bitmap.hidden = true;
            bitmap.users += 1;
        })
    }

    /// Undoes [`hide`](Self::hide).
    pub(super) fn unhide(&self) {
        self.change(|bitmap| {
            bitmap.hidden = false;
            bitmap.users = bitmap.users.saturating_sub(1);
        });
    }

    /// Whether its bits can be read for something of this length.
    pub fn check_source_of(&self, length: u64) -> Result<()> {
        self.read(|bitmap| bitmap.check_source(length))
            .unwrap_or_else(|| Err(gone()))
    }

    /// Whether the bits of `source` can be added to it, before anything is added.
    pub fn check_merge(&self, source: &Self) -> Result<()> {
        let length = self
            .read(|bitmap| bitmap.check(BitmapUse::Change).map(|()| bitmap.length))
            .unwrap_or_else(|| Err(gone()))?;
        source
            .read(|bitmap| bitmap.check_source(length))
            .unwrap_or_else(|| Err(gone()))
    }

    /// Adds the bits of others, all or none; gives the bits from before.
    pub fn merge(&self, sources: &[BitmapHandle]) -> Result<HBitmap> {
        let target = self.read(|bitmap| {
            bitmap
                .check(BitmapUse::Change)
                .map(|()| (bitmap.length, bitmap.shift))
        });
        let (length, shift) = target.unwrap_or_else(|| Err(gone()))?;
        let mut sum = HBitmap::new(length.div_ceil(1 << shift));
        for source in sources {
            // Sources are looked at one by one: two nodes' locks are never held together.
            let merged = source.read(|bitmap| {
                bitmap.check_source(length)?;
                if bitmap.shift == shift {
                    sum.merge(&bitmap.bits);
                } else {
                    for (offset, len) in bitmap.dirty_ranges() {
                        sum.set(offset >> shift, (offset + len).div_ceil(1 << shift));
                    }
                }
                Ok(())
            });
            merged.unwrap_or_else(|| Err(gone()))?;
        }
        self.checked(BitmapUse::Change, |bitmap| {
            let before = bitmap.bits.clone();
            bitmap.bits.merge(&sum);
            before
        })
    }

    /// Holds it for a user that only reads it (an export).
    pub fn hold(&self) -> Result<BitmapHold> {
        self.checked(BitmapUse::Read, |bitmap| bitmap.users += 1)?;
        Ok(BitmapHold { bitmap: self.clone() })
    }

    /// Holds it for a job: writes from now on go to a successor. With [`BitmapMode::Never`] the bits are only read.
    pub fn freeze(&self, mode: BitmapMode) -> Result<()> {
        let wanted = if mode == BitmapMode::Never {
            BitmapUse::Read
        } else {
            BitmapUse::Change
        };
        let mut state = lock(&self.set.state);
        let id = state.next_id;
        state.next_id += 1;
        let bitmap = state.bitmaps.get_mut(&self.id).ok_or_else(gone)?;
        // What cannot even be read is told before what cannot be changed.
        bitmap.check(BitmapUse::Read)?;
        bitmap.check(wanted)?;
        bitmap.users += 1;
        // It records exactly when the bitmap did, so that the count of what records stays.
        bitmap.successor = Some(Successor {
            id,
            bits: HBitmap::new(bitmap.bits.len()),
            enabled: bitmap.enabled,
        });
        Ok(())
    }

    /// Ends what [`freeze`](Self::freeze) began. `uncopied` are the areas (offset and length in bytes) that the job
    /// has not copied; they matter to [`BitmapMode::Always`] only.
    pub fn thaw(&self, mode: BitmapMode, success: bool, uncopied: impl IntoIterator<Item = (u64, u64)>) {
        self.change(|bitmap| {
            bitmap.users = bitmap.users.saturating_sub(1);
            let Some(successor) = bitmap.successor.take() else {
                return;
            };
            let consumed = match mode {
                BitmapMode::OnSuccess => success,
                BitmapMode::Never => false,
                BitmapMode::Always => true,
            };
            if consumed {
                bitmap.bits = successor.bits;
                bitmap.place = Some(successor.id);
                if !success {
                    let shift = bitmap.shift;
                    for (offset, len) in uncopied {
                        bitmap
                            .bits
                            .set(offset >> shift, offset.saturating_add(len).div_ceil(1 << shift));
                    }
                }
            } else {
                bitmap.bits.merge(&successor.bits);
            }
        });
    }

    /// A copy of the bits, with the granularity in bytes.
    pub fn snapshot(&self) -> Option<(HBitmap, u64)> {
        self.read(|bitmap| (bitmap.bits.clone(), bitmap.granularity()))
    }

    /// The first dirty area at or after `offset` and before `end`, at most `longest` bytes (rounded up to whole
    /// granules) of it, as offset and length in bytes.
    pub fn next_dirty(&self, offset: u64, end: u64, longest: u64) -> Option<(u64, u64)> {
        self.read(|bitmap| {
            let end = end.min(bitmap.length);
            let longest = longest.div_ceil(bitmap.granularity()).max(1);
            let (from, to) = bitmap
                .bits
                .next_run(offset >> bitmap.shift, bitmap.granules(end), longest)?;
            let start = (from << bitmap.shift).max(offset);
            Some((start, (to << bitmap.shift).min(end) - start))
        })?
    }

    /// Every dirty area, as offset and length in bytes.
    pub fn dirty_ranges(&self) -> Vec<(u64, u64)> {
        self.read(Bitmap::dirty_ranges).unwrap_or_default()
    }

    /// Sets bits by hand.
    pub fn set_dirty(&self, offset: u64, len: u64) {
        self.change(|bitmap| {
            bitmap.bits.set(
                offset >> bitmap.shift,
                offset.saturating_add(len).div_ceil(bitmap.granularity()),
            );
        });
    }
}

fn gone() -> BlockError {
    BlockError::new(ErrorKind::NotFound, "The dirty bitmap was removed")
}

/// A bitmap is busy while this lives.
#[derive(Debug)]
pub struct BitmapHold {
    bitmap: BitmapHandle,
}

impl BitmapHold {
    /// The bitmap.
    pub fn bitmap(&self) -> &BitmapHandle {
        &self.bitmap
    }
}

impl Drop for BitmapHold {
    fn drop(&mut self) {
        self.bitmap
            .change(|bitmap| bitmap.users = bitmap.users.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
