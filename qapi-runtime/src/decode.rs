//! From a scanned message to Rust values.
//!
//! Decoding walks the [`Document`] in the order of the schema, as QEMU's visitors do: members that are
//! missing or wrong are found in that order, unexpected ones last. Whether unexpected members are an
//! error is the choice of the type's [`Decode`]: [`strict()`] for servers, [`tolerant()`] for clients.

mod absent;
mod index;
mod keyval;

pub(crate) use absent::absent;

use crate::document::{Cursor, Document, Mode, Token};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::policy::Special;
use crate::table::{self, Filled, Names, Place, Places, Shape, Tabled};
use crate::{Map, Null, Value};
use index::Index;

/// A value that can be read from a message.
///
/// One of the two functions is enough, as each stands on the other.
pub trait Decode: Sized {
    /// Whether tables know the type.
    #[doc(hidden)]
    const SHAPE: Shape<Self> = Shape::OTHER;

    /// Reads the value.
    ///
    /// # Errors
    /// When the value does not fit the type.
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        table::make(|place| Self::decode_into(value, place))
    }

    /// Reads the value to where it is to be.
    ///
    /// # Errors
    /// When the value does not fit the type.
    #[inline]
    fn decode_into<'p>(value: Cursor<'_>, place: Place<'p, Self>) -> Result<Filled<'p, Self>, DecodeError> {
        match Self::decode(value) {
            Ok(value) => Ok(place.fill(value)),
            Err(error) => Err(error),
        }
    }
}

/// An object's type: how its members are read and written.
///
/// A base and the chosen branch of a union read from the same object as their owner, so they have no
/// object of their own here.
pub trait Members: Sized {
    /// Reads the members, in schema order.
    ///
    /// # Errors
    /// When a member is missing or does not fit.
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError>;

    /// Reads the members to where the value is to be.
    ///
    /// # Errors
    /// When a member is missing or does not fit.
    fn take_into<'p>(
        object: &mut Object<'_>,
        place: Place<'p, Self>,
    ) -> Result<Filled<'p, Self>, DecodeError> {
        match Self::take(object) {
            Ok(value) => Ok(place.fill(value)),
            Err(error) => Err(error),
        }
    }

    /// Writes the members, in schema order.
    fn put(&self, out: &mut crate::encode::Writer);

    /// Keeps members that the type does not have; most types do not.
    fn keep(&mut self, _unknown: Map) {}
}

impl<T: Tabled> Members for T {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        table::make(|place| T::TABLE.take(object, place))
    }

    fn take_into<'p>(
        object: &mut Object<'_>,
        place: Place<'p, Self>,
    ) -> Result<Filled<'p, Self>, DecodeError> {
        T::TABLE.take(object, place)
    }

    fn put(&self, out: &mut crate::encode::Writer) {
        T::TABLE.put(self, out);
    }

    fn keep(&mut self, unknown: Map) {
        T::TABLE.keep(self, unknown);
    }
}

/// An enumeration: values that are strings on the wire.
pub trait StringEnum: Sized + Clone + 'static {
    /// Every value, in schema order.
    const VALUES: &'static [Self];

    /// The value on the wire.
    fn wire_name(&self) -> &str;

    /// Whether the value is deprecated or unstable.
    fn special(&self) -> Special {
        Special::NONE
    }

    /// A value that the schema does not have, where the type has room for it.
    fn unknown(_value: &str) -> Option<Self> {
        None
    }
}

