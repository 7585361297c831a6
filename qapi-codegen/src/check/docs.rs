//! Documentation against definitions: everything that is documented exists, and what must be documented is.
//!
//! What passes is put into the schema, on the definition as a whole and on each member.

use std::sync::Arc;

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Comment, RawKind, RawSection};
use crate::ir::{Doc, DocText, Feature, ModuleId, Origin, Schema, Section, SectionKind, TypeKind};
use crate::lookup::{Lookup, Map, Set};
use crate::source::{LineIndex, Span};

use super::definitions::{Entity, Ids};
use super::modules::{Gathered, Pragma};
use super::names::Meta;
use super::shape::{Body, Data, RawDefinition, RawFeature, RawMember};
use super::suggest;
use super::types::Types;

/// Compares all documentation with what it documents.
pub(crate) fn check(raw: &[RawDefinition<'_>], pragma: &Pragma<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut scratch = Parts::default();
    // Where members are not what they seem to be: what is said of their names follows from that.
    let doubtful: Set<Span> = diagnostics
        .iter()
        .filter(|other| {
            [
                codes::MEMBER_CLASH,
                codes::VALUE_CLASH,
                codes::ALTERNATIVE_CLASH,
                codes::ARGUMENTS_TYPE,
                codes::BAD_BASE,
                codes::UNKNOWN_TYPE,
                codes::NO_DISCRIMINATOR,
            ]
            .contains(&other.code)
        })
        .map(|other| other.primary.span)
        .collect();
    for definition in raw {
        match definition.doc {
            Some(doc) if doc.damaged => {}
            Some(doc) => compare(definition, doc, pragma, &doubtful, &mut scratch, diagnostics),
            None if pragma.asks_for_docs() => diagnostics.push(
                Diagnostic::error(
                    codes::DOC_REQUIRED,
                    definition.name_span,
                    format!(
                        "{} '{}' has no documentation",
                        definition.meta.word(),
                        definition.name
                    ),
                )
                .help(format!(
                    "pragma 'doc-required' asks for a comment `##`, `# @{}:`, text, `##` right above",
                    definition.name
                )),
            ),
            None => {}
        }
    }
}

/// Puts the documentation of a schema without errors into it: on its modules, its definitions and their
/// members.
pub(crate) fn keep(
    gathered: &Gathered<'_>,
    raw: &[RawDefinition<'_>],
    types: &mut Types,
    lines: &LineIndex<'_>,
) {
    for (definition, ids) in raw.iter().zip(&types.ids) {
        if let Some(doc) = definition.doc {
            attach(&mut types.schema, *ids, doc, definition.module, lines);
        }
    }
    for (index, raw) in gathered.modules.iter().enumerate() {
        let Some(module) = types.schema.modules.get_mut(index) else {
            continue;
        };
        let id = ModuleId::from_index(index);
        module.free_docs = raw
            .free_docs
            .iter()
            .flat_map(|comment| &comment.sections)
            .map(|section| text(section, id, lines))
            .collect();
    }
}

/// Something that a definition has and documentation may describe.
#[derive(Clone, Copy)]
struct Part<'a> {
    name: &'a str,
    span: Span,
}

/// What documentation of a definition may describe: members and features, the latter of members, too.
#[derive(Default)]
struct Parts<'a> {
    members: Vec<Part<'a>>,
    features: Vec<Part<'a>>,
}

impl<'a> Parts<'a> {
    /// Whether the sections of a comment describe exactly these, in this order, as they nearly always do.
    fn are_described_in_order(&self, doc: &Comment<'_>) -> bool {
        let mut members = self.members.iter();
        let mut features = self.features.iter();
        for section in &doc.sections {
            let (list, name) = match section.kind {
                RawKind::Member(name) => (&mut members, name),
                RawKind::Feature(name) => (&mut features, name),
                _ => continue,
            };
            if list.next().is_none_or(|part| part.name != name) {
                return false;
            }
        }
        members.next().is_none() && features.next().is_none()
    }

    /// Takes the parts of a definition in place of what is there.
    fn fill(&mut self, definition: &'a RawDefinition<'_>) {
        self.members.clear();
        self.features.clear();
        self.add_features(&definition.features);
        match &definition.body {
            Body::Enum { values, .. } => {
                for value in values {
                    self.add_member(value.name, value.span);
                    self.add_features(&value.features);
                }
            }
            Body::Struct { members, .. } => self.add_members(members),
            Body::Alternate { alternatives } => {
                for alternative in alternatives {
                    self.add_member(alternative.name, alternative.span);
                }
            }
            Body::Union { base: data, .. } | Body::Command { data, .. } | Body::Event { data, .. } => {
                if let Data::Inline(members) = data {
                    self.add_members(members);
                }
            }
        }
    }

