//! A set of bits as a tree, whose memory follows what is set and not how long it is.
//!
//! Each inner node has 64 slots; a slot is empty, full, or leads one level down; a leaf holds 4,096 bits. Runs of set
//! or clear bits that fill a slot take no memory below it, so that a full copy bitmap of any disk costs a few
//! hundred bytes, and a 64 TiB disk at 64 KiB granularity is three steps deep. Knows nothing of bytes or disks.

/// Bits of a leaf.
const LEAF_BITS: u64 = 4096;
/// Slots of an inner node, and words of a leaf.
const FANOUT: usize = 64;
const WORD_BITS: u64 = 64;

/// A hierarchical bitmap of a fixed number of bits.
#[derive(Debug, Clone)]
pub struct HBitmap {
    bits: u64,
    /// Levels of inner nodes above the leaves.
    height: u32,
    count: u64,
    root: Slot,
}

#[derive(Debug, Clone, Default)]
enum Slot {
    #[default]
    Empty,
    Full,
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

/// 4,096 bits, of which only the words that are not zero are stored: a scattered bitmap is mostly leaves with one bit.
#[derive(Debug, Clone, Default)]
struct Leaf {
    /// Bit `i`: word `i` is not zero, and stored.
    any: u64,
    /// Bit `i`: word `i` is all ones.
    full: u64,
    /// The stored words, ascending.
    words: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Inner {
    slots: [Slot; FANOUT],
    /// Bit `i`: slot `i` is not empty.
    any: u64,
    /// Bit `i`: slot `i` is full.
    full: u64,
}

/// Bits that a slot covers with `height` levels of inner nodes below it.
fn capacity(height: u32) -> u64 {
    // Saturation only happens above any length that a node can have.
    LEAF_BITS
        .checked_shl(6 * height)
        .filter(|bits| bits >> (6 * height) == LEAF_BITS)
        .unwrap_or(u64::MAX)
}

/// Ones in bits `from..to` of a word; `from < 64`, `from < to <= 64`.
fn mask(from: u64, to: u64) -> u64 {
    (u64::MAX << from) & (u64::MAX >> (WORD_BITS - to))
}

/// The place of a number below 64 in an array of 64.
fn place(number: u64) -> usize {
    (number & 63) as usize
}

impl Leaf {
    fn filled(full: bool) -> Box<Self> {
        Box::new(if full {
            Self {
                any: u64::MAX,
                full: u64::MAX,
                words: vec![u64::MAX; FANOUT],
            }
        } else {
            Self::default()
        })
    }

    /// Where word `index` is stored, or would be.
    fn rank(&self, index: u64) -> usize {
        (self.any & !(u64::MAX << index)).count_ones() as usize
    }

    fn word(&self, index: u64) -> u64 {
        if self.any >> index & 1 == 0 {
            return 0;
        }
        self.words.get(self.rank(index)).copied().unwrap_or(0)
    }

    fn store(&mut self, index: u64, word: u64) {
        let bit = 1 << index;
        let at = self.rank(index);
        match (self.any & bit != 0, word != 0) {
            (true, true) => {
                if let Some(stored) = self.words.get_mut(at) {
                    *stored = word;
                }
            }
            (true, false) => {
                self.words.remove(at);
            }
            (false, true) => {
                if self.words.len() == self.words.capacity() {
                    // Small steps at first: most leaves stay small.
                    self.words.reserve_exact(self.words.len().clamp(2, FANOUT));
                }
                self.words.insert(at, word);
            }
            (false, false) => {}
        }
        self.any = if word == 0 {
            self.any & !bit
        } else {
            self.any | bit
        };
        self.full = if word == u64::MAX {
            self.full | bit
        } else {
            self.full & !bit
        };
    }

