//! From the tokens of generated items to text, laid out as rustfmt would lay them out.
//!
//! The emitters use a small part of Rust, and this printer knows that part only: items, fields, arms,
//! calls, chains of calls, literals of structs and arrays, `match` and `if`. What it does not know it
//! prints on one line, as correct as any other. Parsing the tokens into a complete syntax tree first, only to
//! print it, took more than half of the time that generating code takes in a debug build, and build
//! scripts are debug builds.
//!
//! It neither adds nor drops a token but commas at the end of lists; tests compare with what `syn` reads.

mod layout;
mod tree;

use layout::Printer;
use proc_macro2::{Ident, TokenStream};

/// The token that stands for a text of documentation.
pub(super) fn doc_mark(number: usize) -> Ident {
    tree::mark(number)
}

/// Prints items with a blank line between them. Marks stand for the texts in `docs`.
pub(super) fn items(items: Vec<TokenStream>, docs: &[Vec<String>]) -> String {
    let mut printer = Printer::new(docs);
    for item in items {
        printer.item(&tree::trees(item));
    }
    printer.finish()
}

/// The line, or the lines, of an attribute of what it stands in.
pub(super) fn inner_attribute(tokens: TokenStream) -> String {
    let mut printer = Printer::new(&[]);
    printer.inner_attribute(&tree::trees(tokens));
    printer.finish()
}

#[cfg(test)]
mod tests;
