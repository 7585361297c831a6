//! The implementations that are the same for every generated type.

/// Implements [`Members`](crate::decode::Members), [`Decode`](crate::decode::Decode),
/// [`Encode`](crate::encode::Encode) and, with the feature `serde`, serde's traits for a struct, whose members an object
/// has and no others.
///
/// ```
/// # #![forbid(unsafe_code)]
/// # #[derive(Debug, PartialEq)]
/// struct Point {
///     base: Named,
///     left: i64,
///     top: Option<i64>,
///     is_far: Option<bool>,
/// }
/// # #[derive(Debug, PartialEq)]
/// struct Named {
///     name: String,
/// }
///
/// qapi_runtime::strict!(Named { name: required("name") });
/// qapi_runtime::strict!(Point {
///     base: members(),
///     left: required("left"),
///     top: optional("top"),
///     is_far: optional("is-far").special(qapi_runtime::Special::DEPRECATED),
/// });
/// ```
///
/// Every field is named once, in the order in which the members are read and written; the functions are those of
/// [`Entry`](crate::table::Entry). A field that is left out does not compile:
///
/// ```compile_fail,E0027
/// struct Named {
///     name: String,
///     note: Option<String>,
/// }
///
/// qapi_runtime::strict!(Named { name: required("name") });
/// ```
#[macro_export]
macro_rules! strict {
    ($name:ident { $($entries:tt)* }) => {
        $crate::members!($name { $($entries)* });
        $crate::decode_by_table!($name Refused);
    };
}

/// As [`strict!`](crate::strict), but members that the type does not have are overlooked.
#[macro_export]
macro_rules! tolerant {
    ($name:ident { $($entries:tt)* }) => {
        $crate::members!($name { $($entries)* });
        $crate::decode_by_table!($name Overlooked);
    };
}

/// As [`strict!`](crate::strict), but members that the type does not have are kept, in the field `unknown()`.
#[macro_export]
macro_rules! keeping {
    ($name:ident { $($entries:tt)* }) => {
        $crate::members!($name { $($entries)* });
        $crate::object!(keeping $name);
    };
}

