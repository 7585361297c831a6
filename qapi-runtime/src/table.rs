//! Objects' types as tables: which members there are, and how each is read, written and dropped.
//!
//! A schema has a thousand such types. Were each to bring code of its own for its members, compiling it would take
//! long; so [`members!`](crate::members) makes a [`Table`] of it, and one loop here walks them all. Values are made in place,
//! member by member, and never moved.
//!
//! Members are found once for an object: each key of the text is looked up among the names of the table, whatever order
//! the peer has them in, so that members that are not there cost nothing to look for. They are read in the schema's order, which
//! says which of several mistakes is told.
//!
//! This knows nothing of single types; what is unsafe about walking them is kept here and in the macro.

mod entry;
mod names;
mod place;

pub use entry::Entry;
pub use names::Names;
pub use place::{Filled, Place};

use crate::Map;
use crate::decode::{self, Object};
use crate::document::Cursor;
use crate::encode::Writer;
use crate::error::{DecodeError, DecodeErrorKind};
use entry::Role;
use std::fmt;
use std::marker::PhantomData;

/// So many members are found at a time.
const AT_ONCE: usize = 64;

/// What a type `T` consists of. The macros write it down.
pub struct Table<T> {
    parts: Parts,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.entries).finish()
    }
}

impl<T> Table<T> {
    /// The table of a type.
    ///
    /// # Safety
    /// Each entry is for a field of `T`, and each field of `T` has one entry.
    ///
    /// # Panics
    /// When there are two branches, of which one would not be read, or a member without a name. As tables are constants,
    /// that means that the program does not compile.
    #[doc(hidden)]
    pub const unsafe fn new(entries: &'static [Entry], names: &'static Names) -> Self {
        let (mut at, mut branches) = (0, 0);
        while at < entries.len() {
            let entry = &entries[at];
            let is_member = match entry.role {
                Role::Branch { .. } => {
                    branches += 1;
                    true
                }
                Role::Member(_) => true,
                Role::Base { .. } | Role::Unknown => false,
            };
            assert!(
                is_member != entry.name.is_empty(),
                "members have a name, and nothing else has"
            );
            at += 1;
        }
        assert!(branches <= 1, "a type has one branch at most");
        Table {
            parts: Parts { entries, names },
            of: PhantomData,
        }
    }

    /// Reads the members of a value to where it is to be.
    ///
    /// # Errors
    /// When a member is missing or does not fit.
    pub fn take<'p>(
        &self,
        object: &mut Object<'_>,
        place: Place<'p, T>,
    ) -> Result<Filled<'p, T>, DecodeError> {
        // SAFETY: the place has room for a `T`, whose fields are those of the table, and if all went well all of
        // them were written.
        unsafe {
            match self.parts.take(object, place.pointer()) {
                Ok(()) => Ok(place.filled()),
                Err(error) => Err(error),
            }
        }
    }

    /// Keeps members that the type does not have, if it has room for them.
    pub fn keep(&self, value: &mut T, unknown: Map) {
        // SAFETY: the value is a `T`, whose fields are those of the table.
        unsafe { self.parts.keep(std::ptr::from_mut(value).cast(), unknown) }
    }

    /// Writes the members of a value.
    pub fn put(&self, value: &T, out: &mut Writer) {
        // SAFETY: the value is a `T`, whose fields are those of the table.
        unsafe { self.parts.put(std::ptr::from_ref(value).cast(), out) }
    }
}

/// What happens to members that a type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// They are an error.
    Refused,
    /// They are overlooked.
    Overlooked,
}

/// Reads a value of a type with a table that has an object to itself.
///
/// # Errors
/// When the value is no object or does not fit.
pub fn decode_into<'p, T>(
    value: Cursor<'_>,
    place: Place<'p, T>,
    table: &Table<T>,
    unknown: Unknown,
) -> Result<Filled<'p, T>, DecodeError> {
    // SAFETY: as in `Table::take`.
    unsafe {
        match table.parts.decode(value, place.pointer(), unknown) {
            Ok(()) => Ok(place.filled()),
            Err(error) => Err(error),
        }
    }
}