    /// Sets or clears `start..end` and says how many bits changed.
    fn assign(&mut self, start: u64, end: u64, value: bool) -> u64 {
        let mut changed = 0;
        let mut at = start;
        while at < end {
            let index = at / WORD_BITS;
            let stop = end.min((index + 1) * WORD_BITS);
            let bits = mask(at % WORD_BITS, stop - index * WORD_BITS);
            let before = self.word(index);
            let word = if value { before | bits } else { before & !bits };
            changed += u64::from((before ^ word).count_ones());
            self.store(index, word);
            at = stop;
        }
        changed
    }

    fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first bit with this value at or after `from`.
    fn next(&self, from: u64, value: bool) -> Option<u64> {
        let index = from / WORD_BITS;
        let seen = |index: u64| {
            if value {
                self.word(index)
            } else {
                !self.word(index)
            }
        };
        let here = seen(index) & (u64::MAX << (from % WORD_BITS));
        if here != 0 {
            return Some(index * WORD_BITS + u64::from(here.trailing_zeros()));
        }
        let candidates = above(index) & if value { self.any } else { !self.full };
        if candidates == 0 {
            return None;
        }
        let index = u64::from(candidates.trailing_zeros());
        Some(index * WORD_BITS + u64::from(seen(index).trailing_zeros()))
    }

    /// Adds the bits of another and says how many are new.
    fn merge(&mut self, other: &Self) -> u64 {
        let mut added = 0;
        let mut todo = other.any & !self.full;
        while todo != 0 {
            let index = u64::from(todo.trailing_zeros());
            todo &= todo - 1;
            let (before, more) = (self.word(index), other.word(index));
            added += u64::from((more & !before).count_ones());
            self.store(index, before | more);
        }
        added
    }

    fn walk(&self, base: u64, walker: &mut Walker<'_>) {
        let mut todo = self.any;
        for word in &self.words {
            let index = u64::from(todo.trailing_zeros());
            todo &= todo.wrapping_sub(1);
            let start = base + index * WORD_BITS;
            let mut word = *word;
            let mut at = start;
            while word != 0 {
                let skip = word.trailing_zeros();
                word >>= skip;
                let run = word.trailing_ones();
                at += u64::from(skip);
                walker.add(at, at + u64::from(run));
                at += u64::from(run);
                word = word.checked_shr(run).unwrap_or(0);
            }
        }
    }
}

/// Joins neighbouring runs before it passes them on.
struct Walker<'a> {
    run: Option<(u64, u64)>,
    visit: &'a mut dyn FnMut(u64, u64),
}

impl Walker<'_> {
    fn add(&mut self, start: u64, end: u64) {
        match &mut self.run {
            Some(run) if run.1 == start => run.1 = end,
            run => {
                if let Some((start, end)) = run.replace((start, end)) {
                    (self.visit)(start, end);
                }
            }
        }
    }
}

/// Ones in the bits after `index`.
fn above(index: u64) -> u64 {
    if index >= 63 { 0 } else { u64::MAX << (index + 1) }
}

impl Inner {
    fn filled(full: bool) -> Box<Self> {
        let word = if full { u64::MAX } else { 0 };
        let slots = std::array::from_fn(|_| if full { Slot::Full } else { Slot::Empty });
        Box::new(Self {
            slots,
            any: word,
            full: word,
        })
    }

    fn summarize(&mut self, index: u64) {
        let bit = 1 << index;
        let (any, full) = match self.slots[place(index)] {
            Slot::Empty => (false, false),
            Slot::Full => (true, true),
            Slot::Leaf(_) | Slot::Inner(_) => (true, false),
        };
        self.any = if any { self.any | bit } else { self.any & !bit };
        self.full = if full { self.full | bit } else { self.full & !bit };
    }
}

