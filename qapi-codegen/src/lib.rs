//! A compiler from QAPI schemas to Rust types, dispatch tables, clients, introspection and docs.
