//! Tokens to values.
//!
//! The parser reports a mistake where it meets the token that does not fit, and reads on. Small mistakes (a
//! missing or a surplus comma, a missing colon) are mended in place. When the brackets cannot be trusted any
//! more it gives up on the definition and goes on with the next one that starts a line; the names of
//! definitions that were lost that way are kept, so that uses of them draw no complaint.

use std::borrow::Cow;

use crate::ast::{Entry, Expression, File, Item, Object, Value, ValueKind};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lex::{Kind, Token, lex};
use crate::limits::MAX_NESTING;
use crate::lookup::Set;
use crate::source::{FileId, Span};

/// Above this many keys a set finds duplicates, below it a look at each is quicker.
const FEW_KEYS: usize = 12;

/// Reads one file.
pub fn parse<'a>(file: FileId, text: &'a str, diagnostics: &mut Vec<Diagnostic>) -> File<'a> {
    let tokens = lex(file, text, diagnostics);
    let mut parser = Parser {
        file,
        text,
        tokens: &tokens,
        at: 0,
        depth: 0,
        damaged: false,
        quiet_until: 0,
        entries: Vec::new(),
        values: Vec::new(),
        diagnostics,
        out: File::default(),
    };
    parser.run();
    parser.out
}

struct Parser<'a, 't, 'd> {
    file: FileId,
    text: &'a str,
    tokens: &'t [Token],
    at: usize,
    depth: usize,
    damaged: bool,
    /// The end of a line about which enough was said: what else does not fit there follows from it.
    quiet_until: u32,
    /// The members of the objects that are being read, those of the innermost last; so each object gets as
    /// much room as it needs and no more.
    entries: Vec<Entry<'a>>,
    /// The elements of the lists that are being read, likewise.
    values: Vec<Value<'a>>,
    diagnostics: &'d mut Vec<Diagnostic>,
    out: File<'a>,
}

/// The brackets cannot be trusted: the definition is given up. The mistake was reported.
struct Lost;

impl<'a> Parser<'a, '_, '_> {
    fn run(&mut self) {
        loop {
            let token = self.token();
            match token.kind {
                Kind::End => return,
                Kind::Doc => {
                    self.at += 1;
                    let next = self.span(self.token());
                    self.out.items.push(Item::Doc {
                        span: self.span(token),
                        next,
                    });
                }
                Kind::OpenBrace => self.definition(token),
                _ => self.not_a_definition(token),
            }
        }
    }

    fn begin(&mut self) {
        self.damaged = false;
        self.depth = 0;
        self.entries.clear();
        self.values.clear();
    }

    fn definition(&mut self, open: Token) {
        self.begin();
        match self.value() {
            Ok(Value {
                kind: ValueKind::Object(object),
                span,
            }) => {
                let expression = Expression {
                    object,
                    span,
                    damaged: self.damaged,
                };
                self.out.items.push(Item::Expression(expression));
            }
            Ok(_) => {}
            Err(Lost) => self.resume(open),
        }
    }

    /// A value at the top that is no object, or a stray mark.
    fn not_a_definition(&mut self, token: Token) {
        self.begin();
        if let Some(Item::Expression(before)) = self.out.items.last_mut() {
            // A bracket too many may have ended it before its end.
            before.damaged = true;
        }
        match token.kind {
            Kind::Bad | Kind::Unclosed => {
                // Reported already: what belongs to it goes with it.
                self.at += 1;
                self.resume(token);
            }
            Kind::CloseBrace | Kind::CloseBracket | Kind::Colon | Kind::Comma => {
                let span = self.span(token);
                let mut diagnostic = Diagnostic::error(
                    codes::UNEXPECTED_TOKEN,
                    span,
                    format!("expected a definition, found {}", self.describe(token)),
                );
                if matches!(token.kind, Kind::CloseBrace | Kind::CloseBracket) {
                    diagnostic = diagnostic.note("nothing is open here");
                } else if token.kind == Kind::Comma {
                    let next = self.tokens.get(self.at + 1).map(|token| token.kind);
                    diagnostic = diagnostic.help(match next {
                        Some(Kind::Str | Kind::EscapedStr) => {
                            "the definition has ended before it: is there a closing bracket too many?"
                        }
                        _ => "no comma stands between definitions",
                    });
                }
                self.report(diagnostic);
                self.at += 1;
                let next = self.token().kind;
                let alone =
                    token.kind != Kind::Colon && matches!(next, Kind::OpenBrace | Kind::Doc | Kind::End);
                if !(alone || matches!(token.kind, Kind::CloseBrace | Kind::CloseBracket)) {
                    self.resume(token);
                }
            }
            _ => match self.value() {
                Ok(value) if self.damaged || matches!(value.kind, ValueKind::Bad) => {}
                Ok(value) => {
                    let what = value.kind.describe();
                    self.diagnostics.push(
                        Diagnostic::error(
                            codes::NOT_AN_OBJECT,
                            value.span,
                            format!("a definition or directive must be an object, found {what}"),
                        )
                        .help(if what == "an array" {
                            "definitions stand one after the other, without brackets around and commas between them"
                        } else {
                            "`{ 'struct': 'Name', 'data': { ... } }`, for example"
                        }),
                    );
                    // What stands beside it is most likely no better.
                    self.resume(token);
                }
                Err(Lost) => self.resume(token),
            },
        }
    }