/// Reads an object that has no other members than its type.
///
/// # Errors
/// When a member is missing, does not fit, or is not one of the type.
pub fn strict<T: Members>(value: Cursor<'_>) -> Result<T, DecodeError> {
    // Spelled out here and below: `?` and adapters would be compiled anew for every type.
    let Token::Object { end, len } = value.token() else {
        return Err(DecodeError::expected("object"));
    };
    let mut object = Object::of(value, end, len);
    match T::take(&mut object) {
        Ok(result) => match object.check() {
            Ok(()) => Ok(result),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Reads an object and overlooks members that its type does not have.
///
/// # Errors
/// When a member is missing or does not fit.
pub fn tolerant<T: Members>(value: Cursor<'_>) -> Result<T, DecodeError> {
    match Object::open(value) {
        Ok(mut object) => T::take(&mut object),
        Err(error) => Err(error),
    }
}

/// Reads an object and lets it keep members that its type does not have.
///
/// # Errors
/// When a member is missing or does not fit.
pub fn keeping<T: Members>(value: Cursor<'_>) -> Result<T, DecodeError> {
    let mut object = Object::open(value)?;
    let mut result = T::take(&mut object)?;
    if object.taken < object.len {
        result.keep(object.rest()?);
    }
    Ok(result)
}

/// Reads an enumeration's value.
///
/// # Errors
/// When it is no string, no value of the enumeration, or refused by the policy.
pub fn string_enum<T: StringEnum>(value: Cursor<'_>) -> Result<T, DecodeError> {
    let text = text(value)?;
    match parse::<T>(text) {
        Some(found) => match value.mode().refuses(found.special()) {
            None => Ok(found),
            Some(why) => Err(DecodeError::new(DecodeErrorKind::RefusedValue(
                why,
                text.to_owned(),
            ))),
        },
        None => T::unknown(text).ok_or_else(|| DecodeError::new(DecodeErrorKind::Value(text.to_owned()))),
    }
}

/// The enumeration's value with that name on the wire.
pub fn parse<T: StringEnum>(name: &str) -> Option<T> {
    for value in T::VALUES {
        if value.wire_name() == name {
            return Some(value.clone());
        }
    }
    None
}

/// The value of the enumeration `enumeration` with that name on the wire.
///
/// # Errors
/// When there is none.
pub fn parse_named<T: StringEnum>(name: &str, enumeration: &'static str) -> Result<T, UnknownValue> {
    match parse(name) {
        Some(value) => Ok(value),
        None => Err(UnknownValue::new(name, enumeration)),
    }
}

/// That text is no value of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a value of {1}")]
pub struct UnknownValue(String, &'static str);

impl UnknownValue {
    /// `value` is no value of the enumeration `name`.
    pub fn new(value: &str, name: &'static str) -> Self {
        UnknownValue(value.to_owned(), name)
    }
}

/// What kind of JSON a value is; alternates choose by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Cursor<'_> {
    /// What kind of JSON the value is.
    pub fn kind(self) -> Kind {
        match self.token() {
            Token::Null => Kind::Null,
            Token::Bool(_) => Kind::Bool,
            Token::Int(_) | Token::UInt(_) | Token::Double(_) => Kind::Number,
            Token::String { .. } => Kind::String,
            Token::Array { .. } => Kind::Array,
            Token::Object { .. } => Kind::Object,
        }
    }

    /// What kind of JSON the value stands for, where a string of `key=value` options stands for
    /// `scalar`: an alternate without a branch for strings asks so.
    pub fn kind_or(self, scalar: Kind) -> Kind {
        match self.kind() {
            Kind::String if self.is_keyval() => scalar,
            kind => kind,
        }
    }
}

/// Objects up to this size are searched faster than an index is made.
const FEW_MEMBERS: u32 = 3;

/// An object while its members are being read.
#[derive(Debug)]
pub struct Object<'a> {
    document: &'a Document,
    mode: Mode,
    /// The first key, and one past the last token.
    first: usize,
    end: usize,
    /// Where to look next: members mostly come in schema order.
    next: usize,
    /// The number of the member at `next`.
    ordinal: u32,
    len: u32,
    taken: u32,
    /// Which members were read, by number; more than 64 go on in `seen_more`.
    seen: u64,
    seen_more: Vec<u64>,
    /// The features of the member that is asked for next.
    special: Special,
    /// Made when a member was asked for that does not come next.
    index: Option<Box<Index>>,
}

impl<'a> Object<'a> {
    /// Begins to read a value that must be an object.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(value: Cursor<'a>) -> Result<Self, DecodeError> {
        let Token::Object { end, len } = value.token() else {
            return Err(DecodeError::expected("object"));
        };
        Ok(Object::of(value, end, len))
    }

    /// Begins to read a value that is an object of so many members and ends there.
    #[inline(always)]
    pub(crate) fn of(value: Cursor<'a>, end: u32, len: u32) -> Self {
        let (document, index) = value.place();
        Object {
            document,
            mode: value.mode(),
            first: index + 1,
            end: end as usize,
            next: index + 1,
            ordinal: 0,
            len,
            taken: 0,
            seen: 0,
            seen_more: Vec::new(),
            special: Special::NONE,
            index: None,
        }
    }

    /// Reads a member that must be there.
    ///
    /// # Errors
    /// When it is not, or does not fit.
    pub fn required<T: Decode>(&mut self, name: &'static str) -> Result<T, DecodeError> {
        match self.member(name) {
            Ok(value) => match T::decode(value) {
                Ok(value) => Ok(value),
                Err(error) => Err(error.in_member(name)),
            },
            Err(error) => Err(error),
        }
    }

    /// Reads a member that may be left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn optional<T: Decode>(&mut self, name: &'static str) -> Result<Option<T>, DecodeError> {
        match self.find(name) {
            Ok(Some(value)) => match T::decode(value) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(error.in_member(name)),
            },
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a list that must be there, which is empty if it is not: clients read so what servers older than
    /// their schema say.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn list<T: Decode + Default>(&mut self, name: &'static str) -> Result<T, DecodeError> {
        match self.optional(name) {
            Ok(found) => Ok(found.unwrap_or_default()),
            Err(error) => Err(error),
        }
    }

    /// Reads a member that must be there, and that has no content if it is not: an empty text or list, 0, `false`,
    /// the unknown value of an enumeration. Clients that were generated to talk to older servers read so.
    ///
    /// # Errors
    /// When it does not fit, or is not there and its type has no value without content.
    pub fn filled<T: Decode>(&mut self, name: &'static str) -> Result<T, DecodeError> {
        match self.optional(name) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => absent().ok_or_else(|| DecodeError::new(DecodeErrorKind::Missing).in_member(name)),
            Err(error) => Err(error),
        }
    }

    /// Says that the member asked for next has these features: the policy may refuse it.
    pub fn special(&mut self, special: Special) -> &mut Self {
        self.special = special;
        self
    }

    /// Says that the member asked for next is a size: in `key=value` options it may have a unit.
    pub fn size(&mut self) -> Sized_<'_, 'a> {
        Sized_(self)
    }

    /// The value of a member that must be there.
    fn member(&mut self, name: &'static str) -> Result<Cursor<'a>, DecodeError> {
        match self.find(name)? {
            Some(value) => Ok(value),
            None => Err(DecodeError::new(DecodeErrorKind::Missing).in_member(name)),
        }
    }

    /// The value of a member, which counts as read from now on.
    fn find(&mut self, name: &'static str) -> Result<Option<Cursor<'a>>, DecodeError> {
        let special = std::mem::take(&mut self.special);
        if self.taken == self.len {
            return Ok(None);
        }
        let found = if self.document.key_at(self.next) == name.as_bytes() {
            Some((self.next, self.ordinal))
        } else {
            self.search(name)
        };
        let Some((key, ordinal)) = found else {
            return Ok(None);
        };
        let value = key + 1;
        self.next = self.document.after(value);
        self.ordinal = ordinal + 1;
        if self.next >= self.end {
            self.next = self.first;
            self.ordinal = 0;
        }
        self.mark(ordinal);
        if !special.is_none()
            && let Some(why) = self.mode.refuses(special)
        {
            return Err(DecodeError::new(DecodeErrorKind::RefusedMember(why)).in_member(name));
        }
        Ok(Some(self.document.cursor_at(value, self.mode)))
    }

    /// Where a member's key is and which member it is, wherever that stands.
    fn search(&mut self, name: &'static str) -> Option<(usize, u32)> {
        if self.len > FEW_MEMBERS {
            if self.index.is_none() {
                self.index = Index::new(self.document, self.first, self.end, self.len).map(Box::new);
            }
            if let Some(index) = &self.index {
                return index.find(self.document, self.first, name);
            }
        }
        let mut key = self.first;
        for ordinal in 0..self.len {
            if self.document.key_at(key) == name.as_bytes() {
                return Some((key, ordinal));
            }
            key = self.document.after(key + 1);
        }
        None
    }

    #[inline]
    fn mark(&mut self, ordinal: u32) {
        self.taken += 1;
        if ordinal < 64 {
            self.seen |= 1 << ordinal;
        } else {
            self.mark_more(ordinal);
        }
    }

    #[cold]
    #[inline(never)]
    fn mark_more(&mut self, ordinal: u32) {
        let word = (ordinal / 64 - 1) as usize;
        if self.seen_more.len() <= word {
            self.seen_more.resize(word + 1, 0);
        }
        if let Some(seen) = self.seen_more.get_mut(word) {
            *seen |= 1 << (ordinal % 64);
        }
    }

    #[inline]
    fn is_seen(&self, ordinal: u32) -> bool {
        let word = if ordinal < 64 {
            self.seen
        } else {
            self.seen_more
                .get((ordinal / 64 - 1) as usize)
                .copied()
                .unwrap_or_default()
        };
        word & (1 << (ordinal % 64)) != 0
    }

    /// The members that were not read.
    fn unread(&self) -> impl Iterator<Item = (&'a str, Cursor<'a>)> {
        let whole = self.document.cursor_at(self.first - 1, self.mode);
        whole
            .members()
            .zip(0_u32..)
            .filter(|(_, ordinal)| !self.is_seen(*ordinal))
            .map(|(member, _)| member)
    }

    /// Finds members of a table: of those with these names the ones from number `first` on. They count as read from now
    /// on.
    pub(crate) fn locate(&mut self, names: &Names, first: usize, places: &mut Places) {
        let document = self.document;
        let mut key = self.first;
        for ordinal in 0..self.len {
            if self.taken == self.len {
                break;
            }
            let value = key + 1;
            if !self.is_seen(ordinal)
                && let Some(number) = names.find(document.name_at(key), || document.key_at(key))
                && let Some(number) = (number as usize).checked_sub(first)
                && places.set(number, value)
            {
                self.mark(ordinal);
            }
            key = document.after(value);
        }
    }

    /// Gives `read` each member of a table with these names, in the order of the text: its number in the table, its value, and
    /// where that is. They count as read from now on. For objects of few members.
    #[inline(always)]
    pub(crate) fn each(
        &mut self,
        names: &Names,
        mut read: impl FnMut(usize, &Token, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let document = self.document;
        let tokens = document.tokens();
        let mut left = self.len - self.taken;
        let (mut seen, mut unknown) = (self.seen, 0);
        let (mut key, mut bit) = (self.first, 1);
        while left > 0
            && let Some([Token::String { start, end, hash }, value]) =
                tokens.get(key..).and_then(|rest| rest.first_chunk())
        {
            if seen & bit == 0 {
                left -= 1;
                match names.find(document.name(*start, *end, *hash), || document.key_at(key)) {
                    Some(number) => {
                        seen |= bit;
                        read(number as usize, value, key + 1)?;
                    }
                    None => unknown += 1,
                }
            }
            bit <<= 1;
            key = match value {
                Token::Array { end, .. } | Token::Object { end, .. } => *end as usize,
                _ => key + 2,
            };
        }
        self.seen = seen;
        self.taken = self.len - left - unknown;
        Ok(())
    }

    /// What [`Object::each`] gives places in.
    pub(crate) fn source(&self) -> (&'a Document, Mode) {
        (self.document, self.mode)
    }

    /// Whether [`Object::each`] will do.
    pub(crate) fn has_few(&self) -> bool {
        self.len < 64
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Ends the reading: every member must have been read.
    ///
    /// # Errors
    /// When one was not.
    pub fn finish(self) -> Result<(), DecodeError> {
        self.check()
    }

    /// [`Object::finish`] where the object is.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        if self.taken == self.len {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    #[cold]
    fn unexpected(&self) -> DecodeError {
        let Some((name, value)) = self.unread().next() else {
            return DecodeError::new(DecodeErrorKind::Unexpected);
        };
        let kind = if self.document.is_keyval() && value.kind() == Kind::Object {
            DecodeErrorKind::UnexpectedGroup
        } else {
            DecodeErrorKind::Unexpected
        };
        DecodeError::new(kind).in_member(name.to_owned())
    }

    /// Reads all members that were not read so far.
    ///
    /// # Errors
    /// When one is a number that cannot be kept.
    pub fn rest(&mut self) -> Result<Map, DecodeError> {
        let mut rest = Map::new();
        for (name, value) in self.unread() {
            let value = Value::decode(value).map_err(|error| error.in_member(name.to_owned()))?;
            rest.insert(name.to_owned(), value);
        }
        self.taken = self.len;
        Ok(rest)
    }
}

/// An object whose next member is a size.
#[derive(Debug)]
pub struct Sized_<'o, 'a>(&'o mut Object<'a>);

impl Sized_<'_, '_> {
    /// Reads a size that must be there.
    ///
    /// # Errors
    /// When it is not, or does not fit.
    pub fn required<T: Decode>(self, name: &'static str) -> Result<T, DecodeError> {
        let value = self.0.member(name)?;
        T::decode(with_units(value)).map_err(|error| error.in_member(name))
    }

    /// Reads a size that may be left out.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn optional<T: Decode>(self, name: &'static str) -> Result<Option<T>, DecodeError> {
        let value = self.0.find(name)?;
        value
            .map(|value| T::decode(with_units(value)).map_err(|error| error.in_member(name)))
            .transpose()
    }
}

fn with_units(value: Cursor<'_>) -> Cursor<'_> {
    value.with_mode(value.mode().or_units(true))
}

fn text(value: Cursor<'_>) -> Result<&str, DecodeError> {
    value.as_str().ok_or_else(|| DecodeError::expected("string"))
}

impl Decode for String {
    const SHAPE: Shape<Self> = Shape::<Self>::KNOWN;

    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        text(value).map(str::to_owned)
    }
}

impl Decode for bool {
    const SHAPE: Shape<Self> = Shape::<Self>::KNOWN;

    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.token() {
            Token::Bool(value) => Ok(value),
            Token::String { .. } if value.is_keyval() => keyval::boolean(text(value)?),
            _ => Err(DecodeError::expected("boolean")),
        }
    }
}

impl Decode for i64 {
    const SHAPE: Shape<Self> = Shape::<Self>::KNOWN;

    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.token() {
            Token::Int(value) => Ok(value),
            Token::String { .. } if value.is_keyval() => keyval::signed(text(value)?),
            _ => Err(DecodeError::expected("integer")),
        }
    }
}

