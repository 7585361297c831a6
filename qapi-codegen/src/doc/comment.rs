//! A documentation comment: its symbol and its sections.
//!
//! Sections are told apart by how a line starts, and only there where a paragraph can start: `@name:`,
//! `Features:`, `Returns:` and the like. In the middle of a paragraph they are text.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::SectionKind;
use crate::source::{FileId, Span};

use super::line::{Line, Lines};

/// A comment as it was read.
#[derive(Debug)]
pub(crate) struct Comment {
    /// From its opening to its closing line.
    pub span: Span,
    /// What it documents; nothing for free-form documentation.
    pub symbol: Option<(String, Span)>,
    /// Its sections in order.
    pub sections: Vec<RawSection>,
    /// Something in it was wrong, so that parts may be missing.
    pub damaged: bool,
}

/// A section as it was read.
#[derive(Debug)]
pub(crate) struct RawSection {
    /// What it is about.
    pub kind: SectionKind,
    /// Its tag, or the name that it is about, or its first line.
    pub span: Span,
    /// Its text.
    pub text: String,
}

/// The tags of sections, and what they make.
const TAGS: [(&str, Tag); 8] = [
    ("Returns", Tag::Section(SectionKind::Returns)),
    ("Errors", Tag::Section(SectionKind::Errors)),
    ("Since", Tag::Section(SectionKind::Since)),
    ("TODO", Tag::Section(SectionKind::Todo)),
    ("Notes", Tag::Old("a `.. note::` directive")),
    ("Note", Tag::Old("a `.. note::` directive")),
    ("Examples", Tag::Old("a `.. qmp-example::` directive")),
    ("Example", Tag::Old("a `.. qmp-example::` directive")),
];

#[derive(Clone)]
enum Tag {
    Section(SectionKind),
    /// No longer a section; what to write in its place.
    Old(&'static str),
}

/// Reads the comment at `span`, whose text is `text`. `next` is what follows it, for a comment that is
/// not closed.
pub(crate) fn read(span: Span, text: &str, next: Span, diagnostics: &mut Vec<Diagnostic>) -> Comment {
    let file: FileId = span.file;
    let mut reader = Reader {
        lines: Lines::new(file, text, span.start, diagnostics),
        sections: Vec::new(),
    };
    reader.lines.opening();
    let symbol = reader.comment();
    if !reader.lines.closed {
        let opening = Span {
            end: span.start + 2,
            ..span
        };
        reader.lines.report(
            Diagnostic::error(
                codes::DOC_NOT_CLOSED,
                next,
                "documentation comment must end with `##`",
            )
            .also(opening, "the comment starts here")
            .help("put a line `##` below the last line of the comment"),
        );
    }
    let damaged = reader.lines.damaged;
    let mut sections = reader.sections;
    if !damaged {
        sections.retain(|section| section.kind != SectionKind::Plain || !section.text.is_empty());
    }
    Comment {
        span,
        symbol,
        sections,
        damaged,
    }
}

struct Reader<'a, 'd> {
    lines: Lines<'a, 'd>,
    sections: Vec<RawSection>,
}

impl<'a> Reader<'a, '_> {
    fn comment(&mut self) -> Option<(String, Span)> {
        let first = self.lines.next()?;
        if !first.text.starts_with('@') {
            self.free_form(first);
            return None;
        }
        let span = self.lines.line_span(&first);
        let name = first.text.get(1..).unwrap_or("");
        let name = match name.strip_suffix(':') {
            Some(name) => name,
            None => {
                let colon = name.find(':');
                let help = match colon {
                    Some(_) => "the text starts on a line of its own, below an empty one",
                    None => "add a colon: `@name:`",
                };
                self.lines.report(
                    Diagnostic::error(
                        codes::DOC_MISSING_COLON,
                        span,
                        "the line that names the definition must end with `:`",
                    )
                    .help(help),
                );
                name.split([':', ' ']).next().unwrap_or(name)
            }
        };
        if name.is_empty() {
            self.lines.report(
                Diagnostic::error(codes::DOC_EMPTY_SYMBOL, span, "a name is missing behind `@`")
                    .help("`@Name:` names the definition that follows the comment"),
            );
        }
        let name_span = self.lines.span(&first, 1, name.len());
        self.definition();
        self.finish();
        Some((name.to_owned(), name_span))
    }

