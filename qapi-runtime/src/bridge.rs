//! A bridge to serde, for users whose data lives in serde's world. With the feature `serde` generated types implement its traits.
//!
//! Generated types decode from a [`Document`] and encode to JSON; serde sees them through that, so that
//! one set of rules and texts holds everywhere.

use crate::decode::Decode;
use crate::document::{Builder, Cursor, Document, Token};
use crate::encode::{Encode, Writer};
use crate::scanner::Scanner;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;

/// Serializes a generated type.
///
/// # Errors
/// What the serializer says.
pub fn serialize<T: Encode, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = Writer::default();
    value.encode(&mut out);
    // A scalar at the top needs a byte behind it to be known as complete.
    out.raw(b"\n");
    let bytes = out.into_bytes();
    let mut input = bytes.as_slice();
    let mut scanner = Scanner::default();
    match scanner.next(&mut input) {
        Some(Ok(document)) => match document.root() {
            Some(root) => root.serialize(serializer),
            None => serializer.serialize_unit(),
        },
        _ => Err(S::Error::custom("the value is too large or too deep")),
    }
}

/// Deserializes a generated type.
///
/// # Errors
/// When the data does not fit the type, with the text that a server would answer.
pub fn deserialize<'de, T: Decode, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let document = Document::deserialize(deserializer)?;
    let root = document.root().ok_or_else(|| D::Error::custom("no value"))?;
    T::decode(root).map_err(D::Error::custom)
}

impl Serialize for Cursor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.token() {
            Token::Null => serializer.serialize_unit(),
            Token::Bool(value) => serializer.serialize_bool(value),
            Token::Int(value) => serializer.serialize_i64(value),
            Token::UInt(value) => serializer.serialize_u64(value),
            Token::Double(value) => serializer.serialize_f64(value),
            Token::String { .. } => serializer.serialize_str(self.as_str().unwrap_or_default()),
            Token::Array { len, .. } => {
                let mut array = serializer.serialize_seq(Some(len as usize))?;
                for element in self.elements() {
                    array.serialize_element(&element)?;
                }
                array.end()
            }
            Token::Object { len, .. } => {
                let mut object = serializer.serialize_map(Some(len as usize))?;
                for (name, value) in self.members() {
                    object.serialize_entry(name, &value)?;
                }
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut builder = Builder::default();
        Into(&mut builder).deserialize(deserializer)?;
        Ok(builder.finish())
    }
}

/// Adds one value to a document.
struct Into<'b>(&'b mut Builder);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.scalar(Token::Null);
        Ok(())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.scalar(Token::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.scalar(Token::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0
            .scalar(i64::try_from(value).map_or(Token::UInt(value), Token::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.scalar(Token::Double(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.string(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.0.begin_array();
        while elements.next_element_seed(Into(self.0))?.is_some() {}
        self.0.end();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.begin_object();
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.string(&name);
            members.next_value_seed(Into(self.0))?;
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format_args!("duplicate key '{twice}'")));
            }
        }
        self.0.end();
        Ok(())
    }
}