impl Decode for u64 {
    const SHAPE: Shape<Self> = Shape::<Self>::KNOWN;

    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.token() {
            // QEMU takes a negative number for its two's complement here, and clients depend on it.
            Token::Int(value) => Ok(value.cast_unsigned()),
            Token::UInt(value) => Ok(value),
            Token::String { .. } if value.is_keyval() && value.mode().units() => keyval::size(text(value)?),
            Token::String { .. } if value.is_keyval() => keyval::unsigned(text(value)?),
            _ => Err(DecodeError::new(DecodeErrorKind::Expects("uint64"))),
        }
    }
}

macro_rules! narrow {
    ($($narrow:ty, $wide:ty, $name:literal;)*) => {
        $(impl Decode for $narrow {
            fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
                let wide = <$wide>::decode(value)?;
                <$narrow>::try_from(wide).map_err(|_| DecodeError::new(DecodeErrorKind::Range($name)))
            }
        })*
    };
}
narrow! {
    i8, i64, "int8_t";
    i16, i64, "int16_t";
    i32, i64, "int32_t";
    u8, u64, "uint8_t";
    u16, u64, "uint16_t";
    u32, u64, "uint32_t";
}

impl Decode for f64 {
    // A number of JSON has no other exact meaning than the nearest double.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the nearest double is what the type means"
    )]
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.token() {
            Token::Int(value) => Ok(value as f64),
            Token::UInt(value) => Ok(value as f64),
            Token::Double(value) => Ok(value),
            Token::String { .. } if value.is_keyval() => keyval::number(text(value)?),
            _ => Err(DecodeError::expected("number")),
        }
    }
}