    fn free_form(&mut self, first: Line<'a>) {
        let mut line = Some(first);
        let mut text = TextBuilder::default();
        let span = self.lines.line_span(&first);
        while let Some(current) = line {
            if let Some((name, _)) = at_name(current.text) {
                let name_span = self.lines.span(&current, 0, name.len() + 2);
                let mut diagnostic = Diagnostic::error(
                    codes::DOC_FREE_MEMBER,
                    name_span,
                    format!("`@{name}:` is not allowed in free-form documentation"),
                );
                if text.is_blank() {
                    diagnostic = diagnostic.help(
                        "to document a definition, let its name stand on the very first line of the comment",
                    );
                } else {
                    diagnostic = diagnostic
                        .help("documentation of a definition starts with a line `# @Name:` right below `##`");
                }
                self.lines.report(diagnostic);
                self.lines.give_up();
                break;
            }
            text.push(current.text);
            line = self.lines.next();
        }
        self.sections.push(RawSection {
            kind: SectionKind::Plain,
            span,
            text: text.finish(),
        });
    }

    /// What is below the line with the symbol.
    fn definition(&mut self) {
        // The section that ended the part in which members may be described.
        let mut members_over: Option<Span> = None;
        let mut features: Option<Span> = None;
        let mut line = self.lines.next();
        while let Some(current) = line {
            if current.is_blank() {
                line = self.lines.next();
                continue;
            }
            let here = self.lines.line_span(&current);
            if current.text == "Features:" {
                if let Some(first) = features {
                    self.lines.report(
                        Diagnostic::error(codes::DOC_DUPLICATE_SECTION, here, "second `Features:` line")
                            .also(first, "first here"),
                    );
                }
                features = Some(here);
                line = self.features(here);
                members_over = Some(here);
            } else if let Some((name, _)) = at_name(current.text) {
                if let Some(section) = members_over {
                    let span = self.lines.span(&current, 0, name.len() + 2);
                    self.lines.report(
                        Diagnostic::error(
                            codes::DOC_LATE_MEMBER,
                            span,
                            format!("description of `@{name}:` follows a section"),
                        )
                        .also(section, "this ended the descriptions of members")
                        .help(
                            "describe all members together, above sections, and features below `Features:`",
                        ),
                    );
                }
                line = self.descriptions(current, false);
                members_over = Some(line.map_or(here, |line| self.lines.line_span(&line)));
            } else if let Some((tag, word, text)) = tagged(current.text) {
                line = self.tagged(&current, tag, word, text);
                members_over = Some(here);
            } else {
                self.mention_misspelt(&current);
                line = self.paragraph(current);
            }
        }
    }

