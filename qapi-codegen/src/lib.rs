//! A compiler from QAPI schemas to Rust types, dispatch tables, clients, introspection and docs.
//!
//! The front end is pure: [`compile`] takes a [`source::SourceMap`] and gives back a checked
//! [`ir::Schema`] and [`diagnostic::Diagnostic`]s. [`fs::load`] fills a map from the file system.

mod ast;
pub mod build_script;
mod check;
pub mod codes;
pub mod diagnostic;
pub mod doc;
pub mod emit;
pub mod explain;
pub mod fs;
pub mod introspect;
pub mod ir;
mod lex;
pub mod limits;
mod lookup;
mod parse;
pub mod print;
pub mod render;
pub mod source;

pub use build_script::Build;
pub use check::{Compiled, check, compile, mangle};
pub use emit::{Conditions, Role};
