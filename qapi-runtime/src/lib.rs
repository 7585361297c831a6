//! What code generated from a QAPI schema stands on: QMP wire, sessions, dispatch, events, client, transactions.
//!
//! Knows no schema and no block type.

pub mod document;
pub mod scanner;
