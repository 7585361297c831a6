//! How values are to be read.

use super::Attempt;
use crate::policy::{InputPolicy, Policy, Special};

/// How values are to be read; a cursor hands it down to its members and elements.
///
/// All of it is in one number: it is copied for every value, and fields that were written one by one and are read together have to
/// be waited for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mode(u32);

/// Numbers may have a unit, as in `64k` (`key=value` options only).
const UNITS: u32 = 1;
/// Where the two bits are of what to do about deprecated members and values.
const DEPRECATED: u32 = 1;
/// The same about unstable ones.
const UNSTABLE: u32 = 3;
/// The same of the attempt.
const ATTEMPT: u32 = 5;

impl Mode {
    #[inline]
    fn bits(self, place: u32) -> u32 {
        (self.0 >> place) & 3
    }

    #[inline]
    fn with_bits(self, place: u32, bits: u32) -> Self {
        Mode((self.0 & !(3 << place)) | (bits << place))
    }

    #[inline]
    pub(crate) fn units(self) -> bool {
        self.0 & UNITS != 0
    }

    /// The same mode, where numbers may also have a unit if `units` says so.
    #[inline]
    pub(crate) fn or_units(self, units: bool) -> Self {
        Mode(self.0 | (u32::from(units) * UNITS))
    }

    #[inline]
    pub(crate) fn attempt(self) -> Attempt {
        match self.bits(ATTEMPT) {
            0 => Attempt::Both,
            1 => Attempt::First,
            _ => Attempt::Second,
        }
    }

    #[inline]
    pub(crate) fn with_attempt(self, attempt: Attempt) -> Self {
        self.with_bits(ATTEMPT, attempt as u32)
    }

    /// The input half of a policy.
    #[inline]
    pub(crate) fn policy(self) -> Policy {
        let input = |place| match self.bits(place) {
            0 => InputPolicy::Accept,
            1 => InputPolicy::Reject,
            _ => InputPolicy::Crash,
        };
        Policy {
            deprecated_input: input(DEPRECATED),
            unstable_input: input(UNSTABLE),
            ..Policy::default()
        }
    }

    /// Whether the program ends at the sight of something.
    pub(crate) fn may_crash(self) -> bool {
        let policy = self.policy();
        policy.deprecated_input == InputPolicy::Crash || policy.unstable_input == InputPolicy::Crash
    }

    /// The word for what its features have refused, if they have. Ends the program where the policy says so.
    #[inline]
    pub(crate) fn refuses(self, special: Special) -> Option<&'static str> {
        if special.is_none() {
            return None;
        }
        self.policy().refuses(special)
    }

    pub(crate) fn with_policy(self, policy: Policy) -> Self {
        self.with_bits(DEPRECATED, policy.deprecated_input as u32)
            .with_bits(UNSTABLE, policy.unstable_input as u32)
    }
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mode")
            .field("units", &self.units())
            .field("policy", &self.policy())
            .field("attempt", &self.attempt())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_kept_by_itself() {
        let inputs = [InputPolicy::Accept, InputPolicy::Reject, InputPolicy::Crash];
        for units in [false, true] {
            for deprecated_input in inputs {
                for unstable_input in inputs {
                    for attempt in [Attempt::Both, Attempt::First, Attempt::Second] {
                        let policy = Policy {
                            deprecated_input,
                            unstable_input,
                            ..Policy::default()
                        };
                        let mode = Mode::default()
                            .with_attempt(Attempt::Second)
                            .with_policy(policy)
                            .or_units(units)
                            .with_attempt(attempt);
                        assert_eq!(
                            (mode.units(), mode.policy(), mode.attempt()),
                            (units, policy, attempt)
                        );
                    }
                }
            }
        }
    }
}
