//! The storage daemon's QAPI schema, as Rust.
//!
//! Everything here is made by `build.rs` from the `.json` modules beside it: types, one trait of commands for each
//! module, dispatch tables, events, and the reply of `query-qmp-schema`.

include!(concat!(env!("OUT_DIR"), "/schema.rs"));