    fn add_member(&mut self, name: &'a str, span: Span) {
        self.members.push(Part { name, span });
    }

    fn add_members(&mut self, members: &'a [RawMember<'_>]) {
        for member in members {
            self.add_member(member.name, member.span);
            self.add_features(&member.features);
        }
    }

    /// There are 64 different features at most, so that a look at each is quick.
    fn add_features(&mut self, features: &'a [RawFeature<'_>]) {
        for feature in features {
            if !self.features.iter().any(|other| other.name == feature.name) {
                self.features.push(Part {
                    name: feature.name,
                    span: feature.span,
                });
            }
        }
    }
}

type Described<'d> = Lookup<&'d str, &'d RawSection<'d>>;

/// The described names that are none of `parts`, in the order of their descriptions.
fn strangers<'d>(described: &Described<'d>, parts: &[Part<'_>]) -> Vec<(&'d str, Span)> {
    let mut names: Lookup<&str, ()> = Lookup::with_capacity(parts.len());
    for part in parts {
        names.add(part.name, ());
    }
    described
        .iter()
        .filter(|(name, _)| !names.contains(name))
        .map(|(name, section)| (*name, section.span))
        .collect()
}

fn compare<'d>(
    definition: &'d RawDefinition<'_>,
    doc: &'d Comment<'_>,
    pragma: &Pragma<'_>,
    doubtful: &Set<Span>,
    parts: &mut Parts<'d>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some((symbol, symbol_span)) = doc.symbol else {
        return;
    };
    if symbol != definition.name {
        diagnostics.push(
            Diagnostic::error(
                codes::DOC_WRONG_SYMBOL,
                definition.name_span,
                format!(
                    "documentation is for '{symbol}', but this defines '{}'",
                    definition.name
                ),
            )
            .also(symbol_span, "the documentation")
            .help(format!(
                "write `# @{}:`, or move the comment to its definition",
                definition.name
            )),
        );
        return;
    }
    sections(definition, doc, diagnostics);
    parts.fill(definition);
    if !parts.are_described_in_order(doc) {
        differences(definition, doc, pragma, doubtful, parts, diagnostics);
    }
}

