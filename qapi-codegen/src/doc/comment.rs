//! A documentation comment: its symbol and its sections.
//!
//! Sections are told apart by how a line starts, and only there where a paragraph can start: `@name:`,
//! `Features:`, `Returns:` and the like. In the middle of a paragraph they are text.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::SectionKind;
use crate::lookup::Lookup;
use crate::source::{FileId, Span};

use super::line::{Line, Lines, texts};

/// A comment as it was read. Its texts stay where they are in the file until somebody asks for them.
#[derive(Debug)]
pub(crate) struct Comment<'a> {
    /// From its opening to its closing line.
    pub span: Span,
    /// What it documents; nothing for free-form documentation.
    pub symbol: Option<(&'a str, Span)>,
    /// Its sections in order.
    pub sections: Vec<RawSection<'a>>,
    /// Something in it was wrong, so that parts may be missing.
    pub damaged: bool,
    /// Its closing line is there.
    pub closed: bool,
}

impl Comment<'_> {
    /// A comment of which nothing is known.
    pub fn nothing(span: Span) -> Self {
        Comment {
            span,
            symbol: None,
            sections: Vec::new(),
            damaged: true,
            closed: false,
        }
    }

    /// The opening `##`.
    pub fn opening(&self) -> Span {
        Span {
            end: self.span.start + 2,
            ..self.span
        }
    }
}

/// A section as it was read.
#[derive(Debug)]
pub(crate) struct RawSection<'a> {
    /// What it is about.
    pub kind: RawKind<'a>,
    /// Its tag, or the name that it is about, or its first line.
    pub span: Span,
    /// Its text.
    pub text: RawText<'a>,
}

/// What a section is about: a [`SectionKind`] that borrows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawKind<'a> {
    Plain,
    Member(&'a str),
    Feature(&'a str),
    Returns,
    Errors,
    Since,
    Todo,
}

impl From<RawKind<'_>> for SectionKind {
    fn from(kind: RawKind<'_>) -> SectionKind {
        match kind {
            RawKind::Plain => SectionKind::Plain,
            RawKind::Member(name) => SectionKind::Member(name.to_owned()),
            RawKind::Feature(name) => SectionKind::Feature(name.to_owned()),
            RawKind::Returns => SectionKind::Returns,
            RawKind::Errors => SectionKind::Errors,
            RawKind::Since => SectionKind::Since,
            RawKind::Todo => SectionKind::Todo,
        }
    }
}

/// Where the text of a section is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawText<'a> {
    /// What stands behind the tag or name on its line.
    first: &'a str,
    /// The lines below, from the `#` of the first to the end of the last; neither end is blank but for what
    /// stands between the first line and these.
    lines: &'a str,
    layout: Layout,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Layout {
    /// The indentation that all lines have in common is not part of the text.
    #[default]
    Indented,
    /// Paragraphs, one empty line between them.
    Paragraphs,
    /// As it is.
    Free,
}

impl RawText<'_> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.lines.is_empty()
    }

    /// The lines without their `# `, with `\n` between them.
    pub fn render(&self) -> String {
        let common = match self.layout {
            Layout::Indented => texts(self.lines)
                .filter(|line| !line.is_empty())
                .map(|line| line.len() - line.trim_start_matches(' ').len())
                .min()
                .unwrap_or(0),
            Layout::Paragraphs | Layout::Free => 0,
        };
        let mut text = String::with_capacity(self.first.len() + self.lines.len());
        text.push_str(self.first);
        let mut blank = false;
        for line in texts(self.lines) {
            if line.is_empty() && blank && self.layout == Layout::Paragraphs {
                continue;
            }
            blank = line.is_empty();
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line.get(common..).unwrap_or(""));
        }
        text
    }
}

/// The tags of sections, and what they make.
const TAGS: [(&str, Tag); 8] = [
    ("Returns", Tag::Section(RawKind::Returns)),
    ("Errors", Tag::Section(RawKind::Errors)),
    ("Since", Tag::Section(RawKind::Since)),
    ("TODO", Tag::Section(RawKind::Todo)),
    ("Notes", Tag::Old("a `.. note::` directive")),
    ("Note", Tag::Old("a `.. note::` directive")),
    ("Examples", Tag::Old("a `.. qmp-example::` directive")),
    ("Example", Tag::Old("a `.. qmp-example::` directive")),
];

#[derive(Clone, Copy)]
enum Tag {
    Section(RawKind<'static>),
    /// No longer a section; what to write in its place.
    Old(&'static str),
}

/// Reads the comment at `span`, whose text is `text`. `next` is what follows it, for a comment that is
/// not closed.
pub(crate) fn read<'a>(
    span: Span,
    text: &'a str,
    next: Span,
    diagnostics: &mut Vec<Diagnostic>,
) -> Comment<'a> {
    let file: FileId = span.file;
    let mut reader = Reader {
        lines: Lines::new(file, text, span.start, diagnostics),
        sections: Vec::new(),
        described: Lookup::default(),
        paragraphs: None,
        empties: Vec::new(),
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
    if !reader.lines.damaged {
        for diagnostic in std::mem::take(&mut reader.empties) {
            reader.lines.report(diagnostic);
        }
    }
    Comment {
        span,
        symbol,
        sections: reader.sections,
        damaged: reader.lines.damaged,
        closed: reader.lines.closed,
    }
}

struct Reader<'a, 'd> {
    lines: Lines<'a, 'd>,
    sections: Vec<RawSection<'a>>,
    /// The members (false) and features (true) that were described so far, and where.
    described: Lookup<(bool, &'a str), Span>,
    /// Where the section of plain paragraphs that was made last begins.
    paragraphs: Option<Line<'a>>,
    /// Complaints about sections without text.
    empties: Vec<Diagnostic>,
}

impl<'a> Reader<'a, '_> {
    fn comment(&mut self) -> Option<(&'a str, Span)> {
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
        Some((name, name_span))
    }