    fn features(&mut self, heading: Span) -> Option<Line<'a>> {
        let mut line = self.lines.next();
        while let Some(current) = line
            && current.is_blank()
        {
            line = self.lines.next();
        }
        match line {
            Some(current) if at_name(current.text).is_some() => self.descriptions(current, true),
            other => {
                let span = other.map_or(heading, |line| self.lines.line_span(&line));
                // At the end of the comment the place is that of its closing line.
                let span = if other.is_none() {
                    self.lines.end_of_last_line()
                } else {
                    span
                };
                self.lines.report(
                    Diagnostic::error(codes::DOC_NO_FEATURES, span, "descriptions of features expected")
                        .also(heading, "below this line")
                        .help("`@name: what the feature is about`, one each"),
                );
                other
            }
        }
    }

    /// A run of `@name: text` descriptions. Gives back the first line behind it.
    fn descriptions(&mut self, first: Line<'a>, features: bool) -> Option<Line<'a>> {
        let mut line = Some(first);
        while let Some(current) = line {
            let Some((name, text)) = at_name(current.text) else {
                break;
            };
            let span = self.lines.span(&current, 0, name.len() + 2);
            let name_span = self.lines.span(&current, 1, name.len());
            if name.is_empty() {
                self.lines.report(
                    Diagnostic::error(codes::DOC_EMPTY_NAME, span, "a name is missing behind `@`")
                        .help("`@name:` describes the member, argument, value or feature `name`"),
                );
            }
            let kind = if features {
                SectionKind::Feature(name.to_owned())
            } else {
                SectionKind::Member(name.to_owned())
            };
            if let Some(other) = self
                .sections
                .iter()
                .find(|section| section.kind == kind && !name.is_empty())
            {
                let other = other.span;
                let what = if features { "feature " } else { "" };
                self.lines.report(
                    Diagnostic::error(
                        codes::DOC_DUPLICATE_MEMBER,
                        name_span,
                        format!("{what}'{name}' is described twice"),
                    )
                    .also(other, "first described here"),
                );
            }
            let (text, next) = self.indented(text);
            self.sections.push(RawSection {
                kind,
                span: name_span,
                text,
            });
            line = next;
        }
        line
    }

    fn tagged(&mut self, line: &Line<'a>, tag: Tag, word: &str, text: &'a str) -> Option<Line<'a>> {
        let span = self.lines.span(line, 0, word.len() + 1);
        let kind = match tag {
            Tag::Section(kind) => kind,
            Tag::Old(instead) => {
                self.lines.report(
                    Diagnostic::error(
                        codes::DOC_OLD_SECTION,
                        span,
                        format!("there is no section `{word}:` any more"),
                    )
                    .help(format!("write {instead}")),
                );
                return self.indented(text).1;
            }
        };
        if kind != SectionKind::Todo
            && let Some(first) = self.sections.iter().find(|section| section.kind == kind)
        {
            let first = first.span;
            self.lines.report(
                Diagnostic::error(
                    codes::DOC_DUPLICATE_SECTION,
                    span,
                    format!("second `{word}:` section"),
                )
                .also(first, "first here"),
            );
        }
        let (text, next) = self.indented(text);
        if text.is_empty() {
            self.lines.report(
                Diagnostic::error(
                    codes::DOC_EMPTY_SECTION,
                    span,
                    format!("no text behind `{word}:`"),
                )
                .help("write the text behind the colon, and further lines indented below it"),
            );
        }
        self.sections.push(RawSection { kind, span, text });
        next
    }

    /// The text behind a tag or a name: the rest of its line, and the indented lines below it. Gives back
    /// the first line that is no part of it.
    fn indented(&mut self, first: &'a str) -> (String, Option<Line<'a>>) {
        let mut text = TextBuilder::default();
        let mut body = TextBuilder::default();
        text.push(first);
        let mut line = self.lines.next();
        while let Some(current) = line
            && current.is_blank()
        {
            body.push("");
            line = self.lines.next();
        }
        let Some(start) = line else {
            return (text.finish_with(body), None);
        };
        if start.indent == 0 {
            return (text.finish_with(body), line);
        }
        body.push(start.text);
        let mut blank_before = false;
        loop {
            let Some(current) = self.lines.next() else {
                return (text.finish_with(body), None);
            };
            if at_name(current.text).is_some() {
                return (text.finish_with(body), Some(current));
            }
            if !current.is_blank() && current.indent < start.indent {
                if blank_before {
                    return (text.finish_with(body), Some(current));
                }
                let span = self.lines.line_span(&current);
                let wanted = start.indent;
                let first = self.lines.line_span(&start);
                self.lines.report(
                    Diagnostic::error(
                        codes::DOC_INDENT,
                        span,
                        format!("unexpected de-indent: at least {wanted} spaces are expected"),
                    )
                    .also(first, "this line set the indentation")
                    .help("indent all lines alike, or put an empty line before what does not belong to it"),
                );
            }
            blank_before = current.is_blank();
            body.push(current.text);
        }
    }

    /// A paragraph without a tag: everything up to an empty line.
    fn paragraph(&mut self, first: Line<'a>) -> Option<Line<'a>> {
        let span = self.lines.line_span(&first);
        let mut text = String::new();
        let mut line = Some(first);
        while let Some(current) = line
            && !current.is_blank()
        {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(current.text);
            line = self.lines.next();
        }
        match self.sections.last_mut() {
            Some(last) if last.kind == SectionKind::Plain => {
                last.text.push_str("\n\n");
                last.text.push_str(&text);
            }
            _ => self.sections.push(RawSection {
                kind: SectionKind::Plain,
                span,
                text,
            }),
        }
        line
    }

    /// `Return:` and `since:` are ordinary paragraphs to the language. Nothing to refuse; kept as text.
    fn mention_misspelt(&mut self, line: &Line<'a>) {
        let Some((word, _)) = line.text.split_once(':') else {
            return;
        };
        let meant = match word {
            "returns" | "Return" | "return" => "Returns",
            "since" => "Since",
            "errors" | "Error" => "Errors",
            "features" | "Feature" => "Features",
            "Todo" | "todo" => "TODO",
            _ => return,
        };
        if line
            .text
            .get(word.len()..)
            .is_some_and(|rest| rest.starts_with("::"))
        {
            return;
        }
        let span = self.lines.span(line, 0, word.len() + 1);
        self.lines.warn(
            Diagnostic::warning(
                codes::DOC_OLD_SECTION,
                span,
                format!("`{word}:` is read as plain text"),
            )
            .help(format!("the section is spelt `{meant}:`")),
        );
    }

    /// Blank lines at the ends of sections say nothing.
    fn finish(&mut self) {
        for section in &mut self.sections {
            let trimmed = section.text.trim_matches('\n');
            if trimmed.len() != section.text.len() {
                section.text = trimmed.to_owned();
            }
        }
    }
}

