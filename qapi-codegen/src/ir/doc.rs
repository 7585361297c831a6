//! Documentation as it reaches the back ends.
//!
//! Texts are kept as the author wrote them, without the comment's `# ` and without common indentation.
//! [`DocText::markdown`] turns the rST subset that schemas use into what rustdoc reads.

use std::sync::Arc;

use super::Origin;

/// The documentation of one definition.
#[derive(Debug, Clone)]
pub struct Doc {
    /// The sections in the order in which they are written, those of members and features included.
    pub sections: Vec<Section>,
    /// Where the comment begins.
    pub origin: Origin,
}

/// A section of a documentation comment.
#[derive(Debug, Clone)]
pub struct Section {
    /// What it is about.
    pub kind: SectionKind,
    /// What it says.
    pub text: DocText,
}

/// What a section is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Text without a tag: overview, details, notes, examples.
    Plain,
    /// `@name:` a member, argument, enum value or alternative.
    Member(String),
    /// `@name:` below `Features:`
    Feature(String),
    /// `Returns:`
    Returns,
    /// `Errors:`
    Errors,
    /// `Since:`
    Since,
    /// `TODO:`, which is for developers and is not shown.
    Todo,
}

/// A piece of documentation. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocText {
    /// Its lines, with `\n` between them and none at the end; no blank line at either end.
    pub text: Arc<str>,
    /// Where its first line stands.
    pub origin: Origin,
}

impl Doc {
    /// The text without a tag, piece by piece.
    pub fn plain(&self) -> impl Iterator<Item = &DocText> {
        self.sections
            .iter()
            .filter(|section| section.kind == SectionKind::Plain)
            .map(|section| &section.text)
    }

    /// The section of this kind.
    pub fn section(&self, kind: &SectionKind) -> Option<&DocText> {
        self.sections
            .iter()
            .find(|section| section.kind == *kind)
            .map(|section| &section.text)
    }

    /// What `Returns:` says.
    pub fn returns(&self) -> Option<&DocText> {
        self.section(&SectionKind::Returns)
    }

    /// What `Errors:` says.
    pub fn errors(&self) -> Option<&DocText> {
        self.section(&SectionKind::Errors)
    }

    /// What `Since:` says: `1.3`
    pub fn since(&self) -> Option<&str> {
        self.section(&SectionKind::Since).map(|text| &*text.text)
    }
}

impl DocText {
    /// The text as Markdown, for rustdoc. `link` gives the target of a reference to something of the
    /// schema (`@name`), or nothing for a plain code span.
    pub fn markdown(&self, link: &dyn Fn(&str) -> Option<String>) -> String {
        crate::doc::markdown::render(&self.text, link)
    }
}