impl Slot {
    fn count(&self, height: u32) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full => capacity(height),
            Self::Leaf(leaf) => leaf.count(),
            Self::Inner(inner) => inner.slots.iter().map(|slot| slot.count(height - 1)).sum(),
        }
    }

    /// Makes room below a uniform slot.
    fn split(&mut self, height: u32) {
        let full = match self {
            Self::Empty => false,
            Self::Full => true,
            Self::Leaf(_) | Self::Inner(_) => return,
        };
        *self = if height == 0 {
            Self::Leaf(Leaf::filled(full))
        } else {
            Self::Inner(Inner::filled(full))
        };
    }

    /// Drops the room below when it has become uniform.
    fn collapse(&mut self) {
        let (any, full) = match self {
            Self::Leaf(leaf) => (leaf.any, leaf.full),
            Self::Inner(inner) => (inner.any, inner.full),
            Self::Empty | Self::Full => return,
        };
        if any == 0 {
            *self = Self::Empty;
        } else if full == u64::MAX {
            *self = Self::Full;
        }
    }

    /// Sets or clears `start..end` (relative to this slot) and says how many bits changed.
    fn assign(&mut self, height: u32, start: u64, end: u64, value: bool) -> u64 {
        match (&*self, value) {
            (Self::Full, true) | (Self::Empty, false) => return 0,
            _ => {}
        }
        if start == 0 && end == capacity(height) {
            let before = self.count(height);
            *self = if value { Self::Full } else { Self::Empty };
            return if value { end - before } else { before };
        }
        self.split(height);
        let changed = match self {
            Self::Leaf(leaf) => leaf.assign(start, end, value),
            Self::Inner(inner) => {
                let unit = capacity(height - 1);
                let mut changed = 0;
                let mut at = start;
                while at < end {
                    let index = at / unit;
                    let base = index * unit;
                    let stop = end.min(base + unit);
                    changed += inner.slots[place(index)].assign(height - 1, at - base, stop - base, value);
                    inner.summarize(index);
                    at = stop;
                }
                changed
            }
            Self::Empty | Self::Full => 0,
        };
        self.collapse();
        changed
    }

    fn get(&self, height: u32, bit: u64) -> bool {
        let (mut slot, mut height, mut bit) = (self, height, bit);
        loop {
            match slot {
                Self::Empty => return false,
                Self::Full => return true,
                Self::Leaf(leaf) => return leaf.word(bit / WORD_BITS) >> (bit % WORD_BITS) & 1 != 0,
                Self::Inner(inner) => {
                    height -= 1;
                    let unit = capacity(height);
                    slot = &inner.slots[place(bit / unit)];
                    bit %= unit;
                }
            }
        }
    }

    /// The first bit with this value at or after `from` (relative to this slot).
    fn next(&self, height: u32, from: u64, value: bool) -> Option<u64> {
        match self {
            Self::Empty => (!value).then_some(from),
            Self::Full => value.then_some(from),
            Self::Leaf(leaf) => leaf.next(from, value),
            Self::Inner(inner) => {
                let unit = capacity(height - 1);
                let index = from / unit;
                let base = index * unit;
                if let Some(found) = inner.slots[place(index)].next(height - 1, from - base, value) {
                    return Some(base + found);
                }
                let candidates = above(index) & if value { inner.any } else { !inner.full };
                if candidates == 0 {
                    return None;
                }
                let index = u64::from(candidates.trailing_zeros());
                let found = inner.slots[place(index)].next(height - 1, 0, value)?;
                Some(index * unit + found)
            }
        }
    }

    /// Adds the bits of `other`, which has the same height, and says how many are new.
    fn merge(&mut self, height: u32, other: &Self) -> u64 {
        match (&mut *self, other) {
            (_, Self::Empty) | (Self::Full, _) => 0,
            (_, Self::Full) => {
                let before = self.count(height);
                *self = Self::Full;
                capacity(height) - before
            }
            (Self::Empty, other) => {
                *self = other.clone();
                self.count(height)
            }
            (Self::Leaf(leaf), Self::Leaf(other)) => {
                let added = leaf.merge(other);
                self.collapse();
                added
            }
            (Self::Inner(inner), Self::Inner(other)) => {
                let mut added = 0;
                let mut todo = other.any & !inner.full;
                while todo != 0 {
                    let index = u64::from(todo.trailing_zeros());
                    todo &= todo - 1;
                    added += inner.slots[place(index)].merge(height - 1, &other.slots[place(index)]);
                    inner.summarize(index);
                }
                self.collapse();
                added
            }
            // Leaves are at height 0 only, inner nodes above it only.
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => 0,
        }
    }

    /// Tells of every run of set bits below this slot, which begins at `base`.
    fn walk(&self, height: u32, base: u64, walker: &mut Walker<'_>) {
        match self {
            Self::Empty => {}
            Self::Full => walker.add(base, base.saturating_add(capacity(height))),
            Self::Leaf(leaf) => leaf.walk(base, walker),
            Self::Inner(inner) => {
                let unit = capacity(height - 1);
                let mut todo = inner.any;
                while todo != 0 {
                    let index = u64::from(todo.trailing_zeros());
                    todo &= todo - 1;
                    inner.slots[place(index)].walk(height - 1, base + index * unit, walker);
                }
            }
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Empty | Self::Full => 0,
            Self::Leaf(leaf) => size_of::<Leaf>() + leaf.words.capacity() * size_of::<u64>(),
            Self::Inner(inner) => size_of::<Inner>() + inner.slots.iter().map(Self::memory).sum::<usize>(),
        }
    }
}

