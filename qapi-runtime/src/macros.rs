//! The implementations that are the same for every generated type.

/// Implements [`Decode`](crate::decode::Decode), [`Encode`](crate::encode::Encode) and serde's traits
/// for a type that implements [`Members`](crate::decode::Members).
///
/// `strict`, `tolerant` or `keeping` says what happens to members that the type does not have.
#[macro_export]
macro_rules! object {
    ($mode:ident $name:ident) => {
        impl $crate::decode::Decode for $name {
            fn decode(
                value: $crate::document::Cursor<'_>,
            ) -> ::std::result::Result<Self, $crate::error::DecodeError> {
                $crate::decode::$mode(value)
            }
        }

        impl $crate::encode::Encode for $name {
            fn encode(&self, out: &mut $crate::encode::Writer) {
                out.begin_object();
                $crate::decode::Members::put(self, out);
                out.end_object();
            }
        }

        $crate::serde_bridge!($name);
    };
}

/// Implements [`Decode`](crate::decode::Decode), [`Encode`](crate::encode::Encode), `Display`,
/// `FromStr` and serde's traits for a type that implements [`StringEnum`](crate::decode::StringEnum).
#[macro_export]
macro_rules! string_enum {
    ($name:ident) => {
        impl $crate::decode::Decode for $name {
            fn decode(
                value: $crate::document::Cursor<'_>,
            ) -> ::std::result::Result<Self, $crate::error::DecodeError> {
                $crate::decode::string_enum(value)
            }
        }

        impl $crate::encode::Encode for $name {
            fn encode(&self, out: &mut $crate::encode::Writer) {
                out.string($crate::decode::StringEnum::wire_name(self));
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad($crate::decode::StringEnum::wire_name(self))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::decode::UnknownValue;

            fn from_str(text: &str) -> ::std::result::Result<Self, $crate::decode::UnknownValue> {
                $crate::decode::parse_named(text, stringify!($name))
            }
        }

        $crate::serde_bridge!($name);
    };
}

/// Implements serde's traits for a type that decodes and encodes.
#[macro_export]
macro_rules! serde_bridge {
    ($name:ident) => {
        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                $crate::bridge::serialize(self, serializer)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                $crate::bridge::deserialize(deserializer)
            }
        }
    };
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
