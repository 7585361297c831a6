//! What code generated from a QAPI schema stands on: QMP wire, sessions, dispatch, events, client, transactions.
//!
//! Knows no schema and no block type.

pub mod audit;
pub mod call;
pub mod dispatch;
pub mod document;
pub mod error;
pub mod event;
pub mod listen;
mod output;
pub mod peer;
pub mod policy;
mod request;
pub mod scanner;
pub mod server;
mod service;
mod session;
pub mod text;

pub use call::Call;
pub use dispatch::{CommandTable, Flags, Pending, Reply, Row};
pub use document::{Cursor, Document, Token};
pub use error::{Error, ErrorClass};
pub use event::{Event, EventHub};
pub use listen::{Listener, UnixOptions};
pub use peer::{Peer, SessionId};
pub use policy::Policy;
pub use server::{ListenOptions, Server, ServerBuilder, ServerLimits, Stop};
pub use session::Transport;