/// The same for all types.
struct Parts {
    entries: &'static [Entry],
    names: &'static Names,
}

impl Parts {
    /// # Safety
    /// There is room at `whole` for a value of the table's type. It is there if the result is `Ok`, and else not.
    unsafe fn decode(&self, value: Cursor<'_>, whole: *mut u8, unknown: Unknown) -> Result<(), DecodeError> {
        let mut object = Object::open(value)?;
        // SAFETY: as the caller says.
        unsafe { self.take(&mut object, whole)? };
        match object.finish() {
            Err(error) if unknown == Unknown::Refused => {
                // SAFETY: all fields were written.
                unsafe { self.drop_fields(self.entries.len(), whole) };
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// # Safety
    /// As for [`Parts::decode`].
    unsafe fn take(&self, object: &mut Object<'_>, whole: *mut u8) -> Result<(), DecodeError> {
        let mut tag = Tag::default();
        let mut branch = None;
        let mut first = 0;
        for chunk in self.entries.chunks(AT_ONCE) {
            // Set when the members of this level are asked for first: those of a base come before them.
            let mut places = None;
            for (number, entry) in chunk.iter().enumerate() {
                // SAFETY: the entry is for a field at its offset, or for the branch's tag.
                let result = unsafe {
                    let field = whole.add(entry.offset);
                    match entry.role {
                        Role::Base { take, .. } => take(object, field),
                        Role::Unknown => {
                            field.cast::<Map>().write(Map::new());
                            Ok(())
                        }
                        Role::Member(decode) => {
                            let places =
                                places.get_or_insert_with(|| object.locate(self.entries, first, self.names));
                            read(entry, object, places.get(number), field, decode)
                        }
                        Role::Branch {
                            tag: decode, take, ..
                        } => {
                            branch = Some((entry, take));
                            let places =
                                places.get_or_insert_with(|| object.locate(self.entries, first, self.names));
                            read(entry, object, places.get(number), tag.pointer(), decode)
                        }
                    }
                };
                if let Err(error) = result {
                    // SAFETY: the fields before this one were written, but for a branch, whose tag was.
                    unsafe { self.undo(first + number, whole, &mut tag) };
                    return Err(error);
                }
            }
            first += chunk.len();
        }
        if let Some((entry, take)) = branch {
            // SAFETY: the tag was read, and `take` takes it away.
            let taken = unsafe { take(object, tag.pointer(), whole.add(entry.offset)) };
            if let Err(error) = taken {
                // SAFETY: all fields but the branch were written.
                unsafe { self.drop_members(self.entries.len(), whole) };
                return Err(error);
            }
        }
        Ok(())
    }

    /// Drops what was read when something else could not be.
    ///
    /// # Safety
    /// The first `count` fields were written and are not used again, but for a branch, whose tag was.
    #[cold]
    unsafe fn undo(&self, count: usize, whole: *mut u8, tag: &mut Tag) {
        // SAFETY: as the caller says.
        unsafe {
            self.drop_members(count, whole);
            for entry in self.entries.iter().take(count) {
                if let Role::Branch {
                    drop_tag: Some(drop), ..
                } = entry.role
                {
                    drop(tag.pointer());
                }
            }
        }
    }

    /// # Safety
    /// The first `count` fields were written, but for a branch, and are not used again.
    #[cold]
    unsafe fn drop_members(&self, count: usize, whole: *mut u8) {
        for entry in self.entries.iter().take(count) {
            if let (Some(drop), false) = (entry.drop, matches!(entry.role, Role::Branch { .. })) {
                // SAFETY: as the caller says.
                unsafe { drop(whole.add(entry.offset)) };
            }
        }
    }

    /// # Safety
    /// The first `count` fields were written and are not used again.
    #[cold]
    unsafe fn drop_fields(&self, count: usize, whole: *mut u8) {
        for entry in self.entries.iter().take(count) {
            if let Some(drop) = entry.drop {
                // SAFETY: as the caller says.
                unsafe { drop(whole.add(entry.offset)) };
            }
        }
    }

    /// # Safety
    /// At `whole` is a value of the table's type.
    unsafe fn keep(&self, whole: *mut u8, unknown: Map) {
        for entry in self.entries {
            // SAFETY: at the entry's offset is the field that the role is for.
            unsafe {
                let field = whole.add(entry.offset);
                match entry.role {
                    Role::Unknown => return *field.cast::<Map>() = unknown,
                    Role::Base { keep, .. } => return keep(field, unknown),
                    _ => {}
                }
            }
        }
    }

    /// # Safety
    /// At `whole` is a value of the table's type.
    unsafe fn put(&self, whole: *const u8, out: &mut Writer) {
        let (mut last, mut unknown) = (None, false);
        for entry in self.entries {
            match entry.role {
                Role::Unknown => {
                    unknown = true;
                    continue;
                }
                Role::Branch { .. } => last = Some(entry),
                _ => {}
            }
            if !entry.special.is_none() && out.hides(entry.special) {
                continue;
            }
            // SAFETY: at the entry's offset is the field that `put` is for.
            unsafe { (entry.put)(whole.add(entry.offset), entry.name, out) };
        }
        // These come behind everything else.
        if let Some(entry) = last
            && let Role::Branch { put, .. } = entry.role
        {
            // SAFETY: the same.
            unsafe { put(whole.add(entry.offset), out) };
        }
        if unknown {
            for entry in self
                .entries
                .iter()
                .filter(|entry| matches!(entry.role, Role::Unknown))
            {
                // SAFETY: the same.
                unsafe { (entry.put)(whole.add(entry.offset), entry.name, out) };
            }
        }
    }
}

/// Reads one member.
///
/// # Safety
/// `decode` may write to `field`.
#[inline]
unsafe fn read(
    entry: &Entry,
    object: &Object<'_>,
    place: u32,
    field: *mut u8,
    decode: entry::Decoder,
) -> Result<(), DecodeError> {
    let value = if place == 0 {
        if entry.is_required {
            return Err(DecodeError::new(DecodeErrorKind::Missing).in_member(entry.name));
        }
        None
    } else {
        if !entry.special.is_none()
            && let Some(why) = decode::policy(object.mode()).refuses(entry.special)
        {
            return Err(DecodeError::new(DecodeErrorKind::RefusedMember(why)).in_member(entry.name));
        }
        Some(object.value_at(place, entry.has_units))
    };
    // SAFETY: as the caller says.
    match unsafe { decode(field, value) } {
        Ok(()) => Ok(()),
        Err(error) => Err(error.in_member(entry.name)),
    }
}

/// Where the values of the members of a part of a table are; 0 for one that is not there.
#[derive(Debug)]
pub(crate) struct Places([u32; AT_ONCE]);

impl Places {
    pub(crate) fn none() -> Self {
        Places([0; AT_ONCE])
    }

    /// Notes where the value of the member `number` is, if this is the part that it belongs to.
    #[inline]
    pub(crate) fn set(&mut self, number: usize, place: usize) -> bool {
        match (self.0.get_mut(number), u32::try_from(place)) {
            (Some(slot), Ok(place)) => {
                *slot = place;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn get(&self, number: usize) -> u32 {
        self.0.get(number).copied().unwrap_or(0)
    }
}

/// Room for the value of a union's discriminator while its other members are read.
#[derive(Debug, Default)]
struct Tag([u64; Tag::WORDS]);

impl Tag {
    const WORDS: usize = 4;

    fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// A branch of a union, by its discriminator's value.
pub trait Branches: Sized {
    /// The discriminator.
    type Kind;

    /// The discriminator's value.
    fn kind(&self) -> Self::Kind;

    /// Reads what the branch adds.
    ///
    /// # Errors
    /// When a member is missing or does not fit.
    fn take_branch(kind: Self::Kind, object: &mut Object<'_>) -> Result<Self, DecodeError>;

    /// Writes what the branch adds.
    fn put_branch(&self, out: &mut Writer);
}

/// A type with a table; [`members!`](crate::members) says so.
pub trait Tabled: Sized + 'static {
    /// The table.
    const TABLE: &'static Table<Self>;
}

pub(crate) use place::make;

#[cfg(test)]
mod tests;
