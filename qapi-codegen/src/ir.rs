//! The checked schema: every name resolved, every default filled in, declaration order kept.
//!
//! What reaches this point is a correct schema. Back ends read it and never look up a name, and there is
//! no `Option` here that means "not computed yet". It knows nothing of Rust, C or JSON.
//!
//! ```text
//! Schema ── modules ──► Definition ──► Type | Command | Event
//!                                        │
//!              TypeRef { element, array } ◄── members, branches, arguments, returns
//! ```

use std::fmt;

use crate::source::{FileId, LineColumn, Span};

mod condition;
mod doc;
mod query;

pub use condition::Condition;
pub use doc::{Doc, DocText, Section, SectionKind};
pub use query::is_deprecated;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// The position in the schema's list of these, counted from 0.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            pub(crate) fn from_index(index: usize) -> $name {
                $name(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }
    };
}

id!(
    /// A module: one schema file.
    ModuleId
);
id!(
    /// An enum, struct, union or alternate, also an implicit one.
    TypeId
);
id!(
    /// A command.
    CommandId
);
id!(
    /// An event.
    EventId
);

/// A whole checked schema.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(crate) modules: Vec<Module>,
    pub(crate) types: Vec<Type>,
    pub(crate) commands: Vec<Command>,
    pub(crate) events: Vec<Event>,
    pub(crate) features: Vec<String>,
}

/// One schema file and what it defines.
#[derive(Debug, Clone)]
pub struct Module {
    /// The file's path from the root file's folder, without `.` and needless `..`: `block-core.json`.
    pub name: String,
    /// The file's name as diagnostics print it.
    pub path: String,
    /// The file.
    pub file: FileId,
    /// What it defines, in order; implicit types stand before the definition that brings them.
    pub definitions: Vec<Definition>,
    /// The modules that it includes, in the order of its directives, each once.
    pub includes: Vec<ModuleId>,
    /// Its free-form documentation, in order.
    pub free_docs: Vec<DocText>,
}

/// Anything that a schema defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Definition {
    /// An enum, struct, union or alternate.
    Type(TypeId),
    /// A command.
    Command(CommandId),
    /// An event.
    Event(EventId),
}

/// Where something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The module that holds it.
    pub module: ModuleId,
    /// The bytes.
    pub span: Span,
    /// Line and column of the first byte.
    pub at: LineColumn,
}

/// A type that has a name of its own.
#[derive(Debug, Clone)]
pub struct Type {
    /// The name; of an implicit type the one that QEMU's introspection gives it, `q_obj_foo-arg`.
    pub name: String,
    /// What it is.
    pub kind: TypeKind,
    /// Where it is written; of a predefined type (`QType`) nowhere.
    pub origin: Option<Origin>,
    /// When it exists.
    pub condition: Condition,
    /// Its features.
    pub features: Vec<Feature>,
    /// Its documentation.
    pub doc: Option<Doc>,
    /// Of a type without a definition of its own: what brought it.
    pub implicit: Option<Implicit>,
    pub(crate) recursive: bool,
}

/// What brought a type that has no definition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Implicit {
    /// `QType`, which is there without a definition.
    Predefined,
    /// The inline `data` of a command.
    Arguments(CommandId),
    /// The inline `data` of an event.
    EventData(EventId),
    /// The inline `base` of a union.
    Base(TypeId),
}

/// What a type is.
#[derive(Debug, Clone)]
pub enum TypeKind {
    /// One of some words.
    Enum(Enum),
    /// Some members.
    Struct(Struct),
    /// Some members, and some more by the value of one of them.
    Union(Union),
    /// One of several types, told apart by the kind of JSON value.
    Alternate(Alternate),
}

/// An enum.
#[derive(Debug, Clone)]
pub struct Enum {
    /// The values in order.
    pub values: Vec<EnumValue>,
    /// What stands in place of the type's name in C constants.
    pub prefix: Option<String>,
}

/// A value of an enum.
#[derive(Debug, Clone)]
pub struct EnumValue {
    /// The word on the wire.
    pub name: String,
    /// When it exists.
    pub condition: Condition,
    /// Its features.
    pub features: Vec<Feature>,
    /// Its documentation.
    pub doc: Option<DocText>,
    /// Where it is written; nowhere for `QType`.
    pub origin: Option<Origin>,
}

