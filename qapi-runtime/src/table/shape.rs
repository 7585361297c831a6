//! Types that the loops over tables know themselves, so that they need not call a function for each of their values.

use std::fmt;
use std::marker::PhantomData;

/// Which of the types that tables know a type is. Of a `Shape<T>` of its own a type can only have [`Shape::OTHER`].
pub struct Shape<T>(Code, PhantomData<fn() -> T>);

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Something with functions of its own.
    Other,
    Bool,
    Int,
    Uint,
    String,
    OptionalBool,
    OptionalInt,
    OptionalUint,
    OptionalString,
    /// An `Option` of one byte, which is this one for `None`.
    OptionalByte(u8),
    /// An `Option<Box<_>>`: a pointer, which is null for `None`.
    OptionalBox,
    /// An `Option` with functions of its own.
    Optional,
    /// A `Box`; [`Code::OptionalBox`] stands for its `Option`.
    Box,
}

impl<T> Shape<T> {
    /// A type that tables do not know.
    pub const OTHER: Self = Shape(Code::Other, PhantomData);

    /// What the type is itself.
    pub(super) const fn required(&self) -> Code {
        match self.0 {
            Code::Box => Code::Other,
            code => code,
        }
    }

    /// What an `Option` of the type is.
    pub(super) const fn optional(&self) -> Code {
        match self.0 {
            Code::Bool => Code::OptionalBool,
            Code::Int => Code::OptionalInt,
            Code::Uint => Code::OptionalUint,
            Code::String => Code::OptionalString,
            Code::Box => Code::OptionalBox,
            _ if size_of::<Option<T>>() == 1 => Code::OptionalByte(const { none::<T>() }),
            _ => Code::Optional,
        }
    }
}

/// The byte that is `None`, where an `Option<T>` is one byte: it has no room for anything else, so `None` is one byte and every
/// `Some` another.
const fn none<T>() -> u8 {
    if size_of::<Option<T>>() != 1 {
        return 0;
    }
    let none = std::mem::ManuallyDrop::new(None::<T>);
    // SAFETY: there is one byte. Were it not initialised, this would not compile, as it is evaluated then.
    unsafe { (&raw const none).cast::<u8>().read() }
}

macro_rules! shapes {
    ($($type:ty: $code:ident),*) => {
        $(impl Shape<$type> {
            pub(crate) const KNOWN: Self = Shape(Code::$code, PhantomData);
        })*
    };
}
shapes!(bool: Bool, i64: Int, u64: Uint, String: String);

impl<T> Shape<Box<T>> {
    pub(crate) const BOX: Self = Shape(Code::Box, PhantomData);
}

impl<T> fmt::Debug for Shape<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
