//! Where lines break: the rules of rustfmt's default style, for what generated code has.

use super::tree::{self, Kind, Tree};
use proc_macro2::Delimiter::{self, Brace, Bracket, Parenthesis};

/// rustfmt's `max_width`.
const LINE: usize = 100;
/// What rustfmt keeps free at the end of lines of imports, of fields, and of those that begin an arm.
const SLACK: usize = 2;
/// `fn_call_width`, `array_width` and `chain_width`: longer lists do not stay on one line even if they fit.
const LIST: usize = 60;
/// `struct_lit_width`, between the braces.
const STRUCT: usize = 18;
/// `single_line_if_else_max_width`.
const IF_ELSE: usize = 50;
/// `attr_fn_like_width`.
const ATTRIBUTE: usize = 70;
/// `short_array_element_width_threshold`: arrays of such elements fill their lines.
const SHORT: usize = 10;

pub(super) struct Printer<'d> {
    docs: &'d [Vec<String>],
    out: String,
    /// Where the line at hand begins.
    line: usize,
    indent: usize,
}

/// Something in a list, or a statement: documentation, attributes, and the rest.
struct Entry<'t> {
    outer: &'t [Tree],
    body: &'t [Tree],
}

impl Entry<'_> {
    fn is_plain(&self) -> bool {
        self.outer.is_empty()
    }
}

