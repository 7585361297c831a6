//! Features: each once, special ones only where they have a meaning, and no more than fit into a set.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::Schema;
use crate::limits::MAX_FEATURES;
use crate::lookup::Lookup;

use super::names::Meta;
use super::shape::{Body, Data, RawDefinition, RawFeature, RawMember};

/// The features that have a meaning of their own, in the order of their bits.
const SPECIAL: [&str; 2] = ["deprecated", "unstable"];

pub(crate) fn check<'g>(raw: &[RawDefinition<'g>], schema: &mut Schema, diagnostics: &mut Vec<Diagnostic>) {
    let mut checker = Checker {
        diagnostics,
        known: Lookup::default(),
        told: false,
    };
    for name in SPECIAL {
        checker.known.add(name, ());
    }
    for definition in raw {
        if !matches!(definition.meta, Meta::Command | Meta::Event) {
            for feature in definition
                .features
                .iter()
                .filter(|feature| SPECIAL.contains(&feature.name))
            {
                checker.diagnostics.push(
                    Diagnostic::error(
                        codes::SPECIAL_FEATURE,
                        feature.span,
                        format!(
                            "feature '{}' is not supported for {}s",
                            feature.name,
                            definition.meta.word()
                        ),
                    )
                    .help("put it on commands, events, members or enum values"),
                );
            }
        }
        checker.list(&definition.features, false);
        match &definition.body {
            Body::Enum { values, .. } => {
                for value in values {
                    checker.list(&value.features, true);
                }
            }
            Body::Struct { members, .. } => checker.members(members),
            Body::Union { base: data, .. } | Body::Command { data, .. } | Body::Event { data, .. } => {
                if let Data::Inline(members) = data {
                    checker.members(members);
                }
            }
            Body::Alternate { .. } => {}
        }
    }
    schema.features = checker
        .known
        .iter()
        .map(|(name, ())| (*name).to_owned())
        .collect();
}

struct Checker<'g, 'd> {
    diagnostics: &'d mut Vec<Diagnostic>,
    /// The names of all features so far.
    known: Lookup<&'g str, ()>,
    told: bool,
}

impl<'g> Checker<'g, '_> {
    fn members(&mut self, members: &[RawMember<'g>]) {
        for member in members {
            self.list(&member.features, false);
        }
    }

    /// One list of features. On enum values QEMU lets a feature stand twice, so that we only warn.
    fn list(&mut self, features: &[RawFeature<'g>], lenient: bool) {
        for (at, feature) in features.iter().enumerate() {
            let mut earlier = features.iter().take(at.min(MAX_FEATURES));
            if let Some(first) = earlier.find(|other| other.name == feature.name) {
                let message = format!("feature '{}' is listed twice", feature.name);
                let diagnostic = if lenient {
                    Diagnostic::warning(codes::DUPLICATE_FEATURE, feature.span, message)
                } else {
                    Diagnostic::error(codes::DUPLICATE_FEATURE, feature.span, message)
                };
                self.diagnostics
                    .push(diagnostic.also(first.span, "first listed here"));
            }
            if self.known.contains(feature.name) {
                continue;
            }
            if self.known.iter().count() >= MAX_FEATURES && !self.told {
                self.told = true;
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::TOO_MANY_FEATURES,
                        feature.span,
                        format!("the schema has more than {MAX_FEATURES} different features"),
                    )
                    .help(format!(
                        "{} count among them, also when they are not used",
                        super::suggest::list(SPECIAL)
                    )),
                );
            }
            self.known.add(feature.name, ());
        }
    }
}
