//! Changes of bitmaps that a transaction can take back.
//!
//! Each function does its step at once and returns what undoes it. A dropped [`Undo`] keeps the change.

use super::hbitmap::HBitmap;
use super::set::{BitmapHandle, BitmapSet, BitmapSpec};
use crate::error::Result;

/// How to take a step back, or to make it final.
#[derive(Debug)]
#[must_use = "a transaction either commits or aborts the step"]
pub struct Undo {
    bitmap: BitmapHandle,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Added,
    Removed,
    Cleared(HBitmap),
    Merged(HBitmap),
    Enabled(bool),
}

impl Undo {
    /// Makes the step final.
    pub fn commit(self) {
        match self.step {
            Step::Removed => self.bitmap.release(),
            Step::Added | Step::Cleared(_) | Step::Merged(_) | Step::Enabled(_) => {}
        }
    }

    /// Takes the step back.
    pub fn abort(self) {
        match self.step {
            Step::Added => self.bitmap.release(),
            Step::Removed => self.bitmap.unhide(),
            Step::Cleared(bits) => self.bitmap.add_bits(&bits),
            Step::Merged(bits) => self.bitmap.restore_bits(bits),
            Step::Enabled(enabled) => self.bitmap.restore_enabled(enabled),
        }
    }

    /// The bitmap.
    pub fn bitmap(&self) -> &BitmapHandle {
        &self.bitmap
    }
}

/// Adds a bitmap.
pub fn add(set: &BitmapSet, length: u64, spec: &BitmapSpec) -> Result<Undo> {
    Ok(Undo {
        bitmap: set.add(length, spec)?,
        step: Step::Added,
    })
}

/// Removes a bitmap: it is busy until the end of the transaction.
pub fn remove(set: &BitmapSet, name: &str) -> Result<Undo> {
    let bitmap = set.get(name)?;
    bitmap.hide()?;
    Ok(Undo {
        bitmap,
        step: Step::Removed,
    })
}

/// Clears a bitmap.
pub fn clear(set: &BitmapSet, name: &str) -> Result<Undo> {
    let bitmap = set.get(name)?;
    let bits = bitmap.clear()?;
    Ok(Undo {
        bitmap,
        step: Step::Cleared(bits),
    })
}

/// Starts or stops recording.
pub fn set_enabled(set: &BitmapSet, name: &str, enabled: bool) -> Result<Undo> {
    let bitmap = set.get(name)?;
    let before = if enabled {
        bitmap.enable()?
    } else {
        bitmap.disable()?
    };
    Ok(Undo {
        bitmap,
        step: Step::Enabled(before),
    })
}

/// Merges bitmaps into one, all or none.
pub fn merge(set: &BitmapSet, target: &str, sources: &[BitmapHandle]) -> Result<Undo> {
    let bitmap = set.get(target)?;
    let bits = bitmap.merge(sources)?;
    Ok(Undo {
        bitmap,
        step: Step::Merged(bits),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_undone_newest_first() {
        let set = BitmapSet::default();
        let spec = |name: &str| BitmapSpec {
            name: name.into(),
            granularity_bytes: 65536,
            persistent: false,
            disabled: false,
        };
        set.add(1 << 20, &spec("a")).unwrap();
        set.add(1 << 20, &spec("b")).unwrap();
        set.mark_dirty(0, 1);
        let a = set.get("a").unwrap();
        a.disable().unwrap();
        set.mark_dirty(1 << 19, 1);
        let before = set.infos();
        let undo = vec![
            add(&set, 1 << 20, &spec("c")).unwrap(),
            merge(&set, "a", &[set.get("b").unwrap()]).unwrap(),
            set_enabled(&set, "a", true).unwrap(),
            clear(&set, "a").unwrap(),
            set_enabled(&set, "b", false).unwrap(),
            remove(&set, "b").unwrap(),
        ];
        assert_ne!(set.infos(), before);
        assert!(remove(&set, "b").is_err());
        for undo in undo.into_iter().rev() {
            undo.abort();
        }
        assert_eq!(set.infos(), before);
        remove(&set, "b").unwrap().commit();
        assert!(set.find("b").is_none());
    }
}