impl HBitmap {
    /// All bits clear.
    pub fn new(bits: u64) -> Self {
        let mut height = 0;
        while capacity(height) < bits {
            height += 1;
        }
        Self {
            bits,
            height,
            count: 0,
            root: Slot::Empty,
        }
    }

    /// How many bits it has.
    pub fn len(&self) -> u64 {
        self.bits
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sets bits `start..end`, as far as they exist, and says how many were clear.
    pub fn set(&mut self, start: u64, end: u64) -> u64 {
        self.assign(start, end, true)
    }

    /// Clears bits `start..end`, as far as they exist, and says how many were set.
    pub fn clear(&mut self, start: u64, end: u64) -> u64 {
        self.assign(start, end, false)
    }

    fn assign(&mut self, start: u64, end: u64, value: bool) -> u64 {
        let end = end.min(self.bits);
        if start >= end {
            return 0;
        }
        let changed = self.root.assign(self.height, start, end, value);
        self.count = if value {
            self.count + changed
        } else {
            self.count - changed
        };
        changed
    }

    /// Whether a bit is set.
    pub fn get(&self, bit: u64) -> bool {
        bit < self.bits && self.root.get(self.height, bit)
    }

    /// The first set bit in `from..end`.
    pub fn next_set(&self, from: u64, end: u64) -> Option<u64> {
        self.next(from, end, true)
    }

    /// The first clear bit in `from..end`.
    pub fn next_clear(&self, from: u64, end: u64) -> Option<u64> {
        self.next(from, end, false)
    }

    fn next(&self, from: u64, end: u64, value: bool) -> Option<u64> {
        let end = end.min(self.bits);
        if from >= end {
            return None;
        }
        self.root
            .next(self.height, from, value)
            .filter(|&found| found < end)
    }

    /// The first run of set bits in `from..end`, at most `longest` bits of it, as start and end.
    pub fn next_run(&self, from: u64, end: u64, longest: u64) -> Option<(u64, u64)> {
        let end = end.min(self.bits);
        let start = self.next_set(from, end)?;
        let stop = end.min(start.saturating_add(longest));
        Some((start, self.next_clear(start, stop).unwrap_or(stop)))
    }

    /// How many bits of `start..end` are set.
    pub fn count_range(&self, start: u64, end: u64) -> u64 {
        let mut count = 0;
        let mut at = start;
        while let Some((from, to)) = self.next_run(at, end, u64::MAX) {
            count += to - from;
            at = to;
        }
        count
    }

    /// All runs of set bits, ascending, as start and end.
    pub fn runs(&self) -> Runs<'_> {
        Runs { bitmap: self, at: 0 }
    }