    /// Goes on with the next definition or documentation comment that starts a line, and keeps the names
    /// of what lies between.
    fn resume(&mut self, from: Token) {
        self.out.items.push(Item::Lost);
        let begin = self
            .tokens
            .iter()
            .position(|token| token.start >= from.start)
            .unwrap_or(self.at);
        while !self.starts_definition(self.at, from) {
            self.at += 1;
        }
        let end = self.at.min(self.tokens.len());
        let lost = self.tokens.get(begin..end).unwrap_or(&[]);
        let known = self.out.lost_names.len();
        self.out.pragma_lost |= lost.iter().any(|token| self.string_text(*token) == "pragma");
        for window in lost.windows(3) {
            if let [key, colon, name] = window
                && colon.kind == Kind::Colon
                && name.kind == Kind::Str
                && matches!(
                    self.string_text(*key).as_ref(),
                    "struct" | "union" | "enum" | "alternate" | "command" | "event"
                )
            {
                let name = self.string_text(*name);
                self.out.lost_names.push(name);
            }
        }
        self.out.nameless += usize::from(self.out.lost_names.len() == known);
    }

    /// Whether the token at `at` ends a definition that was given up: the end of the file, or what starts
    /// a line as definitions and documentation do.
    fn starts_definition(&self, at: usize, from: Token) -> bool {
        let Some(token) = self.tokens.get(at) else {
            return true;
        };
        match token.kind {
            Kind::End => true,
            Kind::OpenBrace | Kind::Doc => token.start > from.start && self.starts_line(*token),
            _ => false,
        }
    }

    fn starts_line(&self, token: Token) -> bool {
        let before = self.text.get(..token.start as usize).unwrap_or("");
        before.is_empty() || before.ends_with(['\n', '\r'])
    }

    fn token(&self) -> Token {
        // The lexer's last token is `End`, and nothing steps over it.
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .copied()
            .unwrap_or(Token {
                kind: Kind::End,
                start: 0,
                end: 0,
            })
    }

    fn span(&self, token: Token) -> Span {
        Span::new(self.file, token.start, token.end)
    }

