//! The storage daemon's QAPI schema, as Rust.
