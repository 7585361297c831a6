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
    let _open = Open::begin(name);
    NOTHING.root()?.elements().find_map(|value| T::decode(value).ok())
}

/// That a type's value is being made, also if that ends in a panic.
struct Open;

impl Open {
    fn begin(name: &'static str) -> Self {
        OPEN.with_borrow_mut(|open| open.push(name));
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| open.pop());
    }
}