    /// Visits all runs of set bits, ascending, with start and end: faster than [`runs`](Self::runs) where all are wanted.
    pub fn for_each_run(&self, mut visit: impl FnMut(u64, u64)) {
        let mut walker = Walker {
            run: None,
            visit: &mut visit,
        };
        self.root.walk(self.height, 0, &mut walker);
        if let Some((start, end)) = walker.run {
            visit(start, end);
        }
    }

    /// Adds the bits of a bitmap of the same length; the bits of another length are cut off.
    pub fn merge(&mut self, other: &Self) {
        if self.bits == other.bits {
            self.count += self.root.merge(self.height, &other.root);
        } else {
            other.for_each_run(|start, end| {
                self.set(start, end);
            });
        }
    }

    /// Clears every bit.
    pub fn reset(&mut self) {
        self.root = Slot::Empty;
        self.count = 0;
    }

    /// Changes the number of bits; new ones are clear.
    pub fn resize(&mut self, bits: u64) {
        if bits < self.bits {
            self.clear(bits, self.bits);
        }
        let wanted = Self::new(bits).height;
        while self.height < wanted {
            let old = std::mem::take(&mut self.root);
            self.height += 1;
            if !matches!(old, Slot::Empty) {
                let mut inner = Inner::filled(false);
                inner.slots[0] = old;
                inner.summarize(0);
                self.root = Slot::Inner(inner);
            }
        }
        while self.height > wanted {
            self.height -= 1;
            self.root = match std::mem::take(&mut self.root) {
                Slot::Inner(mut inner) => std::mem::take(&mut inner.slots[0]),
                // A full root would have bits beyond the end, a leaf is at height 0.
                uniform => uniform,
            };
        }
        self.bits = bits;
    }

    /// Bytes of memory below the root.
    pub fn memory_bytes(&self) -> usize {
        self.root.memory()
    }
}

/// Iterator of [`HBitmap::runs`].
#[derive(Debug)]
pub struct Runs<'a> {
    bitmap: &'a HBitmap,
    at: u64,
}