impl<'d> Printer<'d> {
    pub(super) fn new(docs: &'d [Vec<String>]) -> Self {
        let bytes: usize = docs.iter().flatten().map(|line| line.len() + 9).sum();
        Printer {
            docs,
            out: String::with_capacity(bytes),
            line: 0,
            indent: 0,
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    // Lines.

    fn column(&self) -> usize {
        if self.out.len() == self.line {
            self.indent
        } else {
            self.out.len() - self.line
        }
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.line = self.out.len();
    }

    fn put(&mut self, text: &str) {
        if self.out.len() == self.line {
            self.out.extend(std::iter::repeat_n(' ', self.indent));
        }
        self.out.push_str(text);
    }

    fn flat(&mut self, trees: &[Tree]) {
        for (at, tree) in trees.iter().enumerate() {
            if at > 0 && tree.space {
                self.put(" ");
            }
            match &tree.kind {
                Kind::Text(text) => self.put(text),
                Kind::Doc(_) => {}
                Kind::Group(delimiter, inside) => {
                    let (open, close) = delimiters(*delimiter);
                    let braces = *delimiter == Brace && !inside.is_empty();
                    self.put(open);
                    if braces {
                        self.put(" ");
                    }
                    self.flat(inside);
                    if braces {
                        self.put(" ");
                    }
                    self.put(close);
                }
            }
        }
    }

    /// Whether trees and so many bytes behind them fit on what is left of the line.
    fn fits(&self, trees: &[Tree], behind: usize) -> bool {
        !tree::tall(trees) && self.column() + tree::width(trees) + behind <= LINE
    }

    fn indented(&mut self, print: impl FnOnce(&mut Self)) {
        self.indent += 4;
        print(self);
        self.indent -= 4;
    }

    /// Documentation and attributes, each on lines of its own.
    fn outer(&mut self, trees: &[Tree]) {
        self.outer_before(trees, 0);
    }

    /// The same, on lines that are so much shorter.
    fn outer_before(&mut self, mut trees: &[Tree], spare: usize) {
        while let Some((first, rest)) = trees.split_first() {
            trees = rest;
            if let Kind::Doc(number) = first.kind {
                for line in self.docs.get(number).into_iter().flatten() {
                    self.put("///");
                    if !line.is_empty() {
                        self.put(" ");
                        self.put(line);
                    }
                    self.newline();
                }
            } else if let Some((group, rest)) = rest.split_first() {
                trees = rest;
                self.put("#");
                match group.inside(Bracket) {
                    Some(inside) => {
                        self.put("[");
                        self.attribute(inside, 1 + spare);
                        self.put("]");
                    }
                    None => self.flat(std::slice::from_ref(group)),
                }
                self.newline();
            }
        }
    }

    /// What an attribute says; its lists have no comma at the end.
    fn attribute(&mut self, trees: &[Tree], behind: usize) {
        let list = trees
            .split_last()
            .and_then(|(last, head)| Some((head, last.inside(Parenthesis)?)));
        let Some((head, list)) = list else {
            self.flat(trees);
            return;
        };
        let entries = entries(list);
        // `name = value` alone may be as long as the line.
        let alone = matches!(entries.as_slice(), [only] if is_assignment(only.body));
        if self.fits(trees, behind) && (alone || tree::width(list) <= ATTRIBUTE) {
            self.flat(trees);
            return;
        }
        self.flat(head);
        self.put("(");
        if let [only] = entries.as_slice()
            && only
                .body
                .last()
                .is_some_and(|last| last.inside(Parenthesis).is_some())
        {
            self.attribute(only.body, behind + 1);
        } else {
            self.indented(|this| {
                for (at, entry) in entries.iter().enumerate() {
                    if at > 0 {
                        this.put(",");
                    }
                    this.newline();
                    this.attribute(entry.body, 2);
                }
            });
            self.newline();
        }
        self.put(")");
    }

    pub(super) fn inner_attribute(&mut self, trees: &[Tree]) {
        self.put("#![");
        self.attribute(trees, 1);
        self.put("]");
        self.newline();
    }

    // Items.

    /// An item, after a blank line if it is not the first.
    pub(super) fn item(&mut self, trees: &[Tree]) {
        if !self.out.is_empty() {
            self.newline();
        }
        let entry = entry(trees);
        self.outer(entry.outer);
        self.item_body(entry.body);
        self.newline();
    }

    fn item_body(&mut self, trees: &[Tree]) {
        let kind = trees
            .iter()
            .find(|tree| {
                [
                    "fn", "struct", "enum", "impl", "trait", "const", "static", "mod", "use", "type",
                ]
                .iter()
                .any(|word| tree.is(word))
            })
            .and_then(|tree| match &tree.kind {
                Kind::Text(text) => Some(text.as_str()),
                _ => None,
            });
        let block = trees
            .split_last()
            .and_then(|(last, head)| last.inside(Brace).map(|inside| (head, inside)));
        match (kind, block) {
            (Some("fn"), _) | (Some("const"), Some(_)) => self.function(trees),
            (Some("struct" | "enum"), Some((head, fields))) => {
                self.flat(head);
                self.put(" ");
                self.fields(fields);
            }
            (Some("impl" | "trait" | "mod"), Some((head, items))) => {
                let long = !self.fits(head, if items.is_empty() { 3 } else { 2 });
                match head.iter().position(|tree| tree.is(":") || tree.is("where")) {
                    Some(at) if long => {
                        self.bounds(head, at);
                        if items.is_empty() {
                            self.put("{");
                            self.newline();
                            self.put("}");
                            return;
                        }
                    }
                    _ => {
                        self.flat(head);
                        self.put(" ");
                    }
                }
                self.items(items);
            }
            (Some("use"), _) => self.import(trees),
            _ => self.statement(trees),
        }
    }

    /// A head whose bounds, or whose one `where`, do not fit on its line; the brace then has its own.
    fn bounds(&mut self, head: &[Tree], at: usize) {
        let (subject, bounds) = head.split_at((at + 1).min(head.len()));
        self.flat(subject);
        self.indent += 4;
        self.newline();
        if subject.last().is_some_and(|last| last.is("where")) {
            if self.indent + tree::width(bounds) <= LINE {
                self.flat(bounds);
            } else {
                self.added(bounds);
            }
        } else if self.indent + tree::width(bounds) <= LINE {
            self.flat(bounds);
        } else {
            for (number, bound) in bounds.split(|tree| tree.is("+")).enumerate() {
                if number > 0 {
                    self.newline();
                    self.put("+ ");
                }
                self.flat(bound);
            }
        }
        self.indent -= 4;
        self.newline();
    }

    /// `H: A + B`, from the second bound on each on a line of its own.
    fn added(&mut self, bounds: &[Tree]) {
        for (number, bound) in bounds.split(|tree| tree.is("+")).enumerate() {
            if number > 0 {
                self.indented(|this| {
                    this.newline();
                    this.put("+ ");
                    this.flat(bound);
                });
            } else {
                self.flat(bound);
            }
        }
    }

    /// `use a::{b, c};`, with as many names on a line as fit.
    fn import(&mut self, trees: &[Tree]) {
        let group = trees.iter().position(|tree| tree.inside(Brace).is_some());
        let names = group
            .and_then(|at| trees.get(at))
            .and_then(|tree| tree.inside(Brace));
        let (Some(at), Some(names)) = (group, names) else {
            self.flat(trees);
            return;
        };
        self.flat(trees.get(..at).unwrap_or_default());
        if self.column() + tree::width(names) + 3 <= LINE - SLACK {
            self.put("{");
            self.flat(names);
            self.put("};");
        } else {
            self.put("{");
            self.indented(|this| this.filled(names, LINE - 1));
            self.put("};");
        }
    }

    /// Elements, as many on a line as fit, each line indented; lines of imports are one byte shorter.
    fn filled(&mut self, list: &[Tree], line: usize) {
        self.newline();
        for entry in entries(list) {
            let width = tree::width(entry.body) + 1;
            if self.out.len() > self.line {
                if self.column() + 1 + width <= line {
                    self.put(" ");
                } else {
                    self.newline();
                }
            }
            self.flat(entry.body);
            self.put(",");
        }
        self.indent -= 4;
        self.newline();
        self.put("");
        self.indent += 4;
    }

    /// The items of an `impl` or a trait.
    fn items(&mut self, mut trees: &[Tree]) {
        if trees.is_empty() {
            self.put("{}");
            return;
        }
        self.put("{");
        self.indented(|this| {
            let mut first = true;
            while !trees.is_empty() {
                let start = entry(trees);
                let until_semicolon = ["const", "static", "type", "use"]
                    .iter()
                    .any(|word| start.body.iter().take(2).any(|tree| tree.is(word)));
                let end = start
                    .body
                    .iter()
                    .position(|tree| tree.is(";") || (!until_semicolon && tree.inside(Brace).is_some()))
                    .map_or(start.body.len(), |at| at + 1);
                let (item, rest) = start.body.split_at(end);
                this.newline();
                if !first {
                    this.newline();
                }
                first = false;
                this.outer(start.outer);
                this.item_body(item);
                trees = rest;
            }
        });
        self.newline();
        self.put("}");
    }

    /// The fields of a struct or the variants of an enumeration.
    fn fields(&mut self, trees: &[Tree]) {
        if trees.is_empty() {
            self.put("{}");
            return;
        }
        self.put("{");
        self.indented(|this| {
            for entry in entries(trees) {
                this.newline();
                // The comma behind a field counts for what stands before it, that behind a variant does not.
                let is_field = entry.body.iter().any(|tree| tree.is(":"));
                this.outer_before(entry.outer, usize::from(is_field));
                match entry.body.split_last() {
                    Some((last, head)) if last.tall && last.inside(Brace).is_some() => {
                        this.flat(head);
                        this.put(" ");
                        this.fields(last.inside(Brace).unwrap_or_default());
                    }
                    _ => this.flat(entry.body),
                }
                this.put(",");
            }
        });
        self.newline();
        self.put("}");
    }

    /// A function with its body, or without one in a trait.
    fn function(&mut self, trees: &[Tree]) {
        let (head, body) = match trees.split_last() {
            Some((last, head)) => match last.inside(Brace) {
                Some(body) => (head, Some(body)),
                None => (trees, None),
            },
            None => return,
        };
        let (head, end) = match head.split_last() {
            Some((last, head)) if last.is(";") => (head, ";"),
            _ => (head, ""),
        };
        let parameters = head.iter().position(|tree| tree.inside(Parenthesis).is_some());
        let parameters = parameters.and_then(|at| Some((at, head.get(at)?.inside(Parenthesis)?)));
        match parameters.filter(|_| !self.fits(head, 2)) {
            Some((at, _)) if body.is_none() && self.fits(head, 1) => {
                self.flat(head.get(..=at).unwrap_or_default());
                self.newline();
                self.flat(head.get(at + 1..).unwrap_or_default());
            }
            Some((at, list)) => {
                self.flat(head.get(..at).unwrap_or_default());
                self.tall_list(list, "(", ")");
                self.put(" ");
                self.returned(head.get(at + 1..).unwrap_or_default(), end.len());
            }
            None => self.flat(head),
        }
        self.put(end);
        if let Some(body) = body {
            self.put(" ");
            self.block(body);
        }
    }

    /// What a function returns, with so many bytes behind it: a last bound goes to a line of its own, and if that
    /// does not help the parameters of the type do.
    fn returned(&mut self, trees: &[Tree], behind: usize) {
        let bound = trees.iter().position(|tree| tree.is("+"));
        let (ty, bound) = trees.split_at(bound.unwrap_or(trees.len()));
        // rustfmt measures the type alone, from the indentation on: `) -> ` does not count.
        let fits = |trees: &[Tree], behind: usize| {
            self.indent + tree::width(trees.get(1..).unwrap_or_default()) + behind <= LINE
        };
        if fits(trees, behind) {
            self.flat(trees);
        } else if fits(ty, 0) {
            self.flat(ty);
            self.newline();
            self.flat(bound);
        } else {
            self.parameters(ty);
            if !bound.is_empty() {
                self.put(" ");
                self.flat(bound);
            }
        }
    }

    /// A type with its parameters on lines of their own, and theirs, as far as they do not fit.
    fn parameters(&mut self, ty: &[Tree]) {
        let (open, close) = (
            ty.iter().position(|tree| tree.is("<")),
            ty.iter().rposition(|tree| tree.is(">")),
        );
        let (Some(open), Some(close)) = (open, close) else {
            self.flat(ty);
            return;
        };
        self.flat(ty.get(..=open).unwrap_or_default());
        self.indented(|this| {
            for entry in entries(ty.get(open + 1..close).unwrap_or_default()) {
                this.newline();
                if this.fits(entry.body, 1) {
                    this.flat(entry.body);
                } else {
                    this.parameters(entry.body);
                }
                this.put(",");
            }
        });
        self.newline();
        self.flat(ty.get(close..).unwrap_or_default());
    }

    // Statements and expressions.

    fn block(&mut self, mut trees: &[Tree]) {
        if trees.is_empty() {
            self.put("{}");
            return;
        }
        self.put("{");
        self.indented(|this| {
            while !trees.is_empty() {
                let start = entry(trees);
                let (statement, rest) = split_statement(start.body);
                this.newline();
                this.outer(start.outer);
                this.statement(statement);
                trees = rest;
            }
        });
        self.newline();
        self.put("}");
    }

    /// A statement with its semicolon, if it has one.
    fn statement(&mut self, trees: &[Tree]) {
        let (body, end) = match trees.split_last() {
            Some((last, body)) if last.is(";") => (body, ";"),
            _ => (trees, ""),
        };
        match body.iter().position(|tree| tree.is("=")) {
            Some(at)
                if !body
                    .first()
                    .is_some_and(|first| first.is("if") || first.is("match")) =>
            {
                let (left, right) = body.split_at(at + 1);
                self.flat(left);
                let one_line = stays_flat(right) && !tree::tall(right);
                let below = self.indent + 4 + tree::width(right) + end.len() <= LINE;
                if one_line && below && !self.fits(right, end.len() + 1) {
                    self.indented(|this| {
                        this.newline();
                        this.flat(right);
                    });
                } else {
                    self.put(" ");
                    self.expression(right, end.len());
                }
            }
            _ => self.expression(body, end.len()),
        }
        self.put(end);
    }

    /// An expression, with so many bytes behind it on its last line.
    fn expression(&mut self, trees: &[Tree], behind: usize) {
        if self.fits(trees, behind) && stays_flat(trees) {
            self.flat(trees);
        } else {
            self.broken(trees, behind);
        }
    }

    /// An expression on more than one line.
    fn broken(&mut self, trees: &[Tree], behind: usize) {
        let Some((last, head)) = trees.split_last() else {
            return;
        };
        let begins = |word: &str| trees.first().is_some_and(|first| first.is(word));
        if begins("match") && last.inside(Brace).is_some() {
            self.flat(head);
            self.put(" ");
            self.arms(last.inside(Brace).unwrap_or_default());
        } else if begins("if") {
            self.condition(trees);
        } else if let Some(calls) = chain(trees) {
            self.chain(trees, &calls, behind);
        } else if let Some(arguments) = last.inside(Parenthesis).filter(|_| !head.is_empty()) {
            self.flat(head);
            if head.last().is_some_and(|tree| tree.is("!")) {
                self.macro_arguments(arguments);
            } else {
                self.arguments(arguments, behind);
            }
        } else if let Some(elements) = last.inside(Bracket) {
            self.flat(head);
            if last.space {
                self.put(" ");
            }
            self.array(elements);
        } else if let Some(fields) = last.inside(Brace) {
            self.flat(head);
            if last.space && !head.is_empty() {
                self.put(" ");
            }
            if head.is_empty() || head.iter().all(|tree| tree.is("async") || tree.is("move")) {
                self.block(fields);
            } else {
                self.tall_list(fields, "{", "}");
            }
        } else if last.is("?") {
            self.expression(head, behind + 1);
            self.put("?");
        } else {
            self.flat(trees);
        }
    }

    /// `if .. { .. } else { .. }`
    fn condition(&mut self, trees: &[Tree]) {
        let mut rest = trees;
        while let Some(at) = rest.iter().position(|tree| tree.inside(Brace).is_some()) {
            let (head, tail) = rest.split_at(at);
            self.flat(head);
            self.put(" ");
            if let Some((body, tail)) = tail.split_first() {
                self.block(body.inside(Brace).unwrap_or_default());
                rest = tail;
            }
            if !rest.is_empty() {
                self.put(" ");
            }
        }
        self.flat(rest);
    }

    /// The arguments of a call, which do not all fit on the line.
    fn arguments(&mut self, arguments: &[Tree], behind: usize) {
        let list = entries(arguments);
        if let [only] = list.as_slice()
            && only.is_plain()
            && overflows(only.body)
        {
            self.put("(");
            if only
                .body
                .last()
                .is_some_and(|last| last.inside(Bracket).is_some())
            {
                self.expression(only.body, behind + 1);
            } else {
                self.broken(only.body, behind + 1);
            }
            self.put(")");
            return;
        }
        self.tall_list(arguments, "(", ")");
    }

    /// The arguments of a macro, which gets no token that it was not given: no comma at the end, and one line
    /// for what is no list of expressions. A struct literal is broken as anywhere; our macros take its last comma.
    fn macro_arguments(&mut self, arguments: &[Tree]) {
        let list = entries(arguments);
        if let [only] = list.as_slice()
            && let [_, fields] = only.body
            && let Some(fields) = fields.inside(Brace)
        {
            self.put("(");
            self.flat(only.body.get(..1).unwrap_or_default());
            self.put(" ");
            self.tall_list(fields, "{", "}");
            self.put(")");
            return;
        }
        let is_expression = |entry: &Entry<'_>| match entry.body {
            [_] => true,
            [_, group] => group.inside(Parenthesis).is_some(),
            _ => false,
        };
        self.put("(");
        if list.iter().all(is_expression) {
            self.indented(|this| {
                for (at, entry) in list.iter().enumerate() {
                    if at > 0 {
                        this.put(",");
                    }
                    this.newline();
                    this.flat(entry.body);
                }
            });
            self.newline();
        } else {
            self.flat(arguments);
        }
        self.put(")");
    }

    /// A list with each element on lines of its own.
    fn tall_list(&mut self, list: &[Tree], open: &str, close: &str) {
        self.put(open);
        self.indented(|this| {
            for entry in entries(list) {
                this.newline();
                this.outer(entry.outer);
                match entry.body.iter().position(|tree| tree.is(":")) {
                    Some(at) if at < 3 => {
                        let (name, value) = entry.body.split_at(at + 1);
                        this.flat(name);
                        this.put(" ");
                        this.expression(value, 1 + SLACK);
                    }
                    _ => this.expression(entry.body, 1),
                }
                this.put(",");
            }
        });
        self.newline();
        self.put(close);
    }

    /// The elements of an array, which do not all stay on the line.
    fn array(&mut self, elements: &[Tree]) {
        let list = entries(elements);
        if let [only] = list.as_slice()
            && only.is_plain()
            && only.body.iter().any(|tree| tree.inside(Parenthesis).is_some())
        {
            self.put("[");
            if chain(only.body).is_some() {
                self.expression(only.body, 1);
            } else {
                self.broken(only.body, 1);
            }
            self.put("]");
            return;
        }
        let short = |entry: &Entry<'_>| {
            let simple = matches!(entry.body, [one] if matches!(one.kind, Kind::Text(_)));
            entry.is_plain() && simple && tree::width(entry.body) <= SHORT
        };
        if list.iter().all(short) {
            self.put("[");
            self.indented(|this| this.filled(elements, LINE));
            self.put("]");
        } else {
            self.tall_list(elements, "[", "]");
        }
    }

