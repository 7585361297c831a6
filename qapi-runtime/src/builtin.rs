//! The types that every schema has.

use crate::decode::{self, Decode, StringEnum};
use crate::document::Cursor;
use crate::encode::{Encode, Writer};
use crate::error::DecodeError;

/// Any JSON value: the type `any`.
pub use serde_json::Value;

/// An object of any members.
pub type Map = serde_json::Map<String, Value>;

/// The type `null`, whose only value is `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Null;

/// A branch that the schema does not have; clients may meet one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnknownBranch {
    /// The discriminator's value.
    pub value: Box<str>,
    /// The members that belong to no known branch, if they are kept.
    pub members: Map,
}

/// The kinds of JSON values, as QEMU names them: the built-in enumeration `QType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QType {
    /// `none`
    None,
    /// `qnull`
    Qnull,
    /// `qnum`
    Qnum,
    /// `qstring`
    Qstring,
    /// `qdict`
    Qdict,
    /// `qlist`
    Qlist,
    /// `qbool`
    Qbool,
}

impl QType {
    /// Every value.
    pub const ALL: &'static [QType] = &[
        QType::None,
        QType::Qnull,
        QType::Qnum,
        QType::Qstring,
        QType::Qdict,
        QType::Qlist,
        QType::Qbool,
    ];

    /// The value on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            QType::None => "none",
            QType::Qnull => "qnull",
            QType::Qnum => "qnum",
            QType::Qstring => "qstring",
            QType::Qdict => "qdict",
            QType::Qlist => "qlist",
            QType::Qbool => "qbool",
        }
    }
}

impl StringEnum for QType {
    const VALUES: &'static [Self] = QType::ALL;

    fn wire_name(&self) -> &str {
        self.as_str()
    }
}

crate::string_enum!(QType);

impl Decode for Box<str> {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        decode::Decode::decode(value).map(String::into_boxed_str)
    }
}

impl Encode for Box<str> {
    fn encode(&self, out: &mut Writer) {
        out.string(self);
    }
}
