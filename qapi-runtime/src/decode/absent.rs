//! What a member is that a server leaves out because it is older than the schema: the value without content.

use super::Decode;
use crate::document::{Builder, Document, Token};
use std::cell::Cell;
use std::sync::LazyLock;

/// Every kind of value without content. What takes `null` means it; an object's members are then absent too.
static NOTHING: LazyLock<Document> = LazyLock::new(|| {
    let mut builder = Builder::default();
    builder.begin_array();
    builder.scalar(Token::Null);
    builder.begin_object();
    builder.end();
    builder.begin_array();
    builder.end();
    builder.string("");
    builder.scalar(Token::Int(0));
    builder.scalar(Token::Bool(false));
    builder.end();
    builder.finish()
});

/// So many objects without content may be in one another: a type that needs a value of itself has no end.
const DEPTH: u32 = 64;

thread_local! {
    static OPEN: Cell<u32> = const { Cell::new(0) };
}

/// The value without content of a type, if it has one.
#[cold]
pub(crate) fn absent<T: Decode>() -> Option<T> {
    let depth = OPEN.get();
    if depth == DEPTH {
        return None;
    }
    OPEN.set(depth + 1);
    let found = NOTHING.root()?.elements().find_map(|value| T::decode(value).ok());
    OPEN.set(depth);
    found
}