    /// The arms of a `match`.
    fn arms(&mut self, trees: &[Tree]) {
        if trees.is_empty() {
            self.put("{}");
            return;
        }
        self.put("{");
        self.indented(|this| {
            let mut rest = trees;
            while !rest.is_empty() {
                let start = entry(rest);
                let Some(arrow) = start.body.iter().position(|tree| tree.is("=>")) else {
                    this.flat(start.body);
                    break;
                };
                let (pattern, body) = start.body.split_at(arrow + 1);
                // An arm ends at a comma, or behind a block.
                let block = body.first().is_some_and(|tree| tree.inside(Brace).is_some());
                let end = if block {
                    1
                } else {
                    body.iter().position(|tree| tree.is(",")).unwrap_or(body.len())
                };
                let (value, after) = body.split_at(end);
                rest = match after.split_first() {
                    Some((comma, after)) if comma.is(",") => after,
                    _ => after,
                };
                this.newline();
                this.outer(start.outer);
                this.flat(pattern);
                this.put(" ");
                this.arm(value, block);
            }
        });
        self.newline();
        self.put("}");
    }

    fn arm(&mut self, value: &[Tree], block: bool) {
        if block {
            self.block(
                value
                    .first()
                    .and_then(|tree| tree.inside(Brace))
                    .unwrap_or_default(),
            );
            return;
        }
        if self.fits(value, 1) && stays_flat(value) {
            self.flat(value);
            self.put(",");
        } else if self.indent + 4 + tree::width(value) <= LINE && !tree::tall(value) && stays_flat(value) {
            self.put("{");
            self.indented(|this| {
                this.newline();
                this.flat(value);
            });
            self.newline();
            self.put("}");
        } else if !value.first().is_some_and(|first| first.is("if"))
            && self.column() + first_line(value) <= LINE - SLACK
        {
            self.expression(value, 1);
            self.put(",");
        } else {
            self.put("{");
            self.indented(|this| {
                this.newline();
                this.expression(value, 0);
            });
            self.newline();
            self.put("}");
        }
    }