impl<T: Decode> Decode for Box<T> {
    const SHAPE: Shape<Self> = Shape::<Self>::BOX;

    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        let mut room = Box::new_uninit();
        // SAFETY: the pointer is to the box's room.
        let place = unsafe { Place::new(room.as_mut_ptr()) };
        match T::decode_into(value, place) {
            // SAFETY: the place is the box's room, and it was filled.
            Ok(_) => Ok(unsafe { room.assume_init() }),
            Err(error) => Err(error),
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        let Token::Array { len, .. } = value.token() else {
            return Err(DecodeError::expected("array"));
        };
        let mut list = Vec::with_capacity(room_for::<T>(len));
        for (index, element) in value.elements().enumerate() {
            if list.len() == list.capacity() {
                list.reserve(1);
            }
            let Some(room) = list.spare_capacity_mut().first_mut() else {
                break;
            };
            // SAFETY: the pointer is to room of the list.
            let place = unsafe { Place::new(room.as_mut_ptr()) };
            match T::decode_into(element, place) {
                // SAFETY: the place is the one behind the last element, and it was filled.
                Ok(_) => unsafe { list.set_len(index + 1) },
                Err(error) => return Err(error.in_element(index).with_dots(element.is_keyval())),
            }
        }
        Ok(list)
    }
}