/// A struct.
#[derive(Debug, Clone)]
pub struct Struct {
    /// The struct whose members come first.
    pub base: Option<TypeId>,
    /// The members of its own.
    pub members: Vec<Member>,
}

/// A union.
#[derive(Debug, Clone)]
pub struct Union {
    /// The struct with the common members; implicit when written in place.
    pub base: TypeId,
    /// The common member that chooses the branch.
    pub tag: Tag,
    /// A branch for each value of the tag's enum: first those that are written, in their order, then
    /// those that are not, in the enum's order.
    pub branches: Vec<Branch>,
}

/// The member of a union that chooses the branch.
#[derive(Debug, Clone)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// Its enum.
    pub enumeration: TypeId,
    /// The struct among the base and the base's bases that holds it.
    pub holder: TypeId,
    /// Its position among that struct's own members.
    pub member: usize,
}

/// A branch of a union.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The tag's value.
    pub name: String,
    /// The struct or union whose members it adds; nothing for a branch that adds none because it is not
    /// written.
    pub branch_type: Option<TypeId>,
    /// When it exists.
    pub condition: Condition,
    /// Where it is written; nowhere if it is not.
    pub origin: Option<Origin>,
    /// The position of its value in the tag's enum.
    pub value: usize,
}

/// An alternate.
#[derive(Debug, Clone)]
pub struct Alternate {
    /// The alternatives in order.
    pub alternatives: Vec<Alternative>,
}

/// An alternative of an alternate.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// Its name, which is not on the wire.
    pub name: String,
    /// Its type.
    pub alternative_type: TypeRef,
    /// When it exists.
    pub condition: Condition,
    /// Its documentation.
    pub doc: Option<DocText>,
    /// Where it is written.
    pub origin: Origin,
}

/// A member of a struct, of a union's base, of arguments or of event data.
#[derive(Debug, Clone)]
pub struct Member {
    /// The name on the wire.
    pub name: String,
    /// Whether it may be left out.
    pub optional: bool,
    /// Its type.
    pub member_type: TypeRef,
    /// When it exists.
    pub condition: Condition,
    /// Its features.
    pub features: Vec<Feature>,
    /// Its documentation.
    pub doc: Option<DocText>,
    /// Where it is written.
    pub origin: Origin,
}

/// A command.
#[derive(Debug, Clone)]
pub struct Command {
    /// The name on the wire.
    pub name: String,
    /// The type of its arguments: a struct, or with `boxed` possibly a union. Implicit when written in place.
    /// None both for no `data` and for empty inline `data`.
    pub arguments: Option<TypeId>,
    /// What it returns, if anything.
    pub returns: Option<TypeRef>,
    /// `'boxed': true`
    pub boxed: bool,
    /// False for `'gen': false`: the arguments are not described, so they pass unchecked.
    pub generate: bool,
    /// False for `'success-response': false`: there is no answer but an error.
    pub success_response: bool,
    /// `'allow-oob': true`
    pub allow_oob: bool,
    /// `'allow-preconfig': true`
    pub allow_preconfig: bool,
    /// `'coroutine': true`
    pub coroutine: bool,
    /// When it exists.
    pub condition: Condition,
    /// Its features.
    pub features: Vec<Feature>,
    /// Its documentation.
    pub doc: Option<Doc>,
    /// Where it is written.
    pub origin: Origin,
}

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The name on the wire.
    pub name: String,
    /// The type of its data, as of a command's arguments.
    pub data: Option<TypeId>,
    /// `'boxed': true`
    pub boxed: bool,
    /// When it exists.
    pub condition: Condition,
    /// Its features.
    pub features: Vec<Feature>,
    /// Its documentation.
    pub doc: Option<Doc>,
    /// Where it is written.
    pub origin: Origin,
}

/// A feature of something.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// When it exists.
    pub condition: Condition,
    /// Its documentation.
    pub doc: Option<DocText>,
    /// Where it is written.
    pub origin: Origin,
}

/// A type as it is used: an element, or an array of it. There is no array of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeRef {
    /// The element.
    pub element: Element,
    /// Whether it is an array of the element.
    pub array: bool,
}