    /// A chain of calls, each on a line of its own unless there is only one.
    fn chain(&mut self, trees: &[Tree], calls: &[usize], behind: usize) {
        let Some((first, rest)) = calls.split_first() else {
            return;
        };
        let (root, _) = trees.split_at(*first);
        let block = !(self.fits(root, 0) && stays_flat(root));
        self.expression(root, 0);
        let mut starts = vec![*first];
        starts.extend(rest);
        let ends = rest.iter().copied().chain([trees.len()]);
        let spans: Vec<(usize, usize)> = starts.iter().copied().zip(ends).collect();
        if let [(from, to)] = spans.as_slice() {
            let call = trees.get(*from..*to).unwrap_or_default();
            // A line of its own helps only if the call then is on that one line.
            let alone = self.indent + 4 + tree::width(call) + behind <= LINE;
            if !block && (tree::tall(call) || !alone || !stays_flat(call)) {
                self.last_call(call, behind);
                return;
            }
        }
        // Behind a root of several lines the calls stand below its last one.
        self.indent += if block { 0 } else { 4 };
        for (from, to) in spans {
            self.newline();
            self.last_call(trees.get(from..to).unwrap_or_default(), behind);
        }
        self.indent -= if block { 0 } else { 4 };
    }

    /// `.name(arguments)?`
    fn last_call(&mut self, call: &[Tree], behind: usize) {
        let group = call.iter().position(|tree| tree.inside(Parenthesis).is_some());
        match group.filter(|_| !(self.fits(call, behind) && stays_flat(call))) {
            Some(at) => {
                self.flat(call.get(..at).unwrap_or_default());
                let arguments = call.get(at).and_then(|tree| tree.inside(Parenthesis));
                self.arguments(arguments.unwrap_or_default(), behind);
                self.flat(call.get(at + 1..).unwrap_or_default());
            }
            None => self.flat(call),
        }
    }
}