fn differences(
    definition: &RawDefinition<'_>,
    doc: &Comment<'_>,
    pragma: &Pragma<'_>,
    doubtful: &Set<Span>,
    Parts { members, features }: &Parts<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let role = match definition.meta {
        Meta::Enum => "value",
        Meta::Alternate => "alternative",
        Meta::Command => "argument",
        _ => "member",
    };
    let mut described = Described::default();
    let mut described_features = Described::default();
    for section in &doc.sections {
        match section.kind {
            RawKind::Member(name) => drop(described.add(name, section)),
            RawKind::Feature(name) => drop(described_features.add(name, section)),
            _ => {}
        }
    }
    // A description that was meant for another name makes one complaint, where the name is missing.
    let mut explained: Vec<Span> = Vec::new();
    let stray_members = strangers(&described, members);
    let lacking: Vec<&Part<'_>> = if pragma.excuses_documentation(definition.name) {
        Vec::new()
    } else {
        members
            .iter()
            .filter(|member| !described.contains(member.name))
            .collect()
    };
    for (at, member) in lacking.iter().enumerate() {
        let meant = match stray_members.as_slice() {
            // As many descriptions too many as there are too few: most likely they belong together.
            equally if lacking.len() == equally.len() => equally.get(at),
            several => suggest::nearest(member.name, several.iter().map(|(name, _)| *name))
                .and_then(|name| several.iter().find(|(other, _)| *other == name)),
        };
        let help = if described_features.contains(member.name) {
            format!("'{}' is described below `Features:`; move it above", member.name)
        } else if doc.sections.iter().any(|section| mentions(section, member.name)) {
            format!(
                "`@{}:` starts a description only after an empty line",
                member.name
            )
        } else if let Some((name, _)) = meant {
            format!(
                "the comment describes '{name}', which does not exist; is it '{}'?",
                member.name
            )
        } else {
            format!("add `# @{}: what it is` to the comment above", member.name)
        };
        let opening = Span {
            end: doc.span.start + 2,
            ..doc.span
        };
        let diagnostic = Diagnostic::error(
            codes::DOC_UNDOCUMENTED_MEMBER,
            member.span,
            format!("{role} '{}' lacks documentation", member.name),
        )
        .help(help);
        diagnostics.push(match meant {
            Some((_, span)) => {
                explained.push(*span);
                diagnostic.also(*span, "not the name of anything")
            }
            None => diagnostic.also(opening, "the comment"),
        });
    }
    let mut features_lack = false;
    for feature in features
        .iter()
        .filter(|feature| !described_features.contains(feature.name))
    {
        features_lack = true;
        let as_member = stray_members.iter().find(|(name, _)| *name == feature.name);
        let help = if as_member.is_some() {
            format!(
                "put `# Features:` and an empty line above the description of '{}'",
                feature.name
            )
        } else {
            format!(
                "add `# @{}: what it says` below a line `# Features:`",
                feature.name
            )
        };
        let diagnostic = Diagnostic::error(
            codes::DOC_UNDOCUMENTED_FEATURE,
            feature.span,
            format!("feature '{}' lacks documentation", feature.name),
        )
        .help(help);
        diagnostics.push(match as_member {
            Some((_, span)) => {
                explained.push(*span);
                diagnostic.also(*span, format!("described as if it were a {role}"))
            }
            None => diagnostic,
        });
    }
    let named = match &definition.body {
        Body::Union { base: data, .. } | Body::Command { data, .. } | Body::Event { data, .. } => {
            match data {
                Data::Named(name) => Some(name.span),
                Data::None | Data::Inline(_) => None,
            }
        }
        _ => None,
    };
    let discriminator = match &definition.body {
        Body::Union { discriminator, .. } => discriminator.map(|(_, span)| span),
        _ => None,
    };
    let is_doubtful = |span: Span| doubtful.contains(&span);
    // What lacks a description was described by another name, most likely.
    if definition.faulty
        || !lacking.is_empty()
        || named.is_some_and(is_doubtful)
        || discriminator.is_some_and(is_doubtful)
        || members.iter().any(|member| is_doubtful(member.span))
    {
        return;
    }
    let stray_members = stray_members
        .into_iter()
        .filter(|(_, span)| !explained.contains(span));
    unknown(stray_members, &described, members, role, definition, diagnostics);
    if features_lack {
        return;
    }
    let stray_features = strangers(&described_features, features).into_iter();
    unknown(
        stray_features,
        &described_features,
        features,
        "feature",
        definition,
        diagnostics,
    );
}

/// Complains of descriptions of what is not there.
fn unknown<'d>(
    strangers: impl Iterator<Item = (&'d str, Span)>,
    described: &Described<'d>,
    parts: &[Part<'_>],
    role: &str,
    definition: &RawDefinition<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let code = if role == "feature" {
        codes::DOC_UNKNOWN_FEATURE
    } else {
        codes::DOC_UNKNOWN_MEMBER
    };
    for (name, span) in strangers.filter(|(name, _)| !name.is_empty()) {
        // Names that are described and there are no candidates for what was meant.
        let open = parts
            .iter()
            .map(|part| part.name)
            .filter(|name| !described.contains(name));
        let help = suggest::did_you_mean(name, open).or_else(|| why_unknown(name, role, definition));
        diagnostics.push(
            Diagnostic::error(
                code,
                span,
                format!(
                    "documented {role} '{name}' does not exist in {} '{}'",
                    definition.meta.word(),
                    definition.name
                ),
            )
            .also(definition.name_span, "the definition")
            .maybe_help(help),
        );
    }
}

fn why_unknown(name: &str, role: &str, definition: &RawDefinition<'_>) -> Option<String> {
    if name.contains(' ') {
        return Some(
            "a paragraph that starts with `@` and has a colon is read as a description; start it otherwise"
                .to_owned(),
        );
    }
    if role == "feature" {
        return None;
    }
    match &definition.body {
        Body::Command {
            data: Data::Named(data),
            ..
        }
        | Body::Event {
            data: Data::Named(data),
            ..
        } => Some(format!("members of '{}' are documented there", data.name)),
        Body::Struct { base: Some(base), .. } => {
            Some(format!("members of base '{}' are documented there", base.name))
        }
        Body::Union {
            base: Data::Named(base),
            ..
        } => Some(format!(
            "members of base '{}' are documented there; branches are not documented",
            base.name
        )),
        Body::Union { branches, .. } if branches.iter().any(|branch| branch.name == name) => {
            Some("branches of a union are not documented".to_owned())
        }
        _ if definition.features.iter().any(|feature| feature.name == name) => {
            Some("features are described below a line `# Features:`".to_owned())
        }
        _ => None,
    }
}

/// Whether a text has `@name:` at the start of one of its lines, where it says nothing to us.
fn mentions(section: &RawSection<'_>, name: &str) -> bool {
    section.text.render().lines().any(|line| {
        line.trim_start()
            .strip_prefix('@')
            .and_then(|line| line.strip_prefix(name))
            .is_some_and(|line| line.starts_with(':'))
    })
}

fn sections(definition: &RawDefinition<'_>, doc: &Comment<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for section in &doc.sections {
        let word = match section.kind {
            RawKind::Returns => "Returns",
            RawKind::Errors => "Errors",
            _ => continue,
        };
        match &definition.body {
            Body::Command { returns, .. } => {
                if word == "Returns" && returns.is_none() && !definition.faulty {
                    diagnostics.push(
                        Diagnostic::error(
                            codes::DOC_NO_RETURNS,
                            section.span,
                            format!(
                                "`Returns:` section, but command '{}' returns nothing",
                                definition.name
                            ),
                        )
                        .help("drop the section, or add 'returns' to the command"),
                    );
                }
            }
            _ => diagnostics.push(
                Diagnostic::error(
                    codes::DOC_COMMAND_SECTION,
                    section.span,
                    format!(
                        "`{word}:` section is only for commands, and this documents {}",
                        definition.meta.with_article()
                    ),
                )
                .help("say it in a paragraph without a tag"),
            ),
        }
    }
}