/// `@name: text`: the name and the text.
fn at_name(text: &str) -> Option<(&str, &str)> {
    let (name, text) = text.strip_prefix('@')?.split_once(':')?;
    Some((name, text.trim_start_matches(' ')))
}

/// `Returns: text`: the tag, its word and the text. Two colons are rST's own.
fn tagged(text: &str) -> Option<(Tag, &'static str, &str)> {
    if !text.starts_with(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    TAGS.iter().find_map(|(word, tag)| {
        let rest = text.strip_prefix(word)?.strip_prefix(':')?;
        (!rest.starts_with(':')).then(|| (tag.clone(), *word, rest.trim_start_matches(' ')))
    })
}

/// Collects lines, and takes off the indentation that all have in common.
#[derive(Default)]
struct TextBuilder<'a> {
    lines: Vec<&'a str>,
}

impl<'a> TextBuilder<'a> {
    fn push(&mut self, line: &'a str) {
        self.lines.push(line);
    }

    fn is_blank(&self) -> bool {
        self.lines.iter().all(|line| line.is_empty())
    }

    fn finish(self) -> String {
        self.lines.join("\n").trim_matches('\n').to_owned()
    }

    /// This text, then the lines of `body` without their common indentation.
    fn finish_with(self, body: TextBuilder<'a>) -> String {
        let common = body
            .lines
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| line.len() - line.trim_start_matches(' ').len())
            .min()
            .unwrap_or(0);
        let mut text = self.lines.join("\n");
        for line in body.lines {
            text.push('\n');
            text.push_str(line.get(common..).unwrap_or(""));
        }
        let trimmed = text.trim_matches('\n');
        if trimmed.len() == text.len() {
            text
        } else {
            trimmed.to_owned()
        }
    }
}
