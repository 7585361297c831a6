//! What a member is that a server leaves out because it is older than the schema: the value without content.

use super::Decode;
use crate::document::{Builder, Document, Token};
use std::any::type_name;
use std::cell::RefCell;
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

thread_local! {
    /// The types whose value without content is being made: one that needs a value of itself has none.
    static OPEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The value without content of a type, if it has one.
#[cold]
pub(crate) fn absent<T: Decode>() -> Option<T> {
    let name = type_name::<T>();
    if OPEN.with_borrow(|open| open.contains(&name)) {
        return None;
    }
    OPEN.with_borrow_mut(|open| open.push(name));
    let found = NOTHING
        .root()
        .and_then(|nothing| nothing.elements().find_map(|value| T::decode(value).ok()));
    OPEN.with_borrow_mut(|open| open.pop());
    found
}