/// What a type reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// A built-in type.
    Builtin(Builtin),
    /// Any other type.
    Type(TypeId),
}

/// The types that are there without a definition, but for `QType`, which is an enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Builtin {
    /// `str`
    Str,
    /// `number`
    Number,
    /// `int`: 64 bits with a sign
    Int,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint8`
    Uint8,
    /// `uint16`
    Uint16,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `size`: 64 bits without a sign
    Size,
    /// `bool`
    Bool,
    /// `any`
    Any,
    /// `null`
    Null,
}

/// The kinds of JSON value by which an alternate is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JsonKind {
    /// null
    Null,
    /// a number
    Number,
    /// a string
    String,
    /// an object
    Object,
    /// an array
    Array,
    /// true or false
    Bool,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Builtin; 15] = [
        Builtin::Str,
        Builtin::Number,
        Builtin::Int,
        Builtin::Int8,
        Builtin::Int16,
        Builtin::Int32,
        Builtin::Int64,
        Builtin::Uint8,
        Builtin::Uint16,
        Builtin::Uint32,
        Builtin::Uint64,
        Builtin::Size,
        Builtin::Bool,
        Builtin::Any,
        Builtin::Null,
    ];

    /// The name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Builtin::Str => "str",
            Builtin::Number => "number",
            Builtin::Int => "int",
            Builtin::Int8 => "int8",
            Builtin::Int16 => "int16",
            Builtin::Int32 => "int32",
            Builtin::Int64 => "int64",
            Builtin::Uint8 => "uint8",
            Builtin::Uint16 => "uint16",
            Builtin::Uint32 => "uint32",
            Builtin::Uint64 => "uint64",
            Builtin::Size => "size",
            Builtin::Bool => "bool",
            Builtin::Any => "any",
            Builtin::Null => "null",
        }
    }

    /// The built-in type of that name.
    pub fn by_name(name: &str) -> Option<Builtin> {
        Builtin::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Whether it is one of the integers, which introspection does not tell apart.
    pub fn is_integer(self) -> bool {
        self.json_type() == "int"
    }

    /// The `json-type` of introspection.
    pub fn json_type(self) -> &'static str {
        match self {
            Builtin::Str => "string",
            Builtin::Number => "number",
            Builtin::Bool => "boolean",
            Builtin::Any => "value",
            Builtin::Null => "null",
            _ => "int",
        }
    }

    /// The kind of JSON value; of `any` there is none.
    pub fn json_kind(self) -> Option<JsonKind> {
        Some(match self {
            Builtin::Str => JsonKind::String,
            Builtin::Bool => JsonKind::Bool,
            Builtin::Null => JsonKind::Null,
            Builtin::Any => return None,
            _ => JsonKind::Number,
        })
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TypeRef {
    /// A built-in type.
    pub fn builtin(builtin: Builtin) -> TypeRef {
        TypeRef {
            element: Element::Builtin(builtin),
            array: false,
        }
    }

    /// A type with a name of its own.
    pub fn named(id: TypeId) -> TypeRef {
        TypeRef {
            element: Element::Type(id),
            array: false,
        }
    }

    /// An array of this, which is not an array itself.
    #[must_use]
    pub fn arrayed(self) -> TypeRef {
        TypeRef { array: true, ..self }
    }
}

impl Type {
    /// Whether a value of it can hold another value of it, which a back end must then put behind a pointer.
    pub fn is_recursive(&self) -> bool {
        self.recursive
    }

    /// `enum`, `struct`, `union` or `alternate`.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            TypeKind::Enum(_) => "enum",
            TypeKind::Struct(_) => "struct",
            TypeKind::Union(_) => "union",
            TypeKind::Alternate(_) => "alternate",
        }
    }

    /// Whether it was written as a definition.
    pub fn is_explicit(&self) -> bool {
        self.implicit.is_none()
    }
}

impl Feature {
    /// Whether it is the feature `deprecated`.
    pub fn is_deprecated(&self) -> bool {
        self.name == "deprecated"
    }

    /// Whether it is the feature `unstable`.
    pub fn is_unstable(&self) -> bool {
        self.name == "unstable"
    }
}