fn delimiters(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Parenthesis => ("(", ")"),
        Brace => ("{", "}"),
        Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Parts documentation and attributes from what they belong to.
fn entry(trees: &[Tree]) -> Entry<'_> {
    let mut at = 0;
    loop {
        at += match trees.get(at) {
            Some(tree) if matches!(tree.kind, Kind::Doc(_)) => 1,
            Some(tree) if tree.is("#") => 2,
            _ => break,
        };
    }
    let (outer, body) = trees.split_at(at.min(trees.len()));
    Entry { outer, body }
}

/// `name = value`
fn is_assignment(trees: &[Tree]) -> bool {
    matches!(trees, [_, operator, ..] if operator.is("="))
}

/// The elements of a list.
fn entries(list: &[Tree]) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut from = 0;
    for (at, tree) in list.iter().enumerate() {
        // Commas between `<` and `>` part types.
        if tree.is("<") {
            depth += 1;
        } else if tree.is(">") {
            depth = depth.saturating_sub(1);
        } else if tree.is(",") && depth == 0 {
            found.push(entry(list.get(from..at).unwrap_or_default()));
            from = at + 1;
        }
    }
    let rest = list.get(from..).unwrap_or_default();
    if !rest.is_empty() {
        found.push(entry(rest));
    }
    found
}

