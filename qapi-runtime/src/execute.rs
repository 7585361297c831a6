//! What a generated client stands on: something that sends a command and waits for its reply.

use crate::document::Document;
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