impl Iterator for Runs<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let run = self.bitmap.next_run(self.at, u64::MAX, u64::MAX)?;
        self.at = run.1;
        Some(run)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the model is a vector in memory")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Set(u64, u64),
        Clear(u64, u64),
        Resize(u64),
        Merge(Vec<(u64, u64)>),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = 0u64..600_000;
        let len = prop_oneof![1u64..10, 1u64..5000, 1u64..400_000];
        prop_oneof![
            4 => (at.clone(), len.clone()).prop_map(|(a, l)| Op::Set(a, a + l)),
            4 => (at.clone(), len.clone()).prop_map(|(a, l)| Op::Clear(a, a + l)),
            1 => (1u64..600_000).prop_map(Op::Resize),
            1 => prop::collection::vec((at, len), 0..8).prop_map(Op::Merge),
        ]
    }

    fn check(bitmap: &HBitmap, model: &[bool]) {
        assert_eq!(bitmap.len(), model.len() as u64);
        assert_eq!(bitmap.count(), model.iter().filter(|bit| **bit).count() as u64);
        let mut runs = Vec::new();
        let mut at = 0;
        while at < model.len() {
            if model[at] {
                let start = at;
                while at < model.len() && model[at] {
                    at += 1;
                }
                runs.push((start as u64, at as u64));
            } else {
                at += 1;
            }
        }
        assert_eq!(bitmap.runs().collect::<Vec<_>>(), runs);
        let mut visited = Vec::new();
        bitmap.for_each_run(|start, end| visited.push((start, end)));
        assert_eq!(visited, runs);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_a_flat_vector(bits in 1u64..600_000, ops in prop::collection::vec(op(), 1..20), probe in 0u64..600_000) {
            let mut bitmap = HBitmap::new(bits);
            let mut model = vec![false; bits as usize];
            for op in ops {
                match op {
                    Op::Set(a, b) | Op::Clear(a, b) => {
                        let value = matches!(op, Op::Set(..));
                        let end = (b as usize).min(model.len());
                        let start = (a as usize).min(end);
                        let expected = model[start..end].iter().filter(|bit| **bit != value).count() as u64;
                        model[start..end].fill(value);
                        let changed = if value { bitmap.set(a, b) } else { bitmap.clear(a, b) };
                        prop_assert_eq!(changed, expected);
                    }
                    Op::Resize(bits) => {
                        model.resize(bits as usize, false);
                        bitmap.resize(bits);
                    }
                    Op::Merge(runs) => {
                        let mut other = HBitmap::new(bitmap.len());
                        for (a, l) in runs {
                            other.set(a, a + l);
                            let end = ((a + l) as usize).min(model.len());
                            model[(a as usize).min(end)..end].fill(true);
                        }
                        bitmap.merge(&other);
                    }
                }
                check(&bitmap, &model);
                let expected = model.iter().skip(probe as usize).position(|bit| *bit).map(|at| at as u64 + probe);
                prop_assert_eq!(bitmap.next_set(probe, u64::MAX), expected);
                let expected = model.iter().skip(probe as usize).position(|bit| !*bit).map(|at| at as u64 + probe);
                prop_assert_eq!(bitmap.next_clear(probe, u64::MAX), expected);
                prop_assert_eq!(bitmap.get(probe), model.get(probe as usize).copied().unwrap_or(false));
            }
        }

        #[test]
        fn agrees_with_roaring_when_sparse(sets in prop::collection::vec((0u32..u32::MAX - 100, 1u32..100), 1..200)) {
            let mut bitmap = HBitmap::new(1 << 32);
            let mut model = roaring::RoaringBitmap::new();
            for (at, len) in sets {
                prop_assert_eq!(bitmap.set(at.into(), u64::from(at) + u64::from(len)), model.insert_range(at..at + len));
            }
            prop_assert_eq!(bitmap.count(), model.len());
            let bits: Vec<u64> = bitmap.runs().flat_map(|(a, b)| a..b).collect();
            let expected: Vec<u64> = model.iter().map(u64::from).collect();
            prop_assert_eq!(bits, expected);
        }
    }

    #[test]
    fn memory_follows_what_is_set() {
        // 64 TiB at 64 KiB.
        let mut bitmap = HBitmap::new(1 << 30);
        assert_eq!(bitmap.memory_bytes(), 0);
        bitmap.set(0, 1 << 30);
        assert_eq!(bitmap.memory_bytes(), 0);
        bitmap.clear(12345, 12346);
        assert!(bitmap.memory_bytes() < 8192, "{}", bitmap.memory_bytes());
        bitmap.reset();
        for at in 0..1000 {
            bitmap.set(at * 1_000_003, at * 1_000_003 + 1);
        }
        // Beside the flat 128 MiB.
        assert!(bitmap.memory_bytes() < 2 << 20, "{}", bitmap.memory_bytes());
        for at in 0..1000 {
            bitmap.clear(at * 1_000_003, at * 1_000_003 + 1);
        }
        assert_eq!(bitmap.memory_bytes(), 0);
    }

    #[test]
    fn longest_possible() {
        let mut bitmap = HBitmap::new(u64::MAX >> 9);
        bitmap.set(0, u64::MAX);
        assert_eq!(bitmap.count(), u64::MAX >> 9);
        bitmap.clear(1 << 40, (1 << 40) + 1);
        assert_eq!(bitmap.next_clear(0, u64::MAX), Some(1 << 40));
        let bitmap = HBitmap::new(0);
        assert_eq!(bitmap.next_set(0, 10), None);
    }
}