/// The first statement of a block, and what follows.
fn split_statement(trees: &[Tree]) -> (&[Tree], &[Tree]) {
    let block_like = trees
        .first()
        .is_some_and(|first| first.is("match") || first.is("if"));
    let mut end = trees.len();
    for (at, tree) in trees.iter().enumerate() {
        let next = trees.get(at + 1);
        let closed = block_like && tree.inside(Brace).is_some() && !next.is_some_and(|next| next.is("else"));
        if tree.is(";") || closed {
            end = at + 1;
            break;
        }
    }
    trees.split_at(end)
}

/// Where the calls of a chain begin: `a.b(..).c(..)?` has two.
fn chain(trees: &[Tree]) -> Option<Vec<usize>> {
    let found: Vec<usize> = (0..trees.len())
        .filter(|&at| {
            let call = |tree: &Tree| tree.inside(Parenthesis).is_some();
            trees.get(at).is_some_and(|tree| tree.is("."))
                && (trees.get(at + 2).is_some_and(call)
                    || trees.get(at + 1).is_some_and(|tree| tree.is("await")))
        })
        .collect();
    (!found.is_empty()).then_some(found)
}

/// How wide the first line is of an expression that has several.
fn first_line(trees: &[Tree]) -> usize {
    match trees.split_last() {
        Some((last, head)) => {
            let inside = [Parenthesis, Bracket]
                .iter()
                .find_map(|delimiter| last.inside(*delimiter));
            let hugged = inside.map(entries).and_then(|list| match list.as_slice() {
                [only] if only.is_plain() && overflows(only.body) => Some(first_line(only.body)),
                _ => None,
            });
            tree::width(head) + usize::from(last.space) + 1 + hugged.unwrap_or_default()
        }
        None => 0,
    }
}

