//! What a handler may know of the request that it answers.

use crate::peer::{Peer, SessionId};
use crate::policy::Policy;
use std::sync::Arc;

/// One request, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The command's name.
    pub command: &'static str,
    /// The session that asked.
    pub session: SessionId,
    /// Who is at its other end.
    pub peer: Arc<Peer>,
    /// The command was to be run out of band.
    pub oob: bool,
    /// What the session thinks of deprecated and unstable things.
    pub policy: Policy,
}
