//! A compiler from QAPI schemas to Rust types, dispatch tables, clients, introspection and docs.

pub mod codes;
pub mod diagnostic;
pub mod doc;
pub mod ir;
pub mod limits;
pub mod source;
