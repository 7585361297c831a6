//! What each rule is about: for `qapi explain`.
//!
//! The examples are schemas by themselves. A test compiles all of them: the wrong one draws exactly the
//! code that it stands for, the right one nothing at all.

mod clashes;
mod docs;
mod features;
mod names;
mod shape;
mod syntax;
mod types;

use std::fmt;

use crate::codes::Code;

/// A rule of the language.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its code.
    pub code: Code,
    /// What it says.
    pub text: &'static str,
    /// A schema that breaks it.
    pub wrong: &'static str,
    /// The same as it should be.
    pub right: &'static str,
    /// Whether the examples are schemas, and not descriptions of what is too large to print.
    pub is_schema: bool,
}

/// The rule behind a code.
pub fn explain(code: Code) -> Option<&'static Rule> {
    rules().find(|rule| rule.code == code)
}

/// All rules, by their codes.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        syntax::RULES,
        shape::RULES,
        names::RULES,
        clashes::RULES,
        types::RULES,
        features::RULES,
        docs::RULES,
    ]
    .into_iter()
    .flatten()
}

/// The whole explanation.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.code)?;
        writeln!(f)?;
        for line in wrap(self.text, 78) {
            writeln!(f, "{line}")?;
        }
        for (title, example) in [("Wrong", self.wrong), ("Right", self.right)] {
            writeln!(f)?;
            writeln!(f, "{title}:")?;
            writeln!(f)?;
            for line in example.lines() {
                if line.is_empty() {
                    writeln!(f)?
                } else {
                    writeln!(f, "    {line}")?
                }
            }
        }
        Ok(())
    }
}

/// Breaks a text into lines of at most `width` characters where words allow it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceMap;
    use crate::{codes, compile};

    #[test]
    fn every_code_is_explained_and_every_example_is_true() {
        let explained: Vec<Code> = rules().map(|rule| rule.code).collect();
        assert_eq!(explained, codes::ALL);
        for rule in rules().filter(|rule| rule.is_schema) {
            let told = |text: &str| {
                let compiled = compile(&SourceMap::single("example.json", text));
                let mut told: Vec<Code> = compiled.diagnostics.iter().map(|found| found.code).collect();
                told.dedup();
                told
            };
            assert_eq!(
                told(rule.wrong),
                [rule.code],
                "the wrong example of {}:\n{}",
                rule.code,
                rule.wrong
            );
            assert_eq!(
                told(rule.right),
                [],
                "the right example of {}:\n{}",
                rule.code,
                rule.right
            );
        }
    }

    #[test]
    fn texts_are_wrapped() {
        assert!(rules().all(|rule| rule.to_string().lines().all(|line| line.len() <= 120)));
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
    }
}