fn text(section: &RawSection<'_>, module: ModuleId, lines: &LineIndex<'_>) -> DocText {
    DocText {
        text: Arc::from(section.text.render()),
        origin: Origin {
            module,
            span: section.span,
            at: lines.at(section.span),
        },
    }
}

/// Puts a comment into the schema.
fn attach(schema: &mut Schema, ids: Ids, doc: &Comment<'_>, module: ModuleId, lines: &LineIndex<'_>) {
    let sections: Vec<Section> = doc
        .sections
        .iter()
        .map(|section| Section {
            kind: section.kind.into(),
            text: text(section, module, lines),
        })
        .collect();
    let members: Map<&str, &DocText> = sections
        .iter()
        .filter_map(|section| match &section.kind {
            SectionKind::Member(name) => Some((name.as_str(), &section.text)),
            _ => None,
        })
        .collect();
    let features: Map<&str, &DocText> = sections
        .iter()
        .filter_map(|section| match &section.kind {
            SectionKind::Feature(name) => Some((name.as_str(), &section.text)),
            _ => None,
        })
        .collect();
    let of_features = |list: &mut Vec<Feature>| {
        for feature in list {
            feature.doc = features.get(feature.name.as_str()).map(|text| (*text).clone());
        }
    };
    let of_member = |name: &str| members.get(name).map(|text| (*text).clone());
    let types = match ids.entity {
        Entity::Type(id) => [Some(id), ids.implicit],
        _ => [ids.implicit, None],
    };
    for id in types.into_iter().flatten() {
        let Some(ty) = schema.types.get_mut(id.index()) else {
            continue;
        };
        of_features(&mut ty.features);
        match &mut ty.kind {
            TypeKind::Enum(found) => {
                for value in &mut found.values {
                    value.doc = of_member(&value.name);
                    of_features(&mut value.features);
                }
            }
            TypeKind::Struct(found) => {
                for member in &mut found.members {
                    member.doc = of_member(&member.name);
                    of_features(&mut member.features);
                }
            }
            TypeKind::Alternate(found) => {
                for alternative in &mut found.alternatives {
                    alternative.doc = of_member(&alternative.name);
                }
            }
            TypeKind::Union(_) => {}
        }
    }
    match ids.entity {
        Entity::Command(id) => {
            if let Some(command) = schema.commands.get_mut(id.index()) {
                of_features(&mut command.features);
            }
        }
        Entity::Event(id) => {
            if let Some(event) = schema.events.get_mut(id.index()) {
                of_features(&mut event.features);
            }
        }
        Entity::Type(_) => {}
    }
    let origin = Origin {
        module,
        span: doc.span,
        at: lines.at(doc.span),
    };
    let doc = Some(Doc { sections, origin });
    match ids.entity {
        Entity::Type(id) => {
            if let Some(ty) = schema.types.get_mut(id.index()) {
                ty.doc = doc;
            }
        }
        Entity::Command(id) => {
            if let Some(command) = schema.commands.get_mut(id.index()) {
                command.doc = doc;
            }
        }
        Entity::Event(id) => {
            if let Some(event) = schema.events.get_mut(id.index()) {
                event.doc = doc;
            }
        }
    }
}