/// Whether an expression that fits on the line stays there: lists beyond a width do not.
fn stays_flat(trees: &[Tree]) -> bool {
    if chain(trees).is_some_and(|calls| calls.len() > 1) && tree::width(trees) > LIST {
        return false;
    }
    let if_else = trees.first().is_some_and(|first| first.is("if")) && tree::width(trees) > IF_ELSE;
    !if_else
        && trees.iter().enumerate().all(|(at, tree)| {
            let before = at.checked_sub(1).and_then(|at| trees.get(at));
            match &tree.kind {
                Kind::Group(Parenthesis, inside) => {
                    (tree::width(inside) <= LIST || before.is_none()) && inner_stays_flat(inside)
                }
                Kind::Group(Bracket, inside) => tree::width(inside) <= LIST && inner_stays_flat(inside),
                Kind::Group(Brace, inside) => {
                    if_else || before.is_none() || inside.is_empty() || tree::width(inside) <= STRUCT
                }
                _ => true,
            }
        })
}

fn inner_stays_flat(inside: &[Tree]) -> bool {
    entries(inside).iter().all(|entry| stays_flat(entry.body))
}

/// Whether the only argument of a call may begin on the line of the call.
fn overflows(trees: &[Tree]) -> bool {
    let Some((last, head)) = trees.split_last() else {
        return false;
    };
    let call = last.inside(Parenthesis).is_some() && !head.is_empty() && chain(trees).is_none();
    call || last.inside(Brace).is_some() || last.inside(Bracket).is_some()
}
