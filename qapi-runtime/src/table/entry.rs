//! The entries of a table: what is done with one field, whatever its type.

use super::shape::Code;
use super::{Branches, Place, Tag};
use crate::Map;
use crate::decode::{Decode, Members, Object};
use crate::document::Cursor;
use crate::encode::{Encode, Key, Writer};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::policy::Special;
use std::fmt;

/// Reads a value to a field.
type Decoder = unsafe fn(*mut u8, Cursor<'_>) -> Result<(), DecodeError>;
/// Reads members of the object at hand to a field.
type Taker = unsafe fn(&mut Object<'_>, *mut u8) -> Result<(), DecodeError>;
/// Takes the discriminator's value away and reads the branch.
type BranchTaker = unsafe fn(&mut Object<'_>, *mut u8, *mut u8) -> Result<(), DecodeError>;
type Dropper = unsafe fn(*mut u8);

/// A field of a type.
#[derive(Clone, Copy)]
pub struct Entry {
    /// On the wire; empty for what is no member.
    pub(super) name: &'static str,
    offset: u32,
    pub(super) special: Special,
    /// A size: in `key=value` options it may have a unit.
    pub(super) has_units: bool,
    pub(super) code: Code,
    pub(super) ops: &'static Ops,
}

/// What is done with the fields of one type that are for the same.
pub(super) struct Ops {
    pub(super) role: Role,
    pub(super) put: unsafe fn(*const u8, &Key, &mut Writer),
    pub(super) drop: Option<Dropper>,
}

/// What a field is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// A member.
    Member { decode: Decoder, absent: Absent },
    /// The members of a base.
    Base {
        take: Taker,
        keep: unsafe fn(*mut u8, Map),
    },
    /// Members that the type does not have.
    Unknown,
    /// What depends on a discriminator, whose member this is.
    Branch {
        tag: Decoder,
        absent: Absent,
        drop_tag: Option<Dropper>,
        take: BranchTaker,
        put: unsafe fn(*const u8, &mut Writer),
    },
}

/// What a field is when its member is not there.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    /// That is an error.
    Missing,
    /// A constant, which is copied to the field; it is written to a place that need not be aligned.
    Blank(unsafe fn(*mut u8)),
    /// Something that is made anew each time.
    Made(unsafe fn(*mut u8) -> Result<(), DecodeError>),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn dropper<T>() -> Option<Dropper> {
    if std::mem::needs_drop::<T>() {
        Some(drop_field::<T>)
    } else {
        None
    }
}

impl Entry {
    /// # Safety
    /// The field is in the value that starts at `start`, and the code and functions are for it.
    #[expect(clippy::cast_possible_truncation, reason = "it is compared")]
    const unsafe fn new<T>(
        name: &'static str,
        start: *const u8,
        field: *const T,
        code: Code,
        ops: &'static Ops,
    ) -> Self {
        // SAFETY: as the caller says.
        let offset = unsafe { field.cast::<u8>().offset_from_unsigned(start) };
        assert!(offset as u32 as usize == offset, "no type is that large");
        Entry {
            name,
            offset: offset as u32,
            special: Special::NONE,
            has_units: false,
            code,
            ops,
        }
    }

    /// How far the field is from the start of its type.
    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.offset as usize
    }

    pub(super) fn absent(&self) -> Absent {
        match self.ops.role {
            Role::Member { absent, .. } | Role::Branch { absent, .. } => absent,
            Role::Base { .. } => Absent::Missing,
            Role::Unknown => Absent::Made(make_map),
        }
    }

    /// A member that must be there.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn required<T: Decode + Encode>(
        name: &'static str,
        start: *const u8,
        field: *const T,
    ) -> Self {
        let ops = const {
            &Ops {
                role: Role::Member {
                    decode: decode_field::<T>,
                    absent: Absent::Missing,
                },
                put: put_member::<T>,
                drop: dropper::<T>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, T::SHAPE.required(), ops) }
    }

    /// A member that may be left out.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn optional<T: Decode + Encode>(
        name: &'static str,
        start: *const u8,
        field: *const Option<T>,
    ) -> Self {
        let ops = const {
            &Ops {
                role: Role::Member {
                    decode: decode_optional::<T>,
                    absent: Absent::Blank(blank_optional::<T>),
                },
                put: put_optional::<T>,
                drop: dropper::<Option<T>>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, T::SHAPE.optional(), ops) }
    }

    /// A list that must be there, which is empty if it is not: clients read so what servers older than their schema
    /// say.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn list<T: Decode + Encode>(
        name: &'static str,
        start: *const u8,
        field: *const Vec<T>,
    ) -> Self {
        let ops = const {
            &Ops {
                role: Role::Member {
                    decode: decode_field::<Vec<T>>,
                    absent: Absent::Blank(blank_list::<T>),
                },
                put: put_member::<Vec<T>>,
                drop: dropper::<Vec<T>>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, Code::Other, ops) }
    }

    /// A member that must be there, and has no content if it is not: see [`Object::filled`].
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn filled<T: Decode + Encode>(
        name: &'static str,
        start: *const u8,
        field: *const T,
    ) -> Self {
        let ops = const {
            &Ops {
                role: Role::Member {
                    decode: decode_field::<T>,
                    absent: Absent::Made(make_absent::<T>),
                },
                put: put_member::<T>,
                drop: dropper::<T>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, T::SHAPE.required(), ops) }
    }

    /// The members of a base.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn members<T: Members>(start: *const u8, field: *const T) -> Self {
        let ops = const {
            &Ops {
                role: Role::Base {
                    take: take_base::<T>,
                    keep: keep_in_base::<T>,
                },
                put: put_base::<T>,
                drop: dropper::<T>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new("", start, field, Code::Other, ops) }
    }

    /// Members that the type does not have.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn unknown(start: *const u8, field: *const Map) -> Self {
        let ops = const {
            &Ops {
                role: Role::Unknown,
                put: put_unknown,
                drop: dropper::<Map>(),
            }
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new("", start, field, Code::Other, ops) }
    }

    /// What depends on a discriminator, and the discriminator.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn branch<T: Branches<Kind: Decode + Encode>>(
        name: &'static str,
        start: *const u8,
        field: *const T,
    ) -> Self {
        let ops = const { &branch_ops::<T>(Absent::Missing) };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, Code::Other, ops) }
    }

    /// As [`Entry::branch`], where the discriminator may be missing as [`Entry::filled`] has it.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn filled_branch<T: Branches<Kind: Decode + Encode>>(
        name: &'static str,
        start: *const u8,
        field: *const T,
    ) -> Self {
        let ops = const { &branch_ops::<T>(Absent::Made(make_absent::<T::Kind>)) };
        // SAFETY: as the caller says.
        unsafe { Entry::new(name, start, field, Code::Other, ops) }
    }

    /// The member has these features: a policy may refuse it, or leave it out.
    #[must_use]
    pub const fn special(mut self, special: Special) -> Self {
        self.special = special;
        self
    }

    /// The member is a size.
    #[must_use]
    pub const fn size(mut self) -> Self {
        self.has_units = true;
        self
    }
}

