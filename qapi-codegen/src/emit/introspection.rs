//! Introspection: what `query-qmp-schema` answers, as bytes.

use super::context::Context;
use crate::introspect::{self, MARKS};
use crate::ir::Condition;
use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote};

/// A piece of the answer that is there under the conditions that stand around it.
#[derive(Debug, PartialEq)]
struct Piece {
    text: String,
    conditions: Vec<usize>,
}

impl Context<'_> {
    pub(super) fn emit_introspection(&self, items: &mut Vec<TokenStream>) {
        let doc = self.doc(
            [
                "What `query-qmp-schema` answers: this schema, for clients that ask.",
                "",
                "Names of types are numbers, as clients must not depend on them.",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        let decided = self.options.conditions.clone();
        if !decided.are_mapped() {
            let holds = |condition: &Condition| decided.reduce(condition).is_some();
            let options = introspect::Options {
                unmask: false,
                holds: &holds,
            };
            let bytes = literal(&introspect::introspect(self.schema, options));
            items.push(quote! { #doc pub const INTROSPECTION: &[u8] = #bytes; });
            return;
        }
        let (text, conditions) = introspect::marked(self.schema);
        let pieces = pieces(&text).into_iter().map(|piece| {
            let all: Vec<Condition> = piece
                .conditions
                .iter()
                .filter_map(|number| conditions.get(*number).cloned())
                .collect();
            let cfg = self
                .options
                .conditions
                .reduce(&Condition::All(all))
                .unwrap_or_default();
            let (cfg, bytes) = (self.attribute(&cfg), literal(&piece.text));
            quote!(#cfg #bytes)
        });
        let pieces_doc = self.doc(vec![
            "The answer in pieces, some of which depend on conditions.".to_owned(),
        ]);
        let joined_doc = self.doc(vec!["The answer in one piece.".to_owned()]);
        items.push(quote! { #pieces_doc const PIECES: &[&[u8]] = &[#(#pieces),*]; });
        items.push(quote! {
            #joined_doc
            static JOINED: [u8; ::qapi_runtime::join::length(PIECES)] = ::qapi_runtime::join::join(PIECES);
        });
        items.push(quote! { #doc pub const INTROSPECTION: &[u8] = &JOINED; });
    }
}

/// On the wire a message is one line, though files of introspection have a line for each entity.
/// A raw literal, which a reader can search; JSON of a schema has no `#`. A reply is one line.
fn literal(text: &str) -> TokenStream {
    let line = text.replace(",\n", ", ").replace('\n', "");
    let hash = if line.contains('"') { "#" } else { "" };
    let raw = format!("br{hash}\"{line}\"{hash}").parse();
    raw.unwrap_or_else(|_| Literal::byte_string(line.as_bytes()).into_token_stream())
}

/// Takes marked text apart.
fn pieces(text: &str) -> Vec<Piece> {
    let [begin, end, close] = MARKS;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find([begin, close]) {
        let (before, after) = rest.split_at(at);
        if !before.is_empty() {
            pieces.push(Piece {
                text: before.to_owned(),
                conditions: open.clone(),
            });
        }
        rest = match after.strip_prefix(begin).and_then(|after| after.split_once(end)) {
            Some((number, after)) => {
                open.push(number.parse().unwrap_or_default());
                after
            }
            None => {
                open.pop();
                after.get(close.len_utf8()..).unwrap_or_default()
            }
        };
    }
    if !rest.is_empty() {
        pieces.push(Piece {
            text: rest.to_owned(),
            conditions: open,
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_text_comes_apart() {
        let found = pieces("[a\u{1}3\u{2}, b\u{1}0\u{2}, c\u{3}\u{3}, d]");
        let expected = [
            ("[a", vec![]),
            (", b", vec![3]),
            (", c", vec![3, 0]),
            (", d]", vec![]),
        ];
        let expected: Vec<Piece> = expected
            .into_iter()
            .map(|(text, conditions)| Piece {
                text: text.into(),
                conditions,
            })
            .collect();
        assert_eq!(found, expected);
    }
}
