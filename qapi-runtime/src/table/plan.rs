//! What is worked out of a table when its type is met first; most types of a schema are never met.

use super::AT_ONCE;
use super::entry::{Absent, Entry, Role};
use super::names::Names;
use crate::encode::Key;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Where a table has what is worked out of it.
#[derive(Debug, Default)]
pub struct Lazy(OnceLock<Plan>);

pub(super) struct Plan {
    pub(super) names: Names,
    /// What a value is where it is nothing yet: fields of members that may be missing are as if these were. Nothing if
    /// there are none.
    pub(super) blank: Box<[MaybeUninit<u8>]>,
    /// So many bases come before everything else; fewer than are found at a time.
    pub(super) bases: usize,
    /// Of each part of the table, the entries that cannot be passed over when there is no such member.
    pub(super) needed: Box<[u64]>,
    /// What is written before the members' values.
    pub(super) keys: Box<[Key]>,
    /// The entries that are written last.
    pub(super) branch: Option<usize>,
    pub(super) unknown: Option<usize>,
}

impl Lazy {
    /// A plan that is not made yet.
    pub const fn new() -> Self {
        Lazy(OnceLock::new())
    }

    /// The plan of the table with these entries, of a type of `size` bytes.
    ///
    /// # Safety
    /// The entries are those of the type.
    #[inline]
    pub(super) unsafe fn get(&self, entries: &'static [Entry], size: usize) -> &Plan {
        match self.0.get() {
            Some(plan) => plan,
            // SAFETY: as the caller says.
            None => self.0.get_or_init(|| unsafe { make(entries, size) }),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.fmt(f)
    }
}

/// # Safety
/// As for [`Lazy::get`].
#[cold]
#[inline(never)]
unsafe fn make(entries: &'static [Entry], size: usize) -> Plan {
    let names: Vec<&'static str> = entries.iter().map(|entry| entry.name).collect();
    let may_be_missing = |entry: &Entry| matches!(entry.absent(), Absent::Blank(_));
    let needed = entries.chunks(AT_ONCE).map(|part| {
        let numbered = part.iter().enumerate();
        numbered.fold(0, |all, (number, entry)| {
            all | u64::from(!may_be_missing(entry)) << number
        })
    });
    let is_base = |entry: &&Entry| matches!(entry.ops.role, Role::Base { .. });
    let find = |is: fn(&Entry) -> bool| entries.iter().position(is);
    Plan {
        names: Names::new(&names),
        blank: if entries.iter().any(may_be_missing) {
            // SAFETY: as the caller says.
            unsafe { blank(entries, size) }
        } else {
            Box::default()
        },
        bases: entries.iter().take(AT_ONCE - 1).take_while(is_base).count(),
        needed: needed.collect(),
        keys: names.iter().map(|name| Key::new(name)).collect(),
        branch: find(|entry| matches!(entry.ops.role, Role::Branch { .. })),
        unknown: find(|entry| matches!(entry.ops.role, Role::Unknown)),
    }
}

/// # Safety
/// As for [`Lazy::get`].
unsafe fn blank(entries: &[Entry], size: usize) -> Box<[MaybeUninit<u8>]> {
    let mut bytes = vec![MaybeUninit::uninit(); size];
    let whole = bytes.as_mut_ptr().cast::<u8>();
    for entry in entries {
        if let Absent::Blank(write) = entry.absent() {
            // SAFETY: the entry is for a field at its offset.
            unsafe { write(whole.add(entry.offset())) };
        }
    }
    bytes.into_boxed_slice()
}
