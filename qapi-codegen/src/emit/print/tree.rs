//! Tokens as the printer wants them: operators joined, and each with its width and the gap before it.

use proc_macro2::{Delimiter, Ident, Spacing, Span, TokenStream, TokenTree};
use std::fmt::Write as _;

/// What the name of a mark of documentation begins with; its number follows. No name of a schema has this dot.
const DOC: &str = "doc\u{b7}";

/// The mark for a text of documentation.
pub(super) fn mark(number: usize) -> Ident {
    Ident::new(&format!("{DOC}{number}"), Span::call_site())
}

/// A token, or a group of them.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) kind: Kind,
    /// Whether a space stands before it on a line.
    pub(super) space: bool,
    /// How wide it is on one line, without that space.
    pub(super) width: usize,
    /// Whether it can never stand on one line.
    pub(super) tall: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A word, a literal, an operator.
    Text(String),
    /// The number of a text of documentation.
    Doc(usize),
    Group(Delimiter, Vec<Tree>),
}

impl Tree {
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(&self.kind, Kind::Text(own) if own == text)
    }

    /// What is between the delimiters.
    pub(super) fn inside(&self, delimiter: Delimiter) -> Option<&[Tree]> {
        match &self.kind {
            Kind::Group(own, inside) if *own == delimiter => Some(inside),
            _ => None,
        }
    }
}

/// How wide trees are on one line.
pub(super) fn width(trees: &[Tree]) -> usize {
    let spaces = trees.iter().skip(1).filter(|tree| tree.space).count();
    trees.iter().map(|tree| tree.width).sum::<usize>() + spaces
}

/// Whether trees can never stand on one line.
pub(super) fn tall(trees: &[Tree]) -> bool {
    trees.iter().any(|tree| tree.tall)
}

/// Words behind which a path, a reference or a group does not continue what was before.
fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "as" | "async"
            | "await"
            | "const"
            | "dyn"
            | "else"
            | "for"
            | "if"
            | "impl"
            | "in"
            | "let"
            | "match"
            | "move"
            | "mut"
            | "pub"
            | "ref"
            | "return"
            | "static"
            | "type"
            | "use"
            | "where"
    )
}

/// What stood before, as far as it decides whether a space follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A name, a literal, a closing bracket or `>`: a value or a type may end here.
    End,
    /// The same, of a keyword that something follows.
    Keyword,
    /// `&`, `::`, `.`, `<`, `!`, `#`, `*` before a value: the next belongs to it.
    Tight,
    /// `,`, `;`, `:`, `=`, `->` and others.
    Loose,
}

