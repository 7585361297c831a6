//! What the parser reads: values with their places, nothing looked up.

use std::borrow::Cow;

use crate::source::Span;

/// A value.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    /// What it is.
    pub kind: ValueKind<'a>,
    /// Where it stands, brackets and quotes included.
    pub span: Span,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum ValueKind<'a> {
    /// `true` or `false`
    Bool(bool),
    /// A string.
    Str(Cow<'a, str>),
    /// A list.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
    /// Something that is wrong and was reported: nothing more is to be said about it.
    Bad,
}

/// The members of an object, in order, each key once.
pub type Object<'a> = Vec<Entry<'a>>;

/// A member of an object.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The key.
    pub key: Cow<'a, str>,
    /// Where the key stands, quotes included.
    pub key_span: Span,
    /// The value.
    pub value: Value<'a>,
}

/// A top-level item of a file.
#[derive(Debug)]
pub enum Item<'a> {
    /// A directive or a definition.
    Expression(Expression<'a>),
    /// A documentation comment.
    Doc {
        /// From its opening `##` to its closing one.
        span: Span,
        /// What follows it, for a comment that is not closed.
        next: Span,
    },
    /// Something that was given up because of syntax errors.
    Lost,
}

/// A directive or a definition as an object.
#[derive(Debug)]
pub struct Expression<'a> {
    /// Its members.
    pub object: Object<'a>,
    /// From brace to brace.
    pub span: Span,
    /// Whether something in it was wrong, so that parts may be missing.
    pub damaged: bool,
}

/// A file as it was read.
#[derive(Debug, Default)]
pub struct File<'a> {
    /// Its items in order.
    pub items: Vec<Item<'a>>,
    /// Names of definitions that were lost to syntax errors, so that nobody complains of their absence.
    pub lost_names: Vec<Cow<'a, str>>,
    /// How many definitions were lost without their names.
    pub nameless: usize,
    /// A pragma directive was lost.
    pub pragma_lost: bool,
}

impl ValueKind<'_> {
    /// `a string`, `an object` ...
    pub fn describe(&self) -> &'static str {
        match self {
            ValueKind::Bool(_) => "a boolean",
            ValueKind::Str(_) => "a string",
            ValueKind::Array(_) => "an array",
            ValueKind::Object(_) => "an object",
            ValueKind::Bad => "something unreadable",
        }
    }
}

/// The member of this key.
pub fn get<'o, 'a>(object: &'o [Entry<'a>], key: &str) -> Option<&'o Entry<'a>> {
    object.iter().find(|entry| entry.key == key)
}
