//! What an `if` of the schema becomes: an attribute of the generated code, or a decision made now.

use crate::ir::Condition;
use proc_macro2::TokenStream;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// How symbols of `if` are mapped.
type Rule = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What becomes of the schema's `if`.
#[derive(Clone)]
pub struct Conditions(Kind);

#[derive(Clone)]
enum Kind {
    Decided {
        set: BTreeSet<String>,
        others: bool,
    },
    Mapped {
        rule: Rule,
        /// What asks `qapi generate` for it.
        argument: Option<&'static str>,
    },
}

impl Conditions {
    /// Everything that an `if` can bring is there.
    pub fn all_set() -> Self {
        Conditions(Kind::Decided {
            set: BTreeSet::new(),
            others: true,
        })
    }

    /// Only these symbols are set; the code is as if no other had been in the schema.
    pub fn set<S: Into<String>>(symbols: impl IntoIterator<Item = S>) -> Self {
        Conditions(Kind::Decided {
            set: symbols.into_iter().map(Into::into).collect(),
            others: false,
        })
    }

    /// `CONFIG_LINUX` becomes `#[cfg(CONFIG_LINUX)]`.
    pub fn cfgs() -> Self {
        Self::rule(str::to_owned, Some("--cfg"))
    }

    /// `CONFIG_LINUX` becomes `#[cfg(feature = "config-linux")]`.
    pub fn cargo_features() -> Self {
        let feature = |symbol: &str| symbol.to_ascii_lowercase().replace('_', "-");
        Self::rule(
            move |symbol| format!("feature = \"{}\"", feature(symbol)),
            Some("--features"),
        )
    }

    /// A symbol becomes what `rule` says: something that may stand in `#[cfg(..)]`.
    pub fn mapped(rule: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::rule(rule, None)
    }

    fn rule(rule: impl Fn(&str) -> String + Send + Sync + 'static, argument: Option<&'static str>) -> Self {
        let rule = Arc::new(rule);
        Conditions(Kind::Mapped { rule, argument })
    }

    /// Adds what to say to `qapi generate` for it; a rule of the caller's own cannot be said there.
    pub(super) fn arguments(&self, add: &mut dyn FnMut(&[&str])) {
        match &self.0 {
            Kind::Decided { others: true, .. } => {}
            Kind::Decided { set, .. } => {
                add(&["--set"]);
                set.iter().for_each(|symbol| add(&[symbol]));
            }
            Kind::Mapped { argument, .. } => argument.iter().for_each(|argument| add(&[argument])),
        }
    }

    /// Whether the generated code has `cfg` attributes.
    pub(super) fn are_mapped(&self) -> bool {
        matches!(self.0, Kind::Mapped { .. })
    }

    /// What a symbol becomes in `#[cfg(..)]`, unless it was decided.
    pub(crate) fn predicate(&self, symbol: &str) -> Option<String> {
        match &self.0 {
            Kind::Mapped { rule, .. } => Some(rule(symbol)),
            Kind::Decided { .. } => None,
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions::all_set()
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Decided { set, others } => f
                .debug_struct("Decided")
                .field("set", set)
                .field("others", others)
                .finish(),
            Kind::Mapped { .. } => f.write_str("Mapped"),
        }
    }
}

/// A conjunction of conditions that no decision was made on: empty means always.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cfg(Vec<Condition>);

impl Conditions {
    /// What is left of a condition: nothing if it does not hold.
    pub(super) fn reduce(&self, condition: &Condition) -> Option<Cfg> {
        match &self.0 {
            // `all_set` takes every condition for true, `not` included, as documentation does.
            Kind::Decided { others: true, .. } => Some(Cfg::default()),
            Kind::Decided { set, .. } => condition.holds(&|symbol| set.contains(symbol)).then(Cfg::default),
            Kind::Mapped { .. } => {
                let mut parts = Vec::new();
                flatten(condition, &mut parts);
                Some(Cfg(parts))
            }
        }
    }

    /// What says it in `#[cfg(..)]`, if anything is to be said.
    pub(super) fn tokens(&self, cfg: &Cfg) -> Option<TokenStream> {
        let text = match cfg.0.as_slice() {
            [] => return None,
            [one] => self.text(one),
            all => format!("all({})", self.list(all)),
        };
        text.parse().ok()
    }

    /// What stands in `#[cfg(..)]`.
    pub(super) fn text(&self, condition: &Condition) -> String {
        match condition {
            Condition::Always => "all()".to_owned(),
            Condition::Symbol(symbol) => self.predicate(symbol).unwrap_or_else(|| symbol.clone()),
            Condition::All(list) | Condition::Any(list) if list.len() == 1 => {
                list.iter().map(|only| self.text(only)).collect()
            }
            Condition::All(all) => format!("all({})", self.list(all)),
            Condition::Any(any) => format!("any({})", self.list(any)),
            Condition::Not(not) => format!("not({})", self.text(not)),
        }
    }

    fn list(&self, conditions: &[Condition]) -> String {
        let texts: Vec<String> = conditions.iter().map(|condition| self.text(condition)).collect();
        texts.join(", ")
    }
}

fn flatten(condition: &Condition, parts: &mut Vec<Condition>) {
    match condition {
        Condition::Always => {}
        Condition::All(all) => all.iter().for_each(|part| flatten(part, parts)),
        other => {
            if !parts.contains(other) {
                parts.push(other.clone());
            }
        }
    }
}

impl Cfg {
    pub(super) fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// Both, without what `outer` says already.
    pub(super) fn within(mut self, outer: &Cfg) -> Cfg {
        self.0.retain(|part| !outer.0.contains(part));
        self
    }

    /// Both.
    pub(super) fn and(mut self, other: &Cfg) -> Cfg {
        for part in &other.0 {
            if !self.0.contains(part) {
                self.0.push(part.clone());
            }
        }
        self
    }

    /// Where the first holds and the second does not.
    pub(super) fn without(&self, other: &Cfg) -> Option<Cfg> {
        let rest = other.clone().within(self);
        if rest.is_always() {
            return None;
        }
        let mut parts = self.0.clone();
        parts.push(Condition::Not(Box::new(Condition::All(rest.0))));
        Some(Cfg(parts))
    }
}