/// Makes the table of a struct, and implements [`Members`](crate::decode::Members) by it.
///
/// What would be unsound does not compile: a field that is named twice, of another type than its entry, or packed, and
/// a second branch.
///
/// ```compile_fail,E0025
/// struct Named { name: String }
/// qapi_runtime::strict!(Named { name: required("name"), name: required("name") });
/// ```
/// ```compile_fail,E0308
/// struct Named { name: Box<str> }
/// qapi_runtime::strict!(Named { name: optional("name") });
/// ```
/// ```compile_fail,E0793
/// #[repr(packed)]
/// struct Numbers { number: u64 }
/// qapi_runtime::strict!(Numbers { number: required("number") });
/// ```
/// ```compile_fail,E0080
/// # use qapi_runtime::{Branches, DecodeError, Object, Writer};
/// enum Side { Left }
/// impl Branches for Side {
///     type Kind = bool;
///     fn kind(&self) -> bool { true }
///     fn take_branch(_: bool, _: &mut Object<'_>) -> Result<Self, DecodeError> { Ok(Side::Left) }
///     fn put_branch(&self, _: &mut Writer) {}
/// }
/// struct Sides { one: Side, other: Side }
/// qapi_runtime::strict!(Sides { one: branch("one"), other: branch("other") });
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! members {
    ($name:ident {
        $($(#[$cfg:meta])* $field:ident: $function:ident($($wire:expr $(,)?)?) $(.$more:ident($($with:expr $(,)?)?))*),* $(,)?
    }) => {
        impl $crate::table::Tabled for $name {
            const TABLE: &'static $crate::table::Table<Self> = {
                static PLAN: $crate::table::Lazy = $crate::table::Lazy::new();
                const ENTRIES: &[$crate::table::Entry] = {
                    let room = ::std::mem::MaybeUninit::<$name>::uninit();
                    let whole = room.as_ptr();
                    let _start = whole.cast::<u8>();
                    if false {
                        // A field that was forgotten or named twice does not compile, nor does a packed one.
                        // SAFETY: this never runs.
                        let $name { $($(#[$cfg])* $field: _),* } = unsafe { &*whole };
                        $(
                            $(#[$cfg])*
                            // SAFETY: the same.
                            let _ = unsafe { &(*whole).$field };
                        )*
                    }
                    &[$(
                        $(#[$cfg])*
                        // SAFETY: there is room for the field, and nothing is read from it.
                        unsafe { $crate::table::Entry::$function($($wire,)? _start, &raw const (*whole).$field) }
                            $(.$more($($with)?))*
                    ),*]
                };
                // SAFETY: each entry was made from a field, and each field has one.
                &unsafe { $crate::table::Table::new(ENTRIES, &PLAN) }
            };
        }
    };
}

/// Implements what follows from a table.
#[doc(hidden)]
#[macro_export]
macro_rules! decode_by_table {
    ($name:ident $unknown:ident) => {
        impl $crate::decode::Decode for $name {
            #[inline]
            fn decode_into<'p>(
                value: $crate::document::Cursor<'_>,
                place: $crate::table::Place<'p, Self>,
            ) -> ::std::result::Result<$crate::table::Filled<'p, Self>, $crate::error::DecodeError> {
                // Named here and not by what is called, so that a table that is wrong does not compile even where nothing uses it.
                let table = <Self as $crate::table::Tabled>::TABLE;
                $crate::table::decode_into(value, place, table, $crate::table::Unknown::$unknown)
            }
        }

        $crate::encode_object!($name);
    };
}

/// Implements [`Encode`](crate::encode::Encode) and serde's traits by [`Members`](crate::decode::Members).
#[doc(hidden)]
#[macro_export]
macro_rules! encode_object {
    ($name:ident) => {
        impl $crate::encode::Encode for $name {
            #[inline]
            fn encode(&self, out: &mut $crate::encode::Writer) {
                $crate::encode::object(self, out);
            }
        }

        $crate::serde_bridge!($name);
    };
}

/// Implements [`Members`](crate::decode::Members) for a union that is nothing but its branches: an object that has the
/// discriminator and what the branch adds.
///
/// `union!(strict Shape by "kind")`; `strict`, `tolerant` or `keeping` as for structs. A policy looks at
/// `union!(strict Shape by "kind".special(Special::UNSTABLE))`.
#[macro_export]
macro_rules! union {
    ($mode:ident filled $name:ident by $tag:literal) => {
        $crate::union!(@ $mode filled $name by $tag);
    };
    ($mode:ident $name:ident by $tag:literal $(.special($special:expr))?) => {
        $crate::union!(@ $mode required $name by $tag $(.special($special))?);
    };
    (@put $value:ident $out:ident $tag:literal) => {
        $out.member($tag, &$crate::table::Branches::kind($value));
    };
    (@put $value:ident $out:ident $tag:literal $special:expr) => {
        if !$out.hides($special) {
            $out.member($tag, &$crate::table::Branches::kind($value));
        }
    };
    (@ $mode:ident $read:ident $name:ident by $tag:literal $(.special($special:expr))?) => {
        impl $crate::decode::Members for $name {
            #[inline]
            fn take(
                object: &mut $crate::decode::Object<'_>,
            ) -> ::std::result::Result<Self, $crate::error::DecodeError> {
                match object $(.special($special))? .$read($tag) {
                    Ok(kind) => <Self as $crate::table::Branches>::take_branch(kind, object),
                    Err(error) => Err(error),
                }
            }

            #[inline]
            fn put(&self, out: &mut $crate::encode::Writer) {
                $crate::union!(@put self out $tag $($special)?);
                $crate::table::Branches::put_branch(self, out);
            }
        }

        $crate::object!($mode $name);
    };
}

/// Implements [`Decode`](crate::decode::Decode), [`Encode`](crate::encode::Encode) and serde's traits
/// for a type that implements [`Members`](crate::decode::Members).
///
/// `strict`, `tolerant` or `keeping` says what happens to members that the type does not have.
#[macro_export]
macro_rules! object {
    ($mode:ident $name:ident) => {
        impl $crate::decode::Decode for $name {
            #[inline]
            fn decode(
                value: $crate::document::Cursor<'_>,
            ) -> ::std::result::Result<Self, $crate::error::DecodeError> {
                $crate::decode::$mode(value)
            }
        }

        $crate::encode_object!($name);
    };
}

/// Implements [`Decode`](crate::decode::Decode), [`Encode`](crate::encode::Encode), `Display`,
/// `FromStr` and serde's traits for a type that implements [`StringEnum`](crate::decode::StringEnum).
#[macro_export]
macro_rules! string_enum {
    ($name:ident) => {
        impl $crate::decode::Decode for $name {
            #[inline]
            fn decode(
                value: $crate::document::Cursor<'_>,
            ) -> ::std::result::Result<Self, $crate::error::DecodeError> {
                $crate::decode::string_enum(value)
            }
        }

        impl $crate::encode::Encode for $name {
            #[inline]
            fn encode(&self, out: &mut $crate::encode::Writer) {
                out.string($crate::decode::StringEnum::wire_name(self));
            }
        }

        impl ::std::fmt::Display for $name {
            #[inline]
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad($crate::decode::StringEnum::wire_name(self))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::decode::UnknownValue;

            #[inline]
            fn from_str(text: &str) -> ::std::result::Result<Self, $crate::decode::UnknownValue> {
                $crate::decode::parse_named(text, stringify!($name))
            }
        }

        $crate::serde_bridge!($name);
    };
}

/// Implements serde's traits for a type that decodes and encodes, when this crate has its feature `serde`.
///
/// Most programs send and receive their values by this crate alone. Two implementations for each of a schema's thousand
/// types take a fourteenth of the time that compiling them takes.
#[cfg(feature = "serde")]
#[macro_export]
macro_rules! serde_bridge {
    ($name:ident) => {
        impl $crate::serde::Serialize for $name {
            #[inline]
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                $crate::bridge::serialize(self, serializer)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            #[inline]
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                $crate::bridge::deserialize(deserializer)
            }
        }
    };
}

/// Implements serde's traits for a type that decodes and encodes, when this crate has its feature `serde`, which it does
/// not have here.
#[cfg(not(feature = "serde"))]
#[macro_export]
macro_rules! serde_bridge {
    ($name:ident) => {};
}

/// How a row calls a method of its handler: `call!(H::quit())`, or `call!(H::draw(arguments))` for one that
/// has arguments.
///
/// The handler's type is named, as a method call would find `clone` and others in the [`Arc`](std::sync::Arc)
/// around it.
#[macro_export]
macro_rules! call {
    ($handler:ident :: $method:ident()) => {
        |handler, call, arguments| {
            $crate::dispatch::without_arguments(handler, call, arguments, |handler, call| async move {
                $handler::$method(&handler, &call).await
            })
        }
    };
    ($handler:ident :: $method:ident(arguments)) => {
        |handler, call, arguments| {
            $crate::dispatch::with_arguments(
                handler,
                call,
                arguments,
                |handler, call, arguments| async move { $handler::$method(&handler, &call, arguments).await },
            )
        }
    };
}
