//! What a session thinks of deprecated and unstable parts of the interface.

/// What to do with deprecated or unstable input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputPolicy {
    /// Take it.
    #[default]
    Accept,
    /// Refuse it with an error.
    Reject,
}

/// What to do with deprecated or unstable output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputPolicy {
    /// Send it.
    #[default]
    Accept,
    /// Leave it out.
    Hide,
}

/// A session's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Commands and arguments marked deprecated.
    pub deprecated_input: InputPolicy,
    /// Return values and events marked deprecated.
    pub deprecated_output: OutputPolicy,
    /// Commands and arguments marked unstable.
    pub unstable_input: InputPolicy,
    /// Return values and events marked unstable.
    pub unstable_output: OutputPolicy,
}
