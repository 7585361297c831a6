//! What a command's handler may know of its request.

use crate::peer::{Peer, SessionId};
use crate::policy::Policy;
use std::sync::Arc;

/// What a command's handler may know of its request, besides the arguments.
#[derive(Debug, Clone)]
pub struct Call {
    /// The command's name on the wire.
    pub command: &'static str,
    /// The session it came by.
    pub session: SessionId,
    /// Who is at the other end of the session.
    pub peer: Arc<Peer>,
    /// Whether it was sent out of band.
    pub oob: bool,
    /// What is done with the deprecated and the unstable in this session.
    pub policy: Policy,
}
