//! What code generated from a QAPI schema stands on: QMP wire, sessions, dispatch, events, client, transactions.
//!
//! Knows no schema and no block type.

#[macro_use]
mod macros;

pub mod audit;
pub mod bridge;
pub mod builtin;
pub mod call;
pub mod client;
pub mod decode;
pub mod dispatch;
pub mod document;
pub mod encode;
pub mod error;
pub mod event;
pub mod execute;
pub mod introspect;
pub mod join;
pub mod listen;
mod output;
pub mod peer;
pub mod policy;
mod pretty;
mod request;
pub mod scanner;
pub mod server;
mod service;
mod session;
pub mod table;
pub mod text;
pub mod transaction;

pub use builtin::{Map, Null, QType, UnknownBranch, Value};
pub use call::Call;
pub use decode::{Decode, Members, Object, StringEnum};
pub use dispatch::{CommandTable, Flags, Pending, Reply, Row};
pub use document::{Cursor, Document, Token};
pub use encode::{Encode, Writer};
pub use error::{DecodeError, Error, ErrorClass};
pub use event::{Event, EventHub};
pub use execute::Execute;
pub use listen::{Listener, UnixOptions};
pub use peer::{Peer, SessionId};
pub use policy::{Policy, Special};

#[doc(hidden)]
pub use serde;
pub use server::{ListenOptions, Preconfig, Server, ServerBuilder, ServerLimits, Stop};
pub use session::Stream;
pub use table::Branches;
pub use transaction::Transaction;
