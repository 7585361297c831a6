//! What a server does with the deprecated and the unstable: QEMU's `-compat`.
//!
//! `crash` may be set from the command line only; a client may choose the others for itself. Who may
//! set what is decided by the program, not here.

use crate::error::{Error, ErrorClass};

/// The features with a meaning to the runtime: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Special(u8);

impl Special {
    /// Neither.
    pub const NONE: Special = Special(0);
    /// Will go away.
    pub const DEPRECATED: Special = Special(1);
    /// May change or go away without notice.
    pub const UNSTABLE: Special = Special(2);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Special) -> Special {
        Special(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn has(self, other: Special) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What to do when a client uses something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputPolicy {
    /// Take it.
    #[default]
    Accept,
    /// Refuse it with an error.
    Reject,
    /// End the program: a test suite that must notice asks for this.
    Crash,
}

/// What to do when something would be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputPolicy {
    /// Send it.
    #[default]
    Accept,
    /// Leave it out.
    Hide,
}

/// What is done with the deprecated and the unstable, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Deprecated commands, arguments and values.
    pub deprecated_input: InputPolicy,
    /// Deprecated results and events.
    pub deprecated_output: OutputPolicy,
    /// Unstable commands, arguments and values.
    pub unstable_input: InputPolicy,
    /// Unstable results and events.
    pub unstable_output: OutputPolicy,
}

impl Policy {
    /// Whether output with these features is left out.
    #[inline]
    pub fn hides(&self, special: Special) -> bool {
        (special.has(Special::DEPRECATED) && self.deprecated_output == OutputPolicy::Hide)
            || (special.has(Special::UNSTABLE) && self.unstable_output == OutputPolicy::Hide)
    }

    /// Whether a command with these features may run.
    ///
    /// # Errors
    /// When the policy refuses it.
    pub fn check_command(&self, name: &str, special: Special) -> Result<(), Error> {
        match self.refuses(special) {
            None => Ok(()),
            Some(why) => {
                let desc = format!("{why} command {name} disabled by policy");
                Err(Error::new(ErrorClass::CommandNotFound, desc))
            }
        }
    }

    /// The word for what is refused, if it is. Ends the program where the policy says so.
    pub(crate) fn refuses(&self, special: Special) -> Option<&'static str> {
        for (bit, input, why) in [
            (Special::DEPRECATED, self.deprecated_input, "Deprecated"),
            (Special::UNSTABLE, self.unstable_input, "Unstable"),
        ] {
            if special.has(bit) {
                match input {
                    InputPolicy::Accept => {}
                    InputPolicy::Reject => return Some(why),
                    InputPolicy::Crash => {
                        tracing::error!("{why} input was used and the policy is to crash");
                        std::process::abort();
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_speaks_of_its_own_kind_only() {
        let policy = Policy {
            deprecated_input: InputPolicy::Reject,
            unstable_output: OutputPolicy::Hide,
            ..Policy::default()
        };
        assert_eq!(policy.refuses(Special::UNSTABLE), None);
        assert_eq!(
            policy.refuses(Special::UNSTABLE.and(Special::DEPRECATED)),
            Some("Deprecated")
        );
        assert!(policy.hides(Special::UNSTABLE));
        assert!(!policy.hides(Special::DEPRECATED));
        let error = policy.check_command("change", Special::DEPRECATED).unwrap_err();
        assert_eq!(error.class, ErrorClass::CommandNotFound);
        assert_eq!(error.desc, "Deprecated command change disabled by policy");
    }
}
