//! The entries of a table: what is done with one field, whatever its type.

use super::{Branches, Place, Tag};
use crate::Map;
use crate::decode::{Decode, Members, Object};
use crate::document::Cursor;
use crate::encode::{Encode, Writer};
use crate::error::DecodeError;
use crate::policy::Special;
use std::fmt;

/// Reads a value, or what stands for one that is not there, to a field.
pub(super) type Decoder = unsafe fn(*mut u8, Option<Cursor<'_>>) -> Result<(), DecodeError>;
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
    pub(super) offset: usize,
    pub(super) special: Special,
    pub(super) is_required: bool,
    /// A size: in `key=value` options it may have a unit.
    pub(super) has_units: bool,
    pub(super) role: Role,
    pub(super) put: unsafe fn(*const u8, &'static str, &mut Writer),
    pub(super) drop: Option<Dropper>,
}

/// What a field is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// A member.
    Member(Decoder),
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
        drop_tag: Option<Dropper>,
        take: BranchTaker,
        put: unsafe fn(*const u8, &mut Writer),
    },
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How far a field is from the start of its type.
///
/// # Safety
/// Both are in the one value that a table is made from.
const unsafe fn offset<T>(start: *const u8, field: *const T) -> usize {
    // SAFETY: as the caller says.
    unsafe { field.cast::<u8>().offset_from_unsigned(start) }
}

const fn dropper<T>() -> Option<Dropper> {
    if std::mem::needs_drop::<T>() {
        Some(drop_field::<T>)
    } else {
        None
    }
}

impl Entry {
    const unsafe fn new<T>(
        start: *const u8,
        field: *const T,
        role: Role,
        put: unsafe fn(*const u8, &'static str, &mut Writer),
    ) -> Self {
        Entry {
            name: "",
            // SAFETY: as the caller says.
            offset: unsafe { offset(start, field) },
            special: Special::NONE,
            is_required: false,
            has_units: false,
            role,
            put,
            drop: dropper::<T>(),
        }
    }

    /// A member that must be there.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn required<T: Decode + Encode>(start: *const u8, field: *const T) -> Self {
        let role = Role::Member(decode_required::<T>);
        // SAFETY: as the caller says.
        let mut entry = unsafe { Entry::new(start, field, role, put_member::<T>) };
        entry.is_required = true;
        entry
    }

    /// A member that may be left out.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn optional<T: Decode + Encode>(start: *const u8, field: *const Option<T>) -> Self {
        let role = Role::Member(decode_optional::<T>);
        // SAFETY: as the caller says.
        unsafe { Entry::new(start, field, role, put_optional::<T>) }
    }

    /// A list that must be there, which is empty if it is not: clients read so what servers older than their schema
    /// say.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn list<T: Decode + Encode>(start: *const u8, field: *const Vec<T>) -> Self {
        let role = Role::Member(decode_list::<T>);
        // SAFETY: as the caller says.
        unsafe { Entry::new(start, field, role, put_member::<Vec<T>>) }
    }

    /// A member that must be there, and has no content if it is not: see [`Object::filled`].
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn filled<T: Decode + Encode>(start: *const u8, field: *const T) -> Self {
        let role = Role::Member(decode_filled::<T>);
        // SAFETY: as the caller says.
        unsafe { Entry::new(start, field, role, put_member::<T>) }
    }

    /// As [`Entry::branch`], where the discriminator may be missing as [`Entry::filled`] has it.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn filled_branch<T: Branches<Kind: Decode + Encode>>(
        start: *const u8,
        field: *const T,
    ) -> Self {
        // SAFETY: as the caller says.
        let mut entry = unsafe { Entry::branch(start, field) };
        if let Role::Branch { tag, .. } = &mut entry.role {
            *tag = decode_filled::<T::Kind>;
        }
        entry.is_required = false;
        entry
    }

    /// The members of a base.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn members<T: Members>(start: *const u8, field: *const T) -> Self {
        let role = Role::Base {
            take: take_base::<T>,
            keep: keep_in_base::<T>,
        };
        // SAFETY: as the caller says.
        unsafe { Entry::new(start, field, role, put_base::<T>) }
    }

    /// Members that the type does not have.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn unknown(start: *const u8, field: *const Map) -> Self {
        // SAFETY: as the caller says.
        unsafe { Entry::new(start, field, Role::Unknown, put_unknown) }
    }

    /// What depends on a discriminator, and the discriminator.
    ///
    /// # Safety
    /// The field is in the value that starts at `start`.
    pub const unsafe fn branch<T: Branches<Kind: Decode + Encode>>(
        start: *const u8,
        field: *const T,
    ) -> Self {
        const { assert!(size_of::<T::Kind>() <= size_of::<Tag>() && align_of::<T::Kind>() <= align_of::<Tag>()) }
        let role = Role::Branch {
            tag: decode_required::<T::Kind>,
            drop_tag: dropper::<T::Kind>(),
            take: take_branch::<T>,
            put: put_branch::<T>,
        };
        // SAFETY: as the caller says.
        let mut entry = unsafe { Entry::new(start, field, role, put_tag::<T>) };
        entry.is_required = true;
        entry
    }

    /// The member's name.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
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