const fn branch_ops<T: Branches<Kind: Decode + Encode>>(absent: Absent) -> Ops {
    assert!(size_of::<T::Kind>() <= size_of::<Tag>() && align_of::<T::Kind>() <= align_of::<Tag>());
    Ops {
        role: Role::Branch {
            tag: decode_field::<T::Kind>,
            absent,
            drop_tag: dropper::<T::Kind>(),
            take: take_branch::<T>,
            put: put_branch::<T>,
        },
        put: put_tag::<T>,
        drop: dropper::<T>(),
    }
}

// The functions that follow are unsafe for what entries promise: a pointer is to a field of the type that the function is for,
// which may be written where the function reads one, and is there where the function puts or drops one.

unsafe fn drop_field<T>(field: *mut u8) {
    // SAFETY: see above.
    unsafe { field.cast::<T>().drop_in_place() }
}

unsafe fn decode_field<T: Decode>(field: *mut u8, value: Cursor<'_>) -> Result<(), DecodeError> {
    // SAFETY: see above.
    match T::decode_into(value, unsafe { Place::new(field.cast()) }) {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

unsafe fn decode_optional<T: Decode>(field: *mut u8, value: Cursor<'_>) -> Result<(), DecodeError> {
    match T::decode(value) {
        Ok(value) => {
            // SAFETY: see above.
            unsafe { field.cast::<Option<T>>().write(Some(value)) };
            Ok(())
        }
        Err(error) => Err(error),
    }
}

unsafe fn make_absent<T: Decode>(field: *mut u8) -> Result<(), DecodeError> {
    match crate::decode::absent::<T>() {
        Some(value) => {
            // SAFETY: see above.
            unsafe { field.cast::<T>().write(value) };
            Ok(())
        }
        None => Err(DecodeError::new(DecodeErrorKind::Missing)),
    }
}

unsafe fn blank_optional<T>(field: *mut u8) {
    // SAFETY: see above.
    unsafe { field.cast::<Option<T>>().write_unaligned(None) };
}

unsafe fn blank_list<T>(field: *mut u8) {
    // SAFETY: see above.
    unsafe { field.cast::<Vec<T>>().write_unaligned(Vec::new()) };
}

unsafe fn make_map(field: *mut u8) -> Result<(), DecodeError> {
    // SAFETY: see above.
    unsafe { field.cast::<Map>().write(Map::new()) };
    Ok(())
}

unsafe fn take_base<T: Members>(object: &mut Object<'_>, field: *mut u8) -> Result<(), DecodeError> {
    // SAFETY: see above.
    match T::take_into(object, unsafe { Place::new(field.cast()) }) {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

unsafe fn keep_in_base<T: Members>(field: *mut u8, unknown: Map) {
    // SAFETY: see above.
    unsafe { &mut *field.cast::<T>() }.keep(unknown);
}

unsafe fn take_branch<T: Branches>(
    object: &mut Object<'_>,
    tag: *mut u8,
    field: *mut u8,
) -> Result<(), DecodeError> {
    // SAFETY: see above; nobody uses the tag again.
    let kind = unsafe { tag.cast::<T::Kind>().read() };
    match T::take_branch(kind, object) {
        Ok(branch) => {
            // SAFETY: see above.
            unsafe { field.cast::<T>().write(branch) };
            Ok(())
        }
        Err(error) => Err(error),
    }
}

unsafe fn put_member<T: Encode>(field: *const u8, key: &Key, out: &mut Writer) {
    out.put_key(key);
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.encode(out);
}

unsafe fn put_optional<T: Encode>(field: *const u8, key: &Key, out: &mut Writer) {
    // SAFETY: see above.
    if let Some(value) = unsafe { &*field.cast::<Option<T>>() } {
        out.put_key(key);
        value.encode(out);
    }
}

unsafe fn put_base<T: Members>(field: *const u8, _: &Key, out: &mut Writer) {
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.put(out);
}

unsafe fn put_unknown(field: *const u8, _: &Key, out: &mut Writer) {
    // SAFETY: see above.
    out.rest(unsafe { &*field.cast::<Map>() });
}

unsafe fn put_tag<T: Branches<Kind: Encode>>(field: *const u8, key: &Key, out: &mut Writer) {
    out.put_key(key);
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.kind().encode(out);
}

unsafe fn put_branch<T: Branches>(field: *const u8, out: &mut Writer) {
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.put_branch(out);
}