    fn string_text(&self, token: Token) -> Cow<'a, str> {
        let (start, end) = (token.start as usize + 1, (token.end as usize).saturating_sub(1));
        let body = self.text.get(start..end).unwrap_or("");
        match token.kind {
            Kind::Str => Cow::Borrowed(body),
            Kind::EscapedStr => Cow::Owned(body.replace("\\\\", "\\")),
            _ => Cow::Borrowed(""),
        }
    }

    fn describe(&self, token: Token) -> String {
        match token.kind {
            Kind::End => "the end of the file".to_owned(),
            Kind::Doc => "a documentation comment".to_owned(),
            Kind::Str | Kind::EscapedStr => format!("string '{}'", self.string_text(token)),
            _ => {
                let text = self
                    .text
                    .get(token.start as usize..token.end as usize)
                    .unwrap_or("");
                format!("`{text}`")
            }
        }
    }

    fn unexpected(&mut self, expected: &str) -> Diagnostic {
        self.damaged = true;
        let token = self.token();
        Diagnostic::error(
            codes::UNEXPECTED_TOKEN,
            self.span(token),
            format!("expected {expected}, found {}", self.describe(token)),
        )
    }

    /// Reports a token that does not fit, unless it follows from a mistake on the same line, or from
    /// something stray right before it that the lexer told of and that stands where this was expected.
    fn report(&mut self, diagnostic: Diagnostic) {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let gap = before.map_or(0, |token| token.end)..self.token().start;
        let explained = before.is_some_and(|token| token.kind == Kind::Bad)
            || self.diagnostics.iter().rev().any(|other| {
                other.code == codes::STRAY
                    && other.primary.span.file == self.file
                    && gap.contains(&other.primary.span.start)
            });
        if diagnostic.primary.span.start >= self.quiet_until && !explained {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Says nothing more about the structure of the rest of this line.
    fn be_quiet(&mut self) {
        let start = self.token().start as usize;
        let rest = self.text.get(start..).unwrap_or("");
        let end = start + rest.find(['\n', '\r']).unwrap_or(rest.len());
        self.quiet_until = u32::try_from(end).unwrap_or(u32::MAX);
    }

    /// What the given token brackets, when the text breaks off.
    fn mention_open(&self, diagnostic: Diagnostic, open: Token) -> Diagnostic {
        if self.token().kind == Kind::End || self.starts_line(self.token()) {
            diagnostic.also(self.span(open), "opened here and not closed")
        } else {
            diagnostic
        }
    }

    /// Documentation within a definition is a mistake of its own; a comment that is followed by the
    /// next definition rather shows that this one is not closed.
    fn skip_docs(&mut self) {
        while self.token().kind == Kind::Doc {
            let next_opens = self.tokens.get(self.at + 1).is_some_and(|next| {
                matches!(next.kind, Kind::OpenBrace | Kind::Doc | Kind::End) && self.starts_line(*next)
            });
            if next_opens {
                return;
            }
            self.damaged = true;
            let span = self.span(self.token());
            let opening = Span {
                end: span.start + 2,
                ..span
            };
            self.diagnostics.push(
                Diagnostic::error(codes::DOC_INSIDE, opening, "documentation comment inside a definition")
                    .help("start ordinary comments with one `#`; document members in the comment before the definition"),
            );
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value<'a>, Lost> {
        self.skip_docs();
        let token = self.token();
        let span = self.span(token);
        let scalar = match token.kind {
            Kind::True => ValueKind::Bool(true),
            Kind::False => ValueKind::Bool(false),
            Kind::Str | Kind::EscapedStr => ValueKind::Str(self.string_text(token)),
            Kind::Bad => {
                self.damaged = true;
                ValueKind::Bad
            }
            Kind::Unclosed => return Err(Lost),
            Kind::OpenBrace | Kind::OpenBracket => {
                if self.depth >= MAX_NESTING {
                    let message = format!("brackets are nested more than {MAX_NESTING} levels deep");
                    self.diagnostics
                        .push(Diagnostic::error(codes::NESTED_TOO_DEEP, span, message));
                    return Err(Lost);
                }
                self.at += 1;
                self.depth += 1;
                let (kind, end) = if token.kind == Kind::OpenBrace {
                    let (object, end) = self.members(token)?;
                    (ValueKind::Object(object), end)
                } else {
                    let (list, end) = self.elements(token)?;
                    (ValueKind::Array(list), end)
                };
                self.depth -= 1;
                return Ok(Value {
                    kind,
                    span: Span::new(self.file, token.start, end),
                });
            }
            _ => {
                let diagnostic = self.unexpected("`{`, `[`, a string, or a boolean");
                self.report(diagnostic);
                return Err(Lost);
            }
        };
        self.at += 1;
        Ok(Value { kind: scalar, span })
    }

    /// The members of an object whose brace is behind us, and where its closing brace ends.
    fn members(&mut self, open: Token) -> Result<(Object<'a>, u32), Lost> {
        let from = self.entries.len();
        let mut seen: Option<Set<Cow<'a, str>>> = None;
        let mut comma: Option<Token> = None;
        loop {
            self.skip_docs();
            let token = self.token();
            match token.kind {
                Kind::CloseBrace => {
                    if let Some(comma) = comma {
                        self.trailing_comma(comma, token, "an object");
                    }
                    self.at += 1;
                    return Ok((self.object(from), token.end));
                }
                Kind::Str | Kind::EscapedStr | Kind::Bad => {}
                Kind::Comma => {
                    let diagnostic = self.unexpected(if self.entries.len() == from {
                        "a string or `}`"
                    } else {
                        "a string"
                    });
                    self.diagnostics.push(diagnostic.note("a comma too many"));
                    self.at += 1;
                    continue;
                }
                _ => {
                    if token.kind != Kind::Unclosed {
                        let expected = if comma.is_some() {
                            "a string"
                        } else {
                            "a string or `}`"
                        };
                        let diagnostic = self.unexpected(expected);
                        let diagnostic = self.mention_open(diagnostic, open);
                        self.report(diagnostic);
                    }
                    // A wrong closing bracket most likely closes this object.
                    if token.kind == Kind::CloseBracket {
                        self.at += 1;
                        return Ok((self.object(from), token.end));
                    }
                    return Err(Lost);
                }
            }
            self.at += 1;
            let key = self.string_text(token);
            let value = self.member_value(open)?;
            if token.kind == Kind::Bad {
                self.damaged = true;
            } else {
                let entry = Entry {
                    key,
                    key_span: self.span(token),
                    value,
                };
                self.add_member(from, &mut seen, entry);
            }
            comma = self.separator(open, Kind::CloseBrace)?;
            if comma.is_none() && self.token().kind == Kind::CloseBracket {
                // Reported by `separator`.
                let end = self.token().end;
                self.at += 1;
                return Ok((self.object(from), end));
            }
        }
    }

    fn member_value(&mut self, open: Token) -> Result<Value<'a>, Lost> {
        self.skip_docs();
        let token = self.token();
        match token.kind {
            Kind::Colon => {
                self.at += 1;
                self.skip_docs();
                let token = self.token();
                if matches!(token.kind, Kind::Comma | Kind::CloseBrace) {
                    let diagnostic = self.unexpected("`{`, `[`, a string, or a boolean");
                    self.report(diagnostic.note("the value is missing"));
                    return Ok(Value {
                        kind: ValueKind::Bad,
                        span: self.span(token),
                    });
                }
                self.value()
            }
            Kind::Unclosed => Err(Lost),
            Kind::Bad => {
                // Something stray in the place of the colon: the value, if one follows, is read.
                self.damaged = true;
                Ok(Value {
                    kind: ValueKind::Bad,
                    span: self.span(token),
                })
            }
            _ => {
                let diagnostic = self.unexpected("`:`");
                let diagnostic = self.mention_open(diagnostic, open);
                self.report(diagnostic);
                self.be_quiet();
                match token.kind {
                    Kind::Str | Kind::EscapedStr | Kind::True | Kind::False => self.value(),
                    Kind::OpenBrace | Kind::OpenBracket if !self.starts_line(token) => self.value(),
                    Kind::Comma | Kind::CloseBrace => Ok(Value {
                        kind: ValueKind::Bad,
                        span: self.span(token),
                    }),
                    _ => Err(Lost),
                }
            }
        }
    }

    /// The object whose members were put aside from this position on.
    fn object(&mut self, from: usize) -> Object<'a> {
        self.entries.drain(from..).collect()
    }

    /// Adds a member to the object whose members begin at `from`.
    fn add_member(&mut self, from: usize, seen: &mut Option<Set<Cow<'a, str>>>, entry: Entry<'a>) {
        let object = self.entries.get(from..).unwrap_or(&[]);
        let duplicate = if object.len() < FEW_KEYS {
            object.iter().any(|other| other.key == entry.key)
        } else {
            !seen
                .get_or_insert_with(|| object.iter().map(|other| other.key.clone()).collect())
                .insert(entry.key.clone())
        };
        let first = object
            .iter()
            .position(|other| duplicate && other.key == entry.key);
        if let Some(first) = first.and_then(|at| self.entries.get_mut(from + at)) {
            self.damaged = true;
            // Nobody knows which of the two is meant.
            first.value.kind = ValueKind::Bad;
            self.diagnostics.push(
                Diagnostic::error(
                    codes::DUPLICATE_KEY,
                    entry.key_span,
                    format!("duplicate key '{}'", entry.key),
                )
                .also(first.key_span, "first used here"),
            );
        } else {
            self.entries.push(entry);
        }
    }

    /// The elements of a list whose bracket is behind us, and where its closing bracket ends.
    fn elements(&mut self, open: Token) -> Result<(Vec<Value<'a>>, u32), Lost> {
        let from = self.values.len();
        let mut comma: Option<Token> = None;
        loop {
            self.skip_docs();
            let token = self.token();
            match token.kind {
                Kind::CloseBracket => {
                    if let Some(comma) = comma {
                        self.trailing_comma(comma, token, "a list");
                    }
                    self.at += 1;
                    return Ok((self.values.drain(from..).collect(), token.end));
                }
                Kind::OpenBrace if !(comma.is_none() && self.starts_line(token)) => {}
                Kind::OpenBracket | Kind::Str | Kind::EscapedStr | Kind::Bad | Kind::True | Kind::False => {}
                Kind::Unclosed => return Err(Lost),
                Kind::Comma => {
                    let diagnostic = self.unexpected(if self.values.len() == from {
                        "`{`, `[`, `]`, a string, or a boolean"
                    } else {
                        "`{`, `[`, a string, or a boolean"
                    });
                    self.diagnostics.push(diagnostic.note("a comma too many"));
                    self.at += 1;
                    continue;
                }
                _ => {
                    let diagnostic = self.unexpected(if comma.is_some() {
                        "`{`, `[`, a string, or a boolean"
                    } else {
                        "`{`, `[`, `]`, a string, or a boolean"
                    });
                    let diagnostic = self.mention_open(diagnostic, open);
                    self.report(diagnostic);
                    // A wrong closing bracket most likely closes what is around the list, too.
                    return if token.kind == Kind::CloseBrace {
                        Ok((self.values.drain(from..).collect(), token.start))
                    } else {
                        Err(Lost)
                    };
                }
            }
            let value = self.value()?;
            self.values.push(value);
            comma = self.separator(open, Kind::CloseBracket)?;
            if comma.is_none() && self.token().kind == Kind::CloseBrace {
                // Reported by `separator`.
                let end = self.token().start;
                return Ok((self.values.drain(from..).collect(), end));
            }
        }
    }

    /// What stands behind a member or an element: a comma, which is given back, or the closing bracket,
    /// which is left to the caller. Anything else is reported, and mended where that is safe.
    fn separator(&mut self, open: Token, close: Kind) -> Result<Option<Token>, Lost> {
        loop {
            self.skip_docs();
            let token = self.token();
            match token.kind {
                Kind::Comma => {
                    self.at += 1;
                    return Ok(Some(token));
                }
                kind if kind == close => return Ok(None),
                Kind::Unclosed => return Err(Lost),
                // Reported by the lexer: whatever it was, it stands in nobody's way.
                Kind::Bad => {
                    self.damaged = true;
                    self.at += 1;
                }
                Kind::Str | Kind::EscapedStr if close == Kind::CloseBrace && self.is_alone() => {
                    let diagnostic = self.unexpected("`,` or `}`");
                    self.report(diagnostic.note("neither a key nor a value"));
                    self.at += 1;
                }
                _ => {
                    let bracket = if close == Kind::CloseBrace { "`}`" } else { "`]`" };
                    let diagnostic = self.unexpected(&format!("`,` or {bracket}"));
                    let diagnostic = self.mention_open(diagnostic, open);
                    let mended = match token.kind {
                        Kind::Str | Kind::EscapedStr => true,
                        Kind::True | Kind::False | Kind::OpenBracket => close == Kind::CloseBracket,
                        Kind::OpenBrace => close == Kind::CloseBracket && !self.starts_line(token),
                        _ => false,
                    };
                    let diagnostic = match (mended, self.tokens.get(self.at.wrapping_sub(1))) {
                        (true, Some(before)) => {
                            let end = Span::new(self.file, before.end.saturating_sub(1), before.end);
                            diagnostic.also(end, "a comma is missing behind this")
                        }
                        _ => diagnostic,
                    };
                    self.report(diagnostic);
                    return match (token.kind, close) {
                        _ if mended => Ok(Some(token)),
                        // `[ 'a' }`: the list ends here, and the brace closes what is around it.
                        (Kind::CloseBrace, Kind::CloseBracket) => Ok(None),
                        // `{ 'a': 'b' ]`: the bracket stands where a brace was meant.
                        (Kind::CloseBracket, Kind::CloseBrace) => Ok(None),
                        _ => Err(Lost),
                    };
                }
            }
        }
    }

    /// Whether what is at hand belongs to nothing: the member that it stands behind ends after it.
    fn is_alone(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|token| token.kind);
        matches!(next, Some(Kind::Comma | Kind::CloseBrace))
    }

    fn trailing_comma(&mut self, comma: Token, close: Token, what: &str) {
        self.damaged = true;
        let expected = if close.kind == Kind::CloseBrace {
            "a string"
        } else {
            "`{`, `[`, a string, or a boolean"
        };
        self.diagnostics.push(
            Diagnostic::error(
                codes::UNEXPECTED_TOKEN,
                self.span(close),
                format!("expected {expected}, found {}", self.describe(close)),
            )
            .also(self.span(comma), format!("{what} does not end with a comma")),
        );
    }
}
