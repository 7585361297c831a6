//! Objects' types as tables: which members there are, and how each is read, written and dropped.
//!
//! A schema has a thousand such types. Were each to bring code of its own for its members, compiling it would take
//! long; so [`members!`](crate::members) makes a [`Table`] of it, and one loop here walks them all. Values are made in place,
//! member by member, and never moved.
//!
//! Members are found once for an object: each key of the text is looked up among the names of the table, whatever order
//! the peer has them in, so that members that are not there cost nothing to look for. At first they are read in that order,
//! as most messages are right. Where one is not it is read again, in the schema's order, which says which of several mistakes
//! is told.
//!
//! This knows nothing of single types; what is unsafe about walking them is kept here and in the macro.

mod entry;
mod names;
mod place;
mod plan;
mod shape;

pub use entry::Entry;
pub(crate) use names::Names;
pub use place::{Filled, Place};
pub use plan::Lazy;
pub use shape::Shape;

use crate::Map;
use crate::decode::Object;
use crate::document::{Attempt, Cursor, Document, Mode, Token};
use crate::encode::{Encode, Writer};
use crate::error::{DecodeError, DecodeErrorKind};
use entry::{Absent, Role};
use plan::Plan;
use shape::Code;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

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
    pub const unsafe fn new(entries: &'static [Entry], plan: &'static Lazy) -> Self {
        let (mut at, mut branches) = (0, 0);
        while at < entries.len() {
            let entry = &entries[at];
            let is_member = match entry.ops.role {
                Role::Branch { .. } => {
                    branches += 1;
                    true
                }
                Role::Member { .. } => true,
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
            parts: Parts {
                entries,
                plan,
                size: size_of::<T>(),
            },
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
    plan: &'static Lazy,
    size: usize,
}

impl Parts {
    /// # Safety
    /// There is room at `whole` for a value of the table's type. It is there if the result is `Ok`, and else not.
    unsafe fn decode(&self, value: Cursor<'_>, whole: *mut u8, unknown: Unknown) -> Result<(), DecodeError> {
        let mode = value.mode();
        let with = |attempt| value.with_mode(mode.with_attempt(attempt));
        // A program that is to end at the first sight of something ends for what comes first in the schema.
        // SAFETY: as the caller says.
        unsafe {
            match mode.attempt() {
                Attempt::Both if mode.may_crash() => self.decode_once(with(Attempt::Second), whole, unknown),
                Attempt::Both => match self.decode_once(with(Attempt::First), whole, unknown) {
                    Ok(()) => Ok(()),
                    // What is in it is not read more often, however deep it is.
                    Err(_) => self.decode_once(with(Attempt::Second), whole, unknown),
                },
                Attempt::First | Attempt::Second => self.decode_once(value, whole, unknown),
            }
        }
    }

    /// # Safety
    /// As for [`Parts::decode`].
    unsafe fn decode_once(
        &self,
        value: Cursor<'_>,
        whole: *mut u8,
        unknown: Unknown,
    ) -> Result<(), DecodeError> {
        let Token::Object { end, len } = value.token() else {
            return Err(DecodeError::expected("object"));
        };
        let mut object = Object::of(value, end, len);
        // SAFETY: as the caller says.
        unsafe { self.take(&mut object, whole)? };
        match object.check() {
            Err(error) if unknown == Unknown::Refused => {
                // SAFETY: all fields were written.
                unsafe { self.drop_fields(self.entries.len(), whole) };
                Err(error)
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn plan(&self) -> &'static Plan {
        // SAFETY: the entries are those of the type, which is so large.
        unsafe { self.plan.get(self.entries, self.size) }
    }

    /// # Safety
    /// As for [`Parts::decode`].
    unsafe fn take(&self, object: &mut Object<'_>, whole: *mut u8) -> Result<(), DecodeError> {
        let plan = self.plan();
        // SAFETY: there is room for a value of the table's type, and a blank one is as large.
        unsafe {
            whole
                .cast::<MaybeUninit<u8>>()
                .copy_from_nonoverlapping(plan.blank.as_ptr(), plan.blank.len());
        }
        let mut tag = Tag::new();
        // Members of bases are not those of the type's own, so that these need not be looked for among them.
        for (number, entry) in self.entries.iter().take(plan.bases).enumerate() {
            // SAFETY: the entry is for a field at its offset.
            let taken = unsafe { read_rest(entry, object, whole.add(entry.offset()), &mut tag) };
            if let Err(error) = taken {
                // SAFETY: the fields before this one were written.
                unsafe { self.undo(number, whole, &mut tag) };
                return Err(error);
            }
        }
        // SAFETY: as the caller says, and the bases were read.
        unsafe {
            if object.mode().attempt() == Attempt::First && object.has_few() && self.entries.len() <= AT_ONCE
            {
                self.take_as_they_come(plan, object, whole, &mut tag)?;
            } else {
                self.take_in_order(plan, object, whole, &mut tag)?;
            }
        }
        if let Some(entry) = plan.branch.and_then(|branch| self.entries.get(branch))
            && let Role::Branch { take, .. } = entry.ops.role
        {
            // SAFETY: the tag was read, and `take` takes it away.
            let taken = unsafe { take(object, tag.pointer(), whole.add(entry.offset())) };
            if let Err(error) = taken {
                // SAFETY: all fields but the branch were written.
                unsafe { self.drop_members(self.entries.len(), whole) };
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the members in the order of the text.
    ///
    /// # Safety
    /// There is room at `whole` for a value of the table's type, which has the bases already that come first, and blanks. All
    /// other fields but a branch are there if the result is `Ok`, and the tag of the branch; else nothing is.
    unsafe fn take_as_they_come(
        &self,
        plan: &Plan,
        object: &mut Object<'_>,
        whole: *mut u8,
        tag: &mut Tag,
    ) -> Result<(), DecodeError> {
        let mut read_so_far = !(u64::MAX << plan.bases);
        let (document, mode) = object.source();
        let result = object.each(&plan.names, |number, token, place| {
            let Some(entry) = self.entries.get(number) else {
                return Ok(());
            };
            if read_so_far & (1 << number) != 0 {
                return Err(DecodeError::new(DecodeErrorKind::Unexpected));
            }
            // SAFETY: the entry is for a field at its offset, which was not read yet.
            unsafe {
                read(
                    entry,
                    document,
                    mode,
                    token,
                    place,
                    whole.add(entry.offset()),
                    tag,
                )?
            };
            read_so_far |= 1 << number;
            Ok(())
        });
        let needed = plan.needed.first().copied().unwrap_or_default();
        let mut left = needed & !read_so_far;
        let result = result.and_then(|()| {
            while left != 0 {
                let number = left.trailing_zeros() as usize;
                left &= left - 1;
                let Some(entry) = self.entries.get(number) else {
                    break;
                };
                // SAFETY: the same.
                unsafe { read_rest(entry, object, whole.add(entry.offset()), tag)? };
                read_so_far |= 1 << number;
            }
            Ok(())
        });
        if result.is_err() {
            // Blank fields need no drop.
            for (number, entry) in self.entries.iter().enumerate() {
                if read_so_far & (1 << number) != 0 {
                    let drop = match entry.ops.role {
                        Role::Branch { drop_tag, .. } => drop_tag.map(|drop| (drop, tag.pointer())),
                        // SAFETY: the field is in the value.
                        _ => entry
                            .ops
                            .drop
                            .map(|drop| (drop, unsafe { whole.add(entry.offset()) })),
                    };
                    if let Some((drop, field)) = drop {
                        // SAFETY: it was read, and is not used again.
                        unsafe { drop(field) };
                    }
                }
            }
        }
        result
    }

    /// Reads the members in the schema's order.
    ///
    /// # Safety
    /// As for [`Parts::take_as_they_come`].
    unsafe fn take_in_order(
        &self,
        plan: &Plan,
        object: &mut Object<'_>,
        whole: *mut u8,
        tag: &mut Tag,
    ) -> Result<(), DecodeError> {
        let (mut from, mut start) = (0, plan.bases);
        for (part, needed) in self.entries.chunks(AT_ONCE).zip(&plan.needed) {
            let mut places = Places::none();
            object.locate(&plan.names, from, &mut places);
            let (document, mode) = object.source();
            let mut left = (places.present | needed) & (u64::MAX << start);
            while left != 0 {
                let number = left.trailing_zeros() as usize;
                left &= left - 1;
                let Some(entry) = part.get(number) else { break };
                // SAFETY: the entry is for a field at its offset.
                let result = unsafe {
                    let field = whole.add(entry.offset());
                    match places.get(number) {
                        Some(place) => {
                            let place = place as usize;
                            let token = document.cursor_at(place, mode).token();
                            read(entry, document, mode, &token, place, field, tag)
                        }
                        None => read_rest(entry, object, field, tag),
                    }
                };
                if let Err(error) = result {
                    // SAFETY: the fields before this one were written, but for a branch, whose tag was; blank ones
                    // are.
                    unsafe { self.undo(from + number, whole, tag) };
                    return Err(error);
                }
            }
            from += part.len();
            start = 0;
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
                } = entry.ops.role
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
            if let (Some(drop), false) = (entry.ops.drop, matches!(entry.ops.role, Role::Branch { .. })) {
                // SAFETY: as the caller says.
                unsafe { drop(whole.add(entry.offset())) };
            }
        }
    }

    /// # Safety
    /// The first `count` fields were written and are not used again.
    #[cold]
    unsafe fn drop_fields(&self, count: usize, whole: *mut u8) {
        for entry in self.entries.iter().take(count) {
            if let Some(drop) = entry.ops.drop {
                // SAFETY: as the caller says.
                unsafe { drop(whole.add(entry.offset())) };
            }
        }
    }

    /// # Safety
    /// At `whole` is a value of the table's type.
    unsafe fn keep(&self, whole: *mut u8, unknown: Map) {
        for entry in self.entries {
            // SAFETY: at the entry's offset is the field that the role is for.
            unsafe {
                let field = whole.add(entry.offset());
                match entry.ops.role {
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
        let plan = self.plan();
        for (number, (entry, key)) in self.entries.iter().zip(&plan.keys).enumerate() {
            if !entry.special.is_none() && out.hides(entry.special) {
                continue;
            }
            // SAFETY: at the entry's offset is the field that the code and the functions are for.
            unsafe {
                let field = whole.add(entry.offset());
                match entry.code {
                    Code::Bool => {
                        out.put_key(key);
                        (*field.cast::<bool>()).encode(out);
                    }
                    Code::Int => {
                        out.put_key(key);
                        (*field.cast::<i64>()).encode(out);
                    }
                    Code::Uint => {
                        out.put_key(key);
                        (*field.cast::<u64>()).encode(out);
                    }
                    Code::String => {
                        out.put_key(key);
                        out.string(&*field.cast::<String>());
                    }
                    Code::OptionalBool => {
                        if let Some(value) = *field.cast::<Option<bool>>() {
                            out.put_key(key);
                            value.encode(out);
                        }
                    }
                    Code::OptionalInt => {
                        if let Some(value) = *field.cast::<Option<i64>>() {
                            out.put_key(key);
                            value.encode(out);
                        }
                    }
                    Code::OptionalUint => {
                        if let Some(value) = *field.cast::<Option<u64>>() {
                            out.put_key(key);
                            value.encode(out);
                        }
                    }
                    Code::OptionalString => {
                        if let Some(value) = &*field.cast::<Option<String>>() {
                            out.put_key(key);
                            out.string(value);
                        }
                    }
                    Code::OptionalByte(none) => {
                        if *field != none {
                            (entry.ops.put)(field, key, out);
                        }
                    }
                    Code::OptionalBox => {
                        if !(*field.cast::<*const u8>()).is_null() {
                            (entry.ops.put)(field, key, out);
                        }
                    }
                    Code::Other | Code::Optional | Code::Box => {
                        if plan.unknown != Some(number) {
                            (entry.ops.put)(field, key, out);
                        }
                    }
                }
            }
        }
        // These come behind everything else.
        if let Some(entry) = plan.branch.and_then(|branch| self.entries.get(branch))
            && let Role::Branch { put, .. } = entry.ops.role
        {
            // SAFETY: the same.
            unsafe { put(whole.add(entry.offset()), out) };
        }
        if let Some(number) = plan.unknown
            && let (Some(entry), Some(key)) = (self.entries.get(number), plan.keys.get(number))
        {
            // SAFETY: the same.
            unsafe { (entry.ops.put)(whole.add(entry.offset()), key, out) };
        }
    }
}

/// Reads one field from the value at `place`, which is `token`.
///
/// # Safety
/// The field is that of the entry, and may be written to.
#[inline(always)]
unsafe fn read(
    entry: &Entry,
    document: &Document,
    mode: Mode,
    token: &Token,
    place: usize,
    field: *mut u8,
    tag: &mut Tag,
) -> Result<(), DecodeError> {
    if entry.special.is_none() {
        // SAFETY: as the caller says: the code says what the field is.
        unsafe {
            match (entry.code, *token) {
                (Code::Bool, Token::Bool(value)) => {
                    field.cast::<bool>().write(value);
                    return Ok(());
                }
                (Code::Int, Token::Int(value)) => {
                    field.cast::<i64>().write(value);
                    return Ok(());
                }
                (Code::String, Token::String { start, end, .. }) => {
                    write_string(document, start, end, field);
                    return Ok(());
                }
                _ => {}
            }
        }
    }
    // SAFETY: as the caller says.
    unsafe { read_value(entry, document, mode, token, place, field, tag) }
}

/// Writes the text of a string token to a field.
///
/// # Safety
/// The field is a `String`, and may be written to.
// It is not returned: that would move it once more.
#[inline(never)]
unsafe fn write_string(document: &Document, start: u32, end: u32, field: *mut u8) {
    let text = document.text(start, end).to_owned();
    // SAFETY: as the caller says.
    unsafe { field.cast::<String>().write(text) };
}

/// The same to a field that is an `Option<String>`.
///
/// # Safety
/// As for [`write_string`].
#[inline(never)]
unsafe fn write_optional_string(document: &Document, start: u32, end: u32, field: *mut u8) {
    let text = document.text(start, end).to_owned();
    // SAFETY: as the caller says.
    unsafe { field.cast::<Option<String>>().write(Some(text)) };
}

/// The same for what is not met that often.
///
/// # Safety
/// As for [`read`].
#[inline(never)]
unsafe fn read_value(
    entry: &Entry,
    document: &Document,
    mode: Mode,
    token: &Token,
    place: usize,
    field: *mut u8,
    tag: &mut Tag,
) -> Result<(), DecodeError> {
    if !entry.special.is_none()
        && let Some(why) = mode.refuses(entry.special)
    {
        return Err(DecodeError::new(DecodeErrorKind::RefusedMember(why)).in_member(entry.name));
    }
    // SAFETY: as the caller says.
    let result = unsafe {
        match (entry.code, *token) {
            (Code::OptionalBool, Token::Bool(value)) => {
                field.cast::<Option<bool>>().write(Some(value));
                return Ok(());
            }
            (Code::OptionalInt, Token::Int(value)) => {
                field.cast::<Option<i64>>().write(Some(value));
                return Ok(());
            }
            (Code::Uint, Token::Int(value)) => {
                field.cast::<u64>().write(value.cast_unsigned());
                return Ok(());
            }
            (Code::OptionalUint, Token::Int(value)) => {
                field.cast::<Option<u64>>().write(Some(value.cast_unsigned()));
                return Ok(());
            }
            (Code::OptionalString, Token::String { start, end, .. }) => {
                write_optional_string(document, start, end, field);
                return Ok(());
            }
            _ => {}
        }
        let value = document.cursor_at(place, mode.or_units(entry.has_units));
        match entry.ops.role {
            Role::Member { decode, .. } => decode(field, value),
            Role::Branch { tag: decode, .. } => decode(tag.pointer(), value),
            // These have no name that a member could have.
            Role::Base { .. } | Role::Unknown => Err(DecodeError::new(DecodeErrorKind::Unexpected)),
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.in_member(entry.name)),
    }
}

/// Reads one field that no single member is for, or whose member is not there.
///
/// # Safety
/// As for [`read`].
unsafe fn read_rest(
    entry: &Entry,
    object: &mut Object<'_>,
    field: *mut u8,
    tag: &mut Tag,
) -> Result<(), DecodeError> {
    // SAFETY: as the caller says.
    let result = unsafe {
        match entry.ops.role {
            Role::Base { take, .. } => return take(object, field),
            Role::Member { .. } | Role::Unknown => fill(entry.absent(), field),
            Role::Branch { absent, .. } => fill(absent, tag.pointer()),
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.in_member(entry.name)),
    }
}

/// Makes what stands for a member that is not there.
///
/// # Safety
/// As for [`read`].
unsafe fn fill(absent: Absent, field: *mut u8) -> Result<(), DecodeError> {
    match absent {
        Absent::Missing => Err(DecodeError::new(DecodeErrorKind::Missing)),
        // It is there already.
        Absent::Blank(_) => Ok(()),
        // SAFETY: as the caller says.
        Absent::Made(make) => unsafe { make(field) },
    }
}

/// Where the values of the members of a part of a table are.
#[derive(Debug)]
pub(crate) struct Places {
    /// Which members there are.
    present: u64,
    /// Where they are; nothing for others.
    places: [MaybeUninit<u32>; AT_ONCE],
}

impl Places {
    #[inline]
    fn none() -> Self {
        Places {
            present: 0,
            places: [MaybeUninit::uninit(); AT_ONCE],
        }
    }

    /// Notes where the value of the member `number` is, if this is the part that it belongs to.
    #[inline]
    pub(crate) fn set(&mut self, number: usize, place: usize) -> bool {
        match (self.places.get_mut(number), u32::try_from(place)) {
            (Some(slot), Ok(place)) => {
                slot.write(place);
                self.present |= 1 << number;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn get(&self, number: usize) -> Option<u32> {
        let slot = self.places.get(number)?;
        // SAFETY: it was written if it is said to be present.
        (self.present & (1 << number) != 0).then(|| unsafe { slot.assume_init() })
    }
}

/// Room for the value of a union's discriminator while its other members are read.
#[derive(Debug)]
struct Tag([MaybeUninit<u64>; 4]);

impl Tag {
    fn new() -> Self {
        Tag([MaybeUninit::uninit(); 4])
    }

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
