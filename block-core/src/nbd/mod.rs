//! NBD: exports and the server's data plane over any byte stream.
//!
//! This module neither listens nor knows TLS: whoever accepts connections gives them to [`Server::serve`], with a
//! hook that upgrades a stream when the client asks for TLS.

mod context;
mod export;
mod handshake;
mod lookout;
pub mod proto;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use context::Context;
pub use export::{Export, ExportOptions, MultiConn};
pub use server::{Server, ServerConfig, ServerHandle};

/// A connection's bytes, whatever carries them.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The pending result of a TLS handshake.
pub type UpgradeFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Turns a plain stream into an encrypted one.
pub trait TlsUpgrade: Send + Sync {
    /// Does the handshake; an error ends the connection.
    fn upgrade(&self, stream: Box<dyn Stream>) -> UpgradeFuture<'_>;
}
