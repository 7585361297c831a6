// ===== mod.rs =====
// Generated; changes here are lost.

#![allow(
    clippy::large_enum_variant,
    clippy::module_inception,
    clippy::should_implement_trait,
    clippy::wrong_self_convention,
    dead_code,
    unused_imports,
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
pub const INTROSPECTION: &[u8] = br#"[{"name": "draw", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"}, {"name": "DRAWN", "meta-type": "event", "arg-type": "2"}, {"name": "0", "meta-type": "object", "members": [{"name": "what", "type": "3"}, {"name": "times", "type": "int", "default": null}, {"name": "ink", "type": "4", "default": null}]}, {"name": "[1]", "meta-type": "array", "element-type": "1"}, {"name": "1", "meta-type": "object", "members": [{"name": "kind", "type": "5"}, {"name": "title", "type": "str", "default": null}], "tag": "kind", "variants": [{"case": "circle", "type": "6"}, {"case": "nothing", "type": "7"}]}, {"name": "2", "meta-type": "object", "members": [{"name": "what", "type": "1"}]}, {"name": "3", "meta-type": "alternate", "members": [{"type": "1"}, {"type": "str"}]}, {"name": "int", "meta-type": "builtin", "json-type": "int"}, {"name": "4", "meta-type": "object", "members": [{"name": "name", "type": "str"}, {"name": "color", "type": "8", "default": null}, {"name": "width", "type": "int", "default": null}, {"name": "dry", "type": "bool", "default": null}, {"name": "maker", "type": "str", "default": null}, {"name": "year", "type": "int", "default": null}, {"name": "spare", "type": "4", "default": null}]}, {"name": "5", "meta-type": "enum", "members": [{"name": "circle"}, {"name": "nothing"}], "values": ["circle", "nothing"]}, {"name": "str", "meta-type": "builtin", "json-type": "string"}, {"name": "6", "meta-type": "object", "members": [{"name": "x", "type": "int"}, {"name": "fill", "type": "8", "default": null}, {"name": "radius", "type": "int"}]}, {"name": "7", "meta-type": "object", "members": []}, {"name": "8", "meta-type": "enum", "members": [{"name": "red"}, {"name": "infra-red", "features": ["deprecated"]}], "values": ["red", "infra-red"]}, {"name": "bool", "meta-type": "builtin", "json-type": "boolean"}]"#;

// ===== small.rs =====
// Generated from small.json; changes here are lost.

use qapi_runtime::decode::Kind;
use qapi_runtime::{
    Branches, Call, Cursor, Decode, DecodeError, Encode, Error, Members, Object, Row, Special,
    StringEnum, Writer, call,
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

::qapi_runtime::strict!(Shape {
    x: required("x"),
    fill: optional("fill"),
});

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

::qapi_runtime::strict!(Circle {
    base: members(),
    radius: required("radius"),
});

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
        Branches::kind(&self.branch)
    }
}

impl Branches for DrawingBranch {
    type Kind = DrawingKind;

    fn kind(&self) -> DrawingKind {
        match self {
            DrawingBranch::Circle(_) => DrawingKind::Circle,
            DrawingBranch::Nothing => DrawingKind::Nothing,
        }
    }

    fn take_branch(kind: DrawingKind, object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            DrawingKind::Circle => DrawingBranch::Circle(Members::take(object)?),
            DrawingKind::Nothing => DrawingBranch::Nothing,
        })
    }

    fn put_branch(&self, out: &mut Writer) {
        if let DrawingBranch::Circle(branch) = self {
            Members::put(branch, out);
        }
    }
}

::qapi_runtime::strict!(Drawing {
    branch: branch("kind"),
    title: optional("title"),
});

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
/// Defined at small.json:101.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// what to draw
    pub what: DrawingOrName,
    /// how often (default: once)
    pub times: Option<u64>,
    /// what with
    pub ink: Option<Ink>,
}

::qapi_runtime::strict!(Draw {
    what: required("what"),
    times: optional("times").size(),
    ink: optional("ink"),
});

/// Something was drawn.
///
/// Since: 1.0
///
/// Defined at small.json:112.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// what it was
    pub what: Drawing,
}

::qapi_runtime::strict!(Drawn {
    what: required("what"),
});

/// What is drawn with, of which much may be left out.
///
/// Since: 1.0
///
/// Defined at small.json:135.
#[derive(Debug, Clone, PartialEq)]
pub struct Ink {
    /// what it is called
    pub name: String,
    /// its colour
    pub color: Option<Color>,
    /// how wide it is
    pub width: Option<u8>,
    /// whether it is dry
    pub dry: Option<bool>,
    /// who made it
    pub maker: Option<String>,
    /// when
    pub year: Option<i64>,
    /// another one for when it is empty
    pub spare: Option<Box<Ink>>,
}

::qapi_runtime::strict!(Ink {
    name: required("name"),
    color: optional("color"),
    width: optional("width"),
    dry: optional("dry"),
    maker: optional("maker"),
    year: optional("year"),
    spare: optional("spare"),
});

impl Ink {
    /// Begins a value of which only what must be there is said.
    pub fn builder(name: impl Into<String>) -> InkBuilder {
        InkBuilder(Ink {
            name: name.into(),
            color: None,
            width: None,
            dry: None,
            maker: None,
            year: None,
            spare: None,
        })
    }
}

/// Makes [`Ink`] member by member.
#[derive(Debug)]
#[must_use = "`build` gives the value"]
pub struct InkBuilder(Ink);

impl InkBuilder {
    /// Sets `color`.
    pub fn color(mut self, value: Color) -> Self {
        self.0.color = Some(value);
        self
    }

    /// Sets `width`.
    pub fn width(mut self, value: u8) -> Self {
        self.0.width = Some(value);
        self
    }

    /// Sets `dry`.
    pub fn dry(mut self, value: bool) -> Self {
        self.0.dry = Some(value);
        self
    }

    /// Sets `maker`.
    pub fn maker(mut self, value: impl Into<String>) -> Self {
        self.0.maker = Some(value.into());
        self
    }

    /// Sets `year`.
    pub fn year(mut self, value: i64) -> Self {
        self.0.year = Some(value);
        self
    }

    /// Sets `spare`.
    pub fn spare(mut self, value: Ink) -> Self {
        self.0.spare = Some(Box::new(value));
        self
    }

    /// The struct `Ink`.
    pub fn build(self) -> Ink {
        self.0
    }
}

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
    /// Defined at small.json:101.
    fn draw(
        &self,
        call: &Call,
        arguments: Draw,
    ) -> impl Future<Output = Result<Vec<Drawing>, Error>> + Send;
}

/// How a handler's commands of small.json are called, by name.
pub fn small_rows<H: SmallCommands + 'static>() -> Vec<Row<H>> {
    Vec::from([Row::<H>::new("draw", call!(H::draw(arguments)))])
}