/// The trees of a stream.
pub(super) fn trees(stream: TokenStream) -> Vec<Tree> {
    let mut found: Vec<Tree> = Vec::new();
    let mut before = Before::Nothing;
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
                let mut inside = trees(group.stream());
                if let Some(first) = inside.first_mut() {
                    first.space = !matches!(before, Before::Nothing | Before::Tight);
                }
                found.append(&mut inside);
                before = Before::End;
            }
            TokenTree::Group(group) => {
                let delimiter = group.delimiter();
                let mut inside = trees(group.stream());
                // Lists get their last comma from the layout; that of `(T,)` is no such.
                if inside.last().is_some_and(|last| last.is(","))
                    && (delimiter != Delimiter::Parenthesis || before == Before::End)
                {
                    inside.pop();
                }
                let restricted = found.last().is_some_and(|last| last.is("pub"));
                let space = match (delimiter, before) {
                    (Delimiter::Parenthesis, _) if restricted => false,
                    (_, Before::Nothing | Before::Tight) => false,
                    (Delimiter::Brace, _) | (_, Before::Keyword | Before::Loose) => true,
                    (_, Before::End) => false,
                };
                let braces = delimiter == Delimiter::Brace;
                let padding = if braces && !inside.is_empty() { 4 } else { 2 };
                let is_match = braces
                    && found
                        .iter()
                        .rev()
                        .take_while(|tree| !tree.is("=>") && !tree.is(",") && !tree.is(";") && !tree.is("="))
                        .any(|tree| tree.is("match"));
                let statements = braces && inside.iter().any(|tree| tree.is(";"));
                let attributes = inside.windows(2).any(is_attribute);
                let documented = inside.iter().any(|tree| matches!(tree.kind, Kind::Doc(_)));
                found.push(Tree {
                    width: width(&inside) + padding,
                    tall: is_match || statements || attributes || documented || tall(&inside),
                    space,
                    kind: Kind::Group(delimiter, inside),
                });
                before = Before::End;
            }
            TokenTree::Ident(word) => {
                let word = word.to_string();
                if let Some(number) = word.strip_prefix(DOC).and_then(|number| number.parse().ok()) {
                    found.push(Tree {
                        kind: Kind::Doc(number),
                        space: false,
                        width: 0,
                        tall: true,
                    });
                    before = Before::Nothing;
                    continue;
                }
                let after = if is_keyword(&word) {
                    Before::Keyword
                } else {
                    Before::End
                };
                push(&mut found, word, spaced(before));
                before = after;
            }
            TokenTree::Literal(literal) => {
                push(&mut found, literal.to_string(), spaced(before));
                before = Before::End;
            }
            TokenTree::Punct(punct) => {
                let mut text = String::from(punct.as_char());
                let mut last = punct;
                // `<` and `>` are brackets here: only `->` and `=>` are operators with one.
                while last.spacing() == Spacing::Joint {
                    let Some(TokenTree::Punct(next)) = tokens.peek() else {
                        break;
                    };
                    let joined = matches!(
                        (text.as_str(), next.as_char()),
                        (":", ':')
                            | ("-" | "=", '>')
                            | ("=" | "!", '=')
                            | ("&", '&')
                            | ("|", '|')
                            | ("." | "..", '.')
                    );
                    if !joined {
                        break;
                    }
                    text.push(next.as_char());
                    last = next.clone();
                    tokens.next();
                }
                if text == "'" {
                    if let Some(TokenTree::Ident(name)) = tokens.peek() {
                        // Writing to a string cannot fail.
                        let _ = write!(text, "{name}");
                        tokens.next();
                    }
                    push(&mut found, text, spaced(before));
                    before = Before::Keyword;
                    continue;
                }
                let behind = match found.last() {
                    Some(last) if text == "<" && (last.is("impl") || last.is("for")) => Before::End,
                    _ => before,
                };
                let (space, after) = around(&text, behind);
                push(&mut found, text, space);
                before = after;
            }
        }
    }
    found
}

fn push(found: &mut Vec<Tree>, text: String, space: bool) {
    found.push(Tree {
        width: text.len(),
        tall: false,
        space,
        kind: Kind::Text(text),
    });
}

fn spaced(before: Before) -> bool {
    !matches!(before, Before::Nothing | Before::Tight)
}

fn is_attribute(pair: &[Tree]) -> bool {
    matches!(pair, [hash, group] if hash.is("#") && group.inside(Delimiter::Bracket).is_some())
}

/// Whether a space stands before an operator, and what it means for the next token.
fn around(operator: &str, before: Before) -> (bool, Before) {
    let end = before == Before::End;
    match operator {
        "," | ";" | ":" => (false, Before::Loose),
        "?" => (false, Before::End),
        "." => (false, Before::Tight),
        ".." => (before == Before::Loose, Before::Tight),
        "::" => (!end && spaced(before), Before::Tight),
        // After a name `!` calls a macro, else it denies.
        "!" if end => (false, Before::End),
        "<" => (!end && spaced(before), Before::Tight),
        ">" => (false, Before::End),
        // A sign, a reference, a pointer.
        "&" | "*" | "-" | "!" | "#" if !end => (spaced(before), Before::Tight),
        "#" => (true, Before::Tight),
        _ => (spaced(before), Before::Loose),
    }
}
