//! Bytes to tokens.
//!
//! The token grammar is small: six punctuation marks, single-quoted strings of printable ASCII, `true`,
//! `false`, comments. A documentation comment is one token, from its opening `##` to its closing one; what
//! is in it is the business of [`crate::doc`]. Lexing never fails: what does not fit is reported and
//! becomes a [`Kind::Bad`] token, so that the parser neither stops nor complains a second time.

use nom::branch::alt;
use nom::bytes::complete::{take_till, take_while};
use nom::character::complete::char;
use nom::combinator::{opt, recognize};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    OpenBrace,
    /// `}`
    CloseBrace,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `:`
    Colon,
    /// `,`
    Comma,
    /// A string without a backslash.
    Str,
    /// A string with a backslash in it, which must be doubled.
    EscapedStr,
    /// `true`
    True,
    /// `false`
    False,
    /// A whole documentation comment.
    Doc,
    /// Something that is no token and was reported: it may stand for a string or a value.
    Bad,
    /// A string that its line ends, reported: what follows it cannot be trusted.
    Unclosed,
    /// The end of the file.
    End,
}

/// A token.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

type Lexed<'a, T> = IResult<&'a str, T, ()>;

/// All tokens of a text, ending with [`Kind::End`], which stands on the last line break.
pub fn lex(file: FileId, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Token> {
    let mut lexer = Lexer {
        file,
        text,
        diagnostics,
        tokens: Vec::with_capacity(text.len() / 12 + 1),
        double_quotes: false,
    };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a, 'd> {
    file: FileId,
    text: &'a str,
    diagnostics: &'d mut Vec<Diagnostic>,
    tokens: Vec<Token>,
    /// Double quotes were met and reported.
    double_quotes: bool,
}

impl<'a> Lexer<'a, '_> {
    fn run(&mut self) {
        let mut rest = self.text;
        loop {
            rest = skip_blank(rest);
            let Some(first) = rest.bytes().next() else { break };
            let start = self.at(rest);
            let kind = match first {
                b'{' => Kind::OpenBrace,
                b'}' => Kind::CloseBrace,
                b'[' => Kind::OpenBracket,
                b']' => Kind::CloseBracket,
                b':' => Kind::Colon,
                b',' => Kind::Comma,
                b'\'' => {
                    rest = self.string(rest);
                    continue;
                }
                b'#' => {
                    rest = self.comment(rest);
                    continue;
                }
                _ => {
                    rest = self.word(rest);
                    continue;
                }
            };
            self.tokens.push(Token {
                kind,
                start,
                end: start + 1,
            });
            rest = rest.get(1..).unwrap_or("");
        }
        let end = offset(
            self.text
                .trim_end_matches(line_break)
                .len()
                .max(self.last_line_start()),
        );
        self.tokens.push(Token {
            kind: Kind::End,
            start: end,
            end,
        });
    }

    /// Where the last line begins, the line break that ends the file not counted.
    fn last_line_start(&self) -> usize {
        let text = self.text.strip_suffix('\n').unwrap_or(self.text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        text.rfind(line_break).map_or(0, |at| at + 1)
    }

    fn at(&self, rest: &str) -> u32 {
        offset(self.text.len() - rest.len())
    }

    fn push(&mut self, kind: Kind, from: &str, rest: &str) {
        let (start, end) = (self.at(from), self.at(rest));
        self.tokens.push(Token { kind, start, end });
    }

    fn span(&self, from: &str, rest: &str) -> Span {
        Span::new(self.file, self.at(from), self.at(rest))
    }

    fn string(&mut self, input: &'a str) -> &'a str {
        if let Ok((rest, (body, escaped))) = clean_string(input) {
            self.push(if escaped { Kind::EscapedStr } else { Kind::Str }, input, rest);
            let _ = body;
            return rest;
        }
        self.faulty_string(input)
    }

    /// A string that has something wrong in it: says what, and where it ends all the same.
    fn faulty_string(&mut self, input: &'a str) -> &'a str {
        let mut characters = input.char_indices().skip(1).peekable();
        let mut reported = false;
        while let Some((at, c)) = characters.next() {
            let here = input.get(at..).unwrap_or("");
            let behind = here.get(c.len_utf8()..).unwrap_or("");
            match c {
                '\'' => {
                    self.push(Kind::Bad, input, behind);
                    return behind;
                }
                '\n' | '\r' => {
                    self.unclosed(input, here, reported);
                    return here;
                }
                '\\' => match characters.peek().copied() {
                    Some((_, '\\')) => {
                        characters.next();
                    }
                    Some((next, other)) if !line_break(other) => {
                        if !reported {
                            let end = input.get(next + other.len_utf8()..).unwrap_or("");
                            let span = self.span(here, end);
                            self.diagnostics.push(
                                Diagnostic::error(
                                    codes::UNKNOWN_ESCAPE,
                                    span,
                                    format!("unknown escape `\\{}`", Shown(other)),
                                )
                                .help("the only escape is `\\\\`; strings hold printable ASCII and need no other"),
                            );
                            reported = true;
                        }
                        // An escaped quote most likely does not end the string for its author.
                        if other == '\'' {
                            characters.next();
                        }
                    }
                    _ => {}
                },
                ' '..='~' => {}
                _ => {
                    if !reported {
                        let span = self.span(here, behind);
                        self.diagnostics.push(
                            Diagnostic::error(
                                codes::FUNNY_CHARACTER,
                                span,
                                format!("character U+{:04X} is not allowed in a string", u32::from(c)),
                            )
                            .help("strings hold printable ASCII only"),
                        );
                        reported = true;
                    }
                }
            }
        }
        self.unclosed(input, "", reported);
        ""
    }

    fn unclosed(&mut self, input: &'a str, rest: &'a str, reported: bool) {
        // A stray word before it on the line shows that a quote is missing there, and not here.
        let start = self.at(input) as usize;
        let explained = self.diagnostics.last().is_some_and(|last| {
            let between = self.text.get(last.primary.span.end as usize..start);
            last.code == codes::STRAY && between.is_some_and(|between| !between.contains(line_break))
        });
        if !reported && !explained {
            let span = self.span(input, rest);
            self.diagnostics.push(
                Diagnostic::error(codes::UNTERMINATED_STRING, span, "this string is not closed")
                    .note("no closing `'` on this line"),
            );
        }
        self.push(Kind::Unclosed, input, rest);
    }

    fn comment(&mut self, input: &'a str) -> &'a str {
        let (rest, line) = comment_line(input).unwrap_or(("", input));
        if !line.starts_with("##") {
            return rest;
        }
        // A documentation comment goes on to the next line that starts with `##`, whatever blanks
        // there are between its lines.
        let mut end = rest;
        let closed = loop {
            let next = skip_blank(end);
            let Ok((after, next_line)) = comment_line(next) else {
                break false;
            };
            end = after;
            if next_line.starts_with("##") {
                break true;
            }
        };
        if !closed && line != "##" {
            // `## like this` is most likely meant to be an ordinary comment.
            let span = self.span(input, rest);
            self.diagnostics.push(
                Diagnostic::error(codes::DOC_OPENING_JUNK, span, "junk after `##` at the start of a documentation comment")
                    .help("an ordinary comment starts with one `#`; a documentation comment starts with a line `##`"),
            );
            return rest;
        }
        self.push(Kind::Doc, input, end);
        end
    }

    fn word(&mut self, input: &'a str) -> &'a str {
        if input.starts_with('"') {
            return self.double_quoted(input);
        }
        if input.starts_with("/*") {
            return self.block_comment(input);
        }
        let (rest, word) = word(input).unwrap_or(("", input));
        let touches_quote = rest.starts_with('\'')
            || self
                .text
                .get(..self.at(input) as usize)
                .is_some_and(|before| before.ends_with('\''));
        if touches_quote && word.chars().any(|c| c.is_ascii_alphabetic()) {
            return self.quote_missing(input, word);
        }
        match word {
            "true" => self.push(Kind::True, input, rest),
            "false" => self.push(Kind::False, input, rest),
            _ => {
                let span = self.span(input, rest);
                let diagnostic = Diagnostic::error(codes::STRAY, span, format!("stray `{word}`"));
                let letters = word.chars().any(|c| c.is_ascii_alphabetic());
                let number = word.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
                let diagnostic = if word == ";" {
                    diagnostic.help(
                        "a comma stands between the parts of a definition, and nothing between definitions",
                    )
                } else if word.starts_with('\u{feff}') {
                    Diagnostic::error(codes::STRAY, span, "stray byte order mark")
                        .help("remove it: schema files are plain UTF-8")
                } else if word == "=" {
                    diagnostic.help("a colon stands between a key and its value")
                } else if number && word.bytes().any(|b| b.is_ascii_digit()) {
                    diagnostic.help("the schema language has no numbers")
                } else if word == "null" || word == "None" {
                    diagnostic.help("the schema language has no null; leave the key out")
                } else if word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false") {
                    diagnostic.help(format!("write `{}`", word.to_ascii_lowercase()))
                } else if word.starts_with("//") {
                    diagnostic.help("comments start with `#`")
                } else if letters {
                    diagnostic.help(format!("strings are written in single quotes: `'{word}'`"))
                } else {
                    diagnostic
                };
                self.diagnostics.push(diagnostic);
                if word == "=" {
                    self.push(Kind::Colon, input, rest);
                }
                if word.starts_with("//") {
                    return take_line(input).map_or("", |(rest, _)| rest);
                }
                // A single stray mark like `;` stands for nothing; a word stands for a string.
                if letters || number {
                    self.push(Kind::Bad, input, rest);
                }
            }
        }
        rest
    }

    /// A comment as in C, which the language does not have: up to its end if it has one, else its line.
    fn block_comment(&mut self, input: &'a str) -> &'a str {
        let rest = match input.split_once("*/") {
            Some((_, rest)) => rest,
            None => take_line(input).map_or("", |(rest, _)| rest),
        };
        let span = Span::new(self.file, self.at(input), self.at(input) + 2);
        self.diagnostics.push(
            Diagnostic::error(codes::STRAY, span, "stray `/*`").help(
                "comments start with `#`, each line anew; documentation starts and ends with a line `##`",
            ),
        );
        rest
    }

    /// A word that touches a quote: one is missing, and what looks like strings further on is what stands
    /// between them. The rest of the line cannot be read.
    fn quote_missing(&mut self, input: &'a str, word: &str) -> &'a str {
        let (rest, _) = take_line(input).unwrap_or(("", input));
        let span = Span::new(self.file, self.at(input), self.at(input) + offset(word.len()));
        self.diagnostics.push(
            Diagnostic::error(codes::STRAY, span, format!("stray `{word}`"))
                .note("a quote is missing")
                .help("strings start and end with a single quote"),
        );
        self.push(Kind::Unclosed, input, rest);
        rest
    }

    /// A string in double quotes is taken as a string. A whole file of them is one mistake.
    fn double_quoted(&mut self, input: &'a str) -> &'a str {
        let (rest, whole) = double_quoted(input).unwrap_or(("", input));
        let closed = whole.len() > 1 && whole.ends_with('"');
        let plain = whole
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\');
        if !self.double_quotes {
            self.double_quotes = true;
            let span = self.span(input, rest);
            self.diagnostics.push(
                Diagnostic::error(codes::STRAY, span, format!("stray `{whole}`"))
                    .note("double quotes")
                    .help(format!(
                        "strings are written in single quotes: `'{}'`",
                        whole.trim_matches('"')
                    )),
            );
        }
        self.push(if closed && plain { Kind::Str } else { Kind::Bad }, input, rest);
        rest
    }
}

/// A character as a message shows it.
struct Shown(char);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_control() {
            write!(f, "{}", self.0.escape_debug())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn line_break(c: char) -> bool {
    c == '\n' || c == '\r'
}

/// White space is what Unicode says, and the four separators that Python adds to it.
fn blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Most blanks are ASCII, and most runs of them are short.
fn skip_blank(input: &str) -> &str {
    let mut at = 0;
    for byte in input.bytes() {
        match byte {
            b' ' | b'\n' | b'\t' | b'\r' => at += 1,
            0x21..=0x7e => break,
            _ => return input.trim_start_matches(blank),
        }
    }
    input.get(at..).unwrap_or("")
}

/// A string with nothing wrong in it: its body, and whether there is a backslash in it.
fn clean_string(input: &str) -> Lexed<'_, (&str, bool)> {
    let bytes = input.as_bytes();
    let mut at = 1;
    let mut escaped = false;
    loop {
        match bytes.get(at) {
            Some(b'\'') => break,
            Some(b'\\') if bytes.get(at + 1) == Some(&b'\\') => {
                escaped = true;
                at += 2;
            }
            Some(b'\\') => return Err(nom::Err::Error(())),
            Some(b' '..=b'~') => at += 1,
            _ => return Err(nom::Err::Error(())),
        }
    }
    match (input.get(1..at), input.get(at + 1..)) {
        (Some(body), Some(rest)) => Ok((rest, (body, escaped))),
        _ => Err(nom::Err::Error(())),
    }
}

fn comment_line(input: &str) -> Lexed<'_, &str> {
    if !input.starts_with('#') {
        return Err(nom::Err::Error(()));
    }
    take_line(input)
}

/// The text up to the end of its first line, and the rest, which starts with the line break.
pub(crate) fn split_line(input: &str) -> (&str, &str) {
    let end = memchr::memchr2(b'\n', b'\r', input.as_bytes()).unwrap_or(input.len());
    input.split_at_checked(end).unwrap_or((input, ""))
}

/// Up to the end of the line, which is left.
fn take_line(input: &str) -> Lexed<'_, &str> {
    let (line, rest) = split_line(input);
    Ok((rest, line))
}

/// A run of anything that is no punctuation, blank, quote or comment.
fn word(input: &str) -> Lexed<'_, &str> {
    let ends = |c: char| "[]{}:,'#\"".contains(c) || blank(c);
    recognize(alt((
        preceded(nom::character::complete::satisfy(|c| !ends(c)), take_till(ends)),
        nom::character::complete::anychar.map(|_| ""),
    )))
    .parse(input)
}

/// A string in double quotes, which the language does not have, closed or not.
fn double_quoted(input: &str) -> Lexed<'_, &str> {
    recognize(delimited(
        char('"'),
        take_while(|c| c != '"' && !line_break(c)),
        opt(char('"')),
    ))
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> (Vec<Kind>, Vec<String>) {
        let mut diagnostics = Vec::new();
        let tokens = lex(FileId(0), text, &mut diagnostics);
        (
            tokens.iter().map(|t| t.kind).collect(),
            diagnostics.into_iter().map(|d| d.message).collect(),
        )
    }

    #[test]
    fn punctuation_strings_and_literals() {
        let (kinds, messages) = kinds("{'a':[true,false]} # done");
        use Kind::{CloseBrace, CloseBracket, Colon, Comma, End, False, OpenBrace, OpenBracket, Str, True};
        assert_eq!(
            kinds,
            [
                OpenBrace,
                Str,
                Colon,
                OpenBracket,
                True,
                Comma,
                False,
                CloseBracket,
                CloseBrace,
                End
            ]
        );
        assert!(messages.is_empty());
    }

    #[test]
    fn blanks_are_unicode_blanks() {
        let (kinds, messages) = kinds("\u{a0}\u{c}{\r\n}\u{2003}");
        assert_eq!(kinds, [Kind::OpenBrace, Kind::CloseBrace, Kind::End]);
        assert!(messages.is_empty());
    }

    #[test]
    fn one_mistake_is_one_message() {
        for (text, count) in [
            ("'a\\x'", 1),
            ("'\u{e9}\u{e9}'", 1),
            ("'open", 1),
            ("abc", 1),
            ("\"abc\"", 1),
            (";", 1),
        ] {
            assert_eq!(kinds(text).1.len(), count, "{text}");
        }
    }

    #[test]
    fn a_documentation_comment_is_one_token() {
        let (kinds, _) = kinds("##\n# @a:\n\n  # text\n##\n{}");
        assert_eq!(kinds, [Kind::Doc, Kind::OpenBrace, Kind::CloseBrace, Kind::End]);
    }

    #[test]
    fn the_end_is_on_the_last_line() {
        for (text, at) in [("{ ", 2), ("{\n", 1), ("{\n\n\n", 3), ("", 0), ("{\n  \n", 4)] {
            let end = lex(FileId(0), text, &mut Vec::new())
                .pop()
                .map(|token| token.start);
            assert_eq!(end, Some(at), "{text:?}");
        }
    }
}
