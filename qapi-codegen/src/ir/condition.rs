//! Conditions as data: what an `if` says.

use std::fmt;

/// When something exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Condition {
    /// No `if`.
    #[default]
    Always,
    /// A symbol is set.
    Symbol(String),
    /// All hold. Never empty.
    All(Vec<Condition>),
    /// At least one holds. Never empty.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
}

impl Condition {
    /// Whether there is no condition.
    pub fn is_always(&self) -> bool {
        *self == Condition::Always
    }

    /// Whether it holds, when `is_set` says which symbols are set.
    pub fn holds(&self, is_set: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Condition::Always => true,
            Condition::Symbol(name) => is_set(name),
            Condition::All(all) => all.iter().all(|condition| condition.holds(is_set)),
            Condition::Any(any) => any.iter().any(|condition| condition.holds(is_set)),
            Condition::Not(not) => !not.holds(is_set),
        }
    }

    /// Calls `found` with every symbol in it, in order, as often as it stands there.
    pub fn symbols<'a>(&'a self, found: &mut dyn FnMut(&'a str)) {
        match self {
            Condition::Always => {}
            Condition::Symbol(name) => found(name),
            Condition::All(list) | Condition::Any(list) => {
                for condition in list {
                    condition.symbols(found);
                }
            }
            Condition::Not(not) => not.symbols(found),
        }
    }
}

/// As a person writes it: `CONFIG_A and not (CONFIG_B or CONFIG_C)`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn operand(condition: &Condition, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match condition {
                Condition::All(list) | Condition::Any(list) if list.len() > 1 => write!(f, "({condition})"),
                _ => write!(f, "{condition}"),
            }
        }
        let list = |list: &[Condition], word: &str, f: &mut fmt::Formatter<'_>| {
            for (index, condition) in list.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                operand(condition, f)?;
            }
            Ok(())
        };
        match self {
            Condition::Always => f.write_str("always"),
            Condition::Symbol(name) => f.write_str(name),
            Condition::All(all) => list(all, "and", f),
            Condition::Any(any) => list(any, "or", f),
            Condition::Not(not) => {
                f.write_str("not ")?;
                operand(not, f)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluated_and_printed() {
        let symbol = |name: &str| Condition::Symbol(name.to_owned());
        let condition = Condition::All(vec![
            symbol("A"),
            Condition::Not(Box::new(Condition::Any(vec![symbol("B"), symbol("C")]))),
        ]);
        assert_eq!(condition.to_string(), "A and not (B or C)");
        assert!(condition.holds(&|name| name == "A"));
        assert!(!condition.holds(&|name| name != "B"));
        let mut seen = Vec::new();
        condition.symbols(&mut |name| seen.push(name.to_owned()));
        assert_eq!(seen, ["A", "B", "C"]);
    }
}