// The functions that follow are unsafe for what entries promise: a pointer is to a field of the type that the function is for,
// which may be written where the function reads one, and is there where the function puts or drops one.

unsafe fn drop_field<T>(field: *mut u8) {
    // SAFETY: see above.
    unsafe { field.cast::<T>().drop_in_place() }
}

unsafe fn decode_required<T: Decode>(field: *mut u8, value: Option<Cursor<'_>>) -> Result<(), DecodeError> {
    match value {
        // SAFETY: see above.
        Some(value) => match T::decode_into(value, unsafe { Place::new(field.cast()) }) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        },
        None => Err(DecodeError::new(crate::error::DecodeErrorKind::Missing)),
    }
}

unsafe fn decode_filled<T: Decode>(field: *mut u8, value: Option<Cursor<'_>>) -> Result<(), DecodeError> {
    let value = match value {
        Some(value) => T::decode(value)?,
        None => match crate::decode::absent() {
            Some(value) => value,
            None => return Err(DecodeError::new(crate::error::DecodeErrorKind::Missing)),
        },
    };
    // SAFETY: see above.
    unsafe { field.cast::<T>().write(value) };
    Ok(())
}

unsafe fn decode_optional<T: Decode>(field: *mut u8, value: Option<Cursor<'_>>) -> Result<(), DecodeError> {
    let value = match value {
        Some(value) => Some(T::decode(value)?),
        None => None,
    };
    // SAFETY: see above.
    unsafe { field.cast::<Option<T>>().write(value) };
    Ok(())
}

unsafe fn decode_list<T: Decode>(field: *mut u8, value: Option<Cursor<'_>>) -> Result<(), DecodeError> {
    let list = match value {
        Some(value) => Vec::<T>::decode(value)?,
        None => Vec::new(),
    };
    // SAFETY: see above.
    unsafe { field.cast::<Vec<T>>().write(list) };
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

unsafe fn put_member<T: Encode>(field: *const u8, name: &'static str, out: &mut Writer) {
    // SAFETY: see above.
    out.member(name, unsafe { &*field.cast::<T>() });
}

unsafe fn put_optional<T: Encode>(field: *const u8, name: &'static str, out: &mut Writer) {
    // SAFETY: see above.
    out.optional(name, unsafe { &*field.cast::<Option<T>>() });
}

unsafe fn put_base<T: Members>(field: *const u8, _: &'static str, out: &mut Writer) {
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.put(out);
}

unsafe fn put_unknown(field: *const u8, _: &'static str, out: &mut Writer) {
    // SAFETY: see above.
    out.rest(unsafe { &*field.cast::<Map>() });
}

unsafe fn put_tag<T: Branches<Kind: Encode>>(field: *const u8, name: &'static str, out: &mut Writer) {
    // SAFETY: see above.
    out.member(name, &unsafe { &*field.cast::<T>() }.kind());
}

unsafe fn put_branch<T: Branches>(field: *const u8, out: &mut Writer) {
    // SAFETY: see above.
    unsafe { &*field.cast::<T>() }.put_branch(out);
}