/// How many elements to make room for at once. The scanner has counted them, so `len` is no promise of the peer's; but what
/// takes two bytes in the text may take a thousand in memory, and need not fit its type.
fn room_for<T>(len: u32) -> usize {
    const BYTES: usize = 4 << 20;
    (len as usize).min(BYTES / size_of::<T>().max(1) + 1)
}

/// The reply of a command without a return value: whatever it is.
impl Decode for () {
    fn decode(_value: Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Decode for Null {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.token() {
            Token::Null => Ok(Null),
            Token::String { .. } if value.is_keyval() && value.as_str() == Some("") => Ok(Null),
            _ => Err(DecodeError::expected("null")),
        }
    }
}

impl Decode for Value {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(match value.token() {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(value),
            Token::Int(value) => value.into(),
            Token::UInt(value) => value.into(),
            // An infinity is a number that the wire cannot carry on.
            Token::Double(value) => serde_json::Number::from_f64(value)
                .map(Value::Number)
                .ok_or_else(|| DecodeError::expected("number"))?,
            Token::String { .. } => Value::String(text(value)?.to_owned()),
            Token::Array { .. } => Value::Array(Vec::decode(value)?),
            Token::Object { .. } => Value::Object(Map::decode(value)?),
        })
    }
}

impl Decode for Map {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        Object::open(value)?.rest()
    }
}

#[cfg(test)]
mod tests;
