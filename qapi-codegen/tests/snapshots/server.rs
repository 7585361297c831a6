// ===== mod.rs =====
// Generated; changes here are lost.

#![allow(
    clippy::large_enum_variant,
    clippy::module_inception,
    rustdoc::redundant_explicit_links,
    deprecated,
    reason = "as the schema has it"
)]

/// Types, commands and events of small.json.
pub mod small;

pub use self::small::*;

/// All commands of the schema.
pub trait Commands: SmallCommands + 'static {}

impl<H> Commands for H where H: SmallCommands + 'static {}

/// How a handler's commands are called, by name.
pub fn commands<H: Commands>() -> ::qapi_runtime::CommandTable<H> {
    let mut table = ::qapi_runtime::CommandTable::new();
    table.extend(small_rows());
    table
}

/// What `query-qmp-schema` answers: this schema, for clients that ask.
///
/// Names of types are numbers, as clients must not depend on them.
pub const INTROSPECTION: &[u8] = br#"[{"name": "draw", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"}, {"name": "DRAWN", "meta-type": "event", "arg-type": "2"}, {"name": "0", "meta-type": "object", "members": [{"name": "what", "type": "3"}, {"name": "times", "type": "int", "default": null}]}, {"name": "[1]", "meta-type": "array", "element-type": "1"}, {"name": "1", "meta-type": "object", "members": [{"name": "kind", "type": "4"}, {"name": "title", "type": "str", "default": null}], "tag": "kind", "variants": [{"case": "circle", "type": "5"}, {"case": "nothing", "type": "6"}]}, {"name": "2", "meta-type": "object", "members": [{"name": "what", "type": "1"}]}, {"name": "3", "meta-type": "alternate", "members": [{"type": "1"}, {"type": "str"}]}, {"name": "int", "meta-type": "builtin", "json-type": "int"}, {"name": "4", "meta-type": "enum", "members": [{"name": "circle"}, {"name": "nothing"}], "values": ["circle", "nothing"]}, {"name": "str", "meta-type": "builtin", "json-type": "string"}, {"name": "5", "meta-type": "object", "members": [{"name": "x", "type": "int"}, {"name": "fill", "type": "7", "default": null}, {"name": "radius", "type": "int"}]}, {"name": "6", "meta-type": "object", "members": []}, {"name": "7", "meta-type": "enum", "members": [{"name": "red"}, {"name": "infra-red", "features": ["deprecated"]}], "values": ["red", "infra-red"]}]"#;

// ===== small.rs =====
// Generated from small.json; changes here are lost.

use qapi_runtime::decode::Kind;
use qapi_runtime::{
    Call, Cursor, Decode, DecodeError, Encode, Error, Members, Object, Row, Special, StringEnum,
    Writer, call,
};

/// A colour.
///
/// Since: 1.0
///
/// Defined at small.json:20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Color {
    /// as blood
    Red,
    /// felt, not seen
    ///
    /// Features:
    ///
    /// * `deprecated`: Nobody sees `infra-red`.  Use `red`.
    #[deprecated]
    InfraRed,
}

impl Color {
    /// Every value, in the schema's order.
    pub const ALL: &'static [Self] = &[Self::Red, Self::InfraRed];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::InfraRed => "infra-red",
        }
    }
}

impl StringEnum for Color {
    const VALUES: &'static [Self] = Self::ALL;

    fn wire_name(&self) -> &str {
        self.as_str()
    }

    fn special(&self) -> Special {
        match self {
            Self::InfraRed => Special::DEPRECATED,
            _ => Special::NONE,
        }
    }
}

::qapi_runtime::string_enum!(Color);

/// Something with a place.
///
/// Since: 1.0
///
/// Defined at small.json:33.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// how far right
    pub x: i64,
    /// what it is filled with
    pub fill: Option<Color>,
}

impl Members for Shape {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            x: object.required("x")?,
            fill: object.optional("fill")?,
        })
    }

    fn put(&self, out: &mut Writer) {
        out.member("x", &self.x);
        out.optional("fill", &self.fill);
    }
}

::qapi_runtime::object!(strict Shape);

/// A round [`Shape`](super::Shape).
///
/// Since: 1.0
///
/// Defined at small.json:44.
#[derive(Debug, Clone, PartialEq)]
pub struct Circle {
    /// Members of [`Shape`].
    pub base: Shape,
    /// half of its width
    pub radius: u32,
}

impl ::std::ops::Deref for Circle {
    type Target = Shape;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

impl Members for Circle {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            base: Members::take(object)?,
            radius: object.required("radius")?,
        })
    }

    fn put(&self, out: &mut Writer) {
        self.base.put(out);
        out.member("radius", &self.radius);
    }
}