    fn free_form(&mut self, first: Line<'a>) {
        let mut line = Some(first);
        let span = self.lines.line_span(&first);
        // The first and the last line that are not blank.
        let mut ends: Option<(Line<'a>, Line<'a>)> = None;
        while let Some(current) = line {
            if let Some((name, _)) = at_name(current.text) {
                let name_span = self.lines.span(&current, 0, name.len() + 2);
                let diagnostic = Diagnostic::error(
                    codes::DOC_FREE_MEMBER,
                    name_span,
                    format!("`@{name}:` is not allowed in free-form documentation"),
                );
                let help = if ends.is_none() {
                    "to document a definition, let its name stand on the very first line of the comment"
                } else {
                    "documentation of a definition starts with a line `# @Name:` right below `##`"
                };
                self.lines.report(diagnostic.help(help));
                self.lines.give_up();
                break;
            }
            if !current.is_blank() {
                ends = Some((ends.map_or(current, |(first, _)| first), current));
            }
            line = self.lines.next();
        }
        if let Some((first, last)) = ends {
            let text = RawText {
                first: "",
                lines: self.lines.piece(&first, &last),
                layout: Layout::Free,
            };
            let kind = RawKind::Plain;
            self.sections.push(RawSection { kind, span, text });
        }
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
            // The comment breaks off, which is told elsewhere.
            None if !self.lines.closed => None,
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
                RawKind::Feature(name)
            } else {
                RawKind::Member(name)
            };
            if !name.is_empty()
                && let Some(other) = self.described.add((features, name), name_span).copied()
            {
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
            if text.is_empty() {
                let example = format!("`@{name}: what it is about`");
                self.empty(span, format!("no text behind `@{name}:`"), example);
            }
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
        if kind != RawKind::Todo
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
            let help = "write the text behind the colon, and further lines indented below it".to_owned();
            self.empty(span, format!("no text behind `{word}:`"), help);
        }
        self.sections.push(RawSection { kind, span, text });
        next
    }

    /// Keeps the complaint about a missing text: in a comment with other mistakes it may follow from them.
    fn empty(&mut self, span: Span, message: String, help: String) {
        let diagnostic = Diagnostic::error(codes::DOC_EMPTY_SECTION, span, message);
        self.empties.push(diagnostic.help(help));
    }

    /// The text behind a tag or a name: the rest of its line, and the indented lines below it. Gives back
    /// the first line that is no part of it.
    fn indented(&mut self, first: &'a str) -> (RawText<'a>, Option<Line<'a>>) {
        let mut text = RawText {
            first,
            ..RawText::default()
        };
        let mut line = self.lines.next();
        // Empty lines between the first line and those below belong to the text only if it has a first line.
        let mut from = line;
        while let Some(current) = line
            && current.is_blank()
        {
            line = self.lines.next();
        }
        let Some(start) = line else {
            return (text, None);
        };
        if start.indent == 0 {
            return (text, line);
        }
        if first.is_empty() {
            from = line;
        }
        let from = from.unwrap_or(start);
        let mut last = start;
        // The language notices lost indentation on the second line only. Further down, a line that is
        // indented less simply ends the text, whether there is an empty line before it or not.
        let mut second = true;
        let next = loop {
            let Some(current) = self.lines.next() else {
                break None;
            };
            if at_name(current.text).is_some() {
                break Some(current);
            }
            if !current.is_blank() && current.indent < start.indent {
                if !second {
                    self.mention_indent(&current, &start, &last);
                    break Some(current);
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
            second = false;
            if !current.is_blank() {
                last = current;
            }
        };
        text.lines = self.lines.piece(&from, &last);
        (text, next)
    }

    /// A line that is indented, but less than the text right above, rather looks like a slip.
    fn mention_indent(&mut self, line: &Line<'a>, first: &Line<'a>, above: &Line<'a>) {
        let touches = self.lines.piece(above, line).lines().count() <= 2;
        if touches && line.indent > 0 {
            let (span, wanted) = (self.lines.line_span(line), first.indent);
            let first = self.lines.line_span(first);
            self.lines.warn(
                Diagnostic::warning(
                    codes::DOC_INDENT,
                    span,
                    format!("this line ends the text above, which is indented by {wanted} spaces"),
                )
                .also(first, "this line set the indentation")
                .help("indent all lines alike, or put an empty line before what does not belong to it"),
            );
        }
    }

    /// A paragraph without a tag: everything up to an empty line.
    fn paragraph(&mut self, first: Line<'a>) -> Option<Line<'a>> {
        let mut last = first;
        let mut line = Some(first);
        while let Some(current) = line
            && !current.is_blank()
        {
            last = current;
            line = self.lines.next();
        }
        match self.sections.last_mut() {
            Some(section) if section.kind == RawKind::Plain => {
                // Only empty lines stand between the paragraphs.
                let begin = self.paragraphs.unwrap_or(first);
                section.text.lines = self.lines.piece(&begin, &last);
            }
            _ => {
                self.paragraphs = Some(first);
                self.sections.push(RawSection {
                    kind: RawKind::Plain,
                    span: self.lines.line_span(&first),
                    text: RawText {
                        first: "",
                        lines: self.lines.piece(&first, &last),
                        layout: Layout::Paragraphs,
                    },
                });
            }
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
        (!rest.starts_with(':')).then(|| (*tag, *word, rest.trim_start_matches(' ')))
    })
}
