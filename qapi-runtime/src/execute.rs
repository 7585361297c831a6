//! What a generated client stands on: something that sends a command and waits for its reply.

use crate::decode::Decode;
use crate::document::{Cursor, Document};
use crate::encode::{Encode, Writer};
use crate::error::DecodeError;

/// Sends commands and waits for their replies; connections, `id`s and timeouts are its own affair.
pub trait Execute: Send + Sync {
    /// What goes wrong: the server's refusal, a lost connection, a reply that does not decode.
    type Error: From<DecodeError> + Send;

    /// Sends a command with its encoded `arguments` object and waits for the value it returns.
    fn execute(
        &self,
        command: &'static str,
        arguments: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<Document, Self::Error>> + Send;
}

/// Executes a command that has arguments; generated methods call it.
///
/// # Errors
/// What the transport says, and a reply that does not fit its type.
pub async fn with_arguments<T: Execute, A: Encode, R: Decode>(
    transport: &T,
    command: &'static str,
    arguments: &A,
) -> Result<R, T::Error> {
    let mut out = Writer::default();
    arguments.encode(&mut out);
    let reply = transport.execute(command, Some(out.into_bytes())).await?;
    Ok(returned(&reply)?)
}

/// Executes a command that has no arguments; generated methods call it.
///
/// # Errors
/// What the transport says, and a reply that does not fit its type.
pub async fn without_arguments<T: Execute, R: Decode>(
    transport: &T,
    command: &'static str,
) -> Result<R, T::Error> {
    let reply = transport.execute(command, None).await?;
    Ok(returned(&reply)?)
}

fn returned<R: Decode>(reply: &Document) -> Result<R, DecodeError> {
    match reply.root() {
        Some(root) => R::decode(root),
        None => Err(DecodeError::expected("object")),
    }
}

/// Reads an event's data; generated code calls it.
///
/// # Errors
/// When it does not fit its type.
pub fn event_data<T: Decode>(data: Option<Cursor<'_>>) -> Result<T, DecodeError> {
    match data {
        Some(data) => T::decode(data),
        // No data is the same as an object without members.
        None => Document::empty_object()
            .root()
            .map_or_else(|| Err(DecodeError::expected("object")), T::decode),
    }
}