::qapi_runtime::object!(strict Circle);

/// Kinds of drawings.
///
/// Since: 1.0
///
/// Defined at small.json:57.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrawingKind {
    /// a [`Circle`](super::Circle)
    Circle,
    /// an empty sheet
    Nothing,
}

impl DrawingKind {
    /// Every value, in the schema's order.
    pub const ALL: &'static [Self] = &[Self::Circle, Self::Nothing];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Nothing => "nothing",
        }
    }
}

impl StringEnum for DrawingKind {
    const VALUES: &'static [Self] = Self::ALL;

    fn wire_name(&self) -> &str {
        self.as_str()
    }
}

::qapi_runtime::string_enum!(DrawingKind);

/// What can be drawn.
///
/// Since: 1.0
///
/// Defined at small.json:70.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// what is written below
    pub title: Option<String>,
    /// What depends on `kind`.
    pub branch: DrawingBranch,
}

/// The part of [`Drawing`] that depends on `kind`.
#[derive(Debug, Clone, PartialEq)]
pub enum DrawingBranch {
    /// a [`Circle`](super::Circle)
    Circle(Circle),
    /// an empty sheet
    Nothing,
}

impl Drawing {
    /// The branch: the value of `kind`.
    pub fn kind(&self) -> DrawingKind {
        match &self.branch {
            DrawingBranch::Circle(_) => DrawingKind::Circle,
            DrawingBranch::Nothing => DrawingKind::Nothing,
        }
    }
}

impl Members for Drawing {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        let kind: DrawingKind = object.required("kind")?;
        let title = object.optional("title")?;
        let branch = match kind {
            DrawingKind::Circle => DrawingBranch::Circle(Members::take(object)?),
            DrawingKind::Nothing => DrawingBranch::Nothing,
        };
        Ok(Self { title, branch })
    }

    fn put(&self, out: &mut Writer) {
        out.member("kind", &self.kind());
        out.optional("title", &self.title);
        if let DrawingBranch::Circle(branch) = &self.branch {
            branch.put(out);
        }
    }
}

::qapi_runtime::object!(strict Drawing);

/// A drawing, or the name of one.
///
/// Since: 1.0
///
/// Defined at small.json:84.
#[derive(Debug, Clone, PartialEq)]
pub enum DrawingOrName {
    /// the drawing itself
    Drawing(Drawing),
    /// its name
    Name(String),
}

impl Decode for DrawingOrName {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        match value.kind() {
            Kind::Object => Decode::decode(value).map(Self::Drawing),
            Kind::String => Decode::decode(value).map(Self::Name),
            _ => Err(DecodeError::alternate("DrawingOrName")),
        }
    }
}

impl Encode for DrawingOrName {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Drawing(value) => value.encode(out),
            Self::Name(value) => value.encode(out),
        }
    }
}

::qapi_runtime::serde_bridge!(DrawingOrName);

/// Arguments of `draw`.
///
/// Defined at small.json:99.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// what to draw
    pub what: DrawingOrName,
    /// how often (default: once)
    pub times: Option<u64>,
}

impl Members for Draw {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            what: object.required("what")?,
            times: object.size().optional("times")?,
        })
    }

    fn put(&self, out: &mut Writer) {
        out.member("what", &self.what);
        out.optional("times", &self.times);
    }
}

::qapi_runtime::object!(strict Draw);

/// Something was drawn.
///
/// Since: 1.0
///
/// Defined at small.json:110.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// what it was
    pub what: Drawing,
}

impl Members for Drawn {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            what: object.required("what")?,
        })
    }

    fn put(&self, out: &mut Writer) {
        out.member("what", &self.what);
    }
}

::qapi_runtime::object!(strict Drawn);

impl ::qapi_runtime::Event for Drawn {
    fn name(&self) -> &'static str {
        "DRAWN"
    }

    fn encode_data(&self, out: &mut Writer) {
        ::qapi_runtime::Encode::encode(self, out)
    }
}

/// Commands of small.json.
pub trait SmallCommands: Send + Sync {
    /// Draw something.
    ///
    /// Returns: what was drawn
    ///
    /// Since: 1.0
    ///
    /// Defined at small.json:99.
    fn draw(
        &self,
        call: &Call,
        arguments: Draw,
    ) -> impl Future<Output = Result<Vec<Drawing>, Error>> + Send;
}

/// How a handler's commands of small.json are called, by name.
pub fn small_rows<H: SmallCommands + 'static>() -> Vec<Row<H>> {
    Vec::from([Row::<H>::new("draw", call!(draw(arguments)))])
}

