//! Files to modules: follows includes, applies pragmas, pairs documentation with definitions.
//!
//! A file counts once, however often and by whatever path it is included. Pragmas hold for the whole
//! schema, also for what stands before them.

use std::borrow::Cow;

use crate::ast::{Expression, Item, Object, Value, ValueKind};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{self, Comment};
use crate::ir::ModuleId;
use crate::limits::{MAX_FILES, MAX_INCLUDE_DEPTH};
use crate::lookup::{Map, Set};
use crate::parse::parse;
use crate::source::{FileId, ReadProblem, SourceMap, Span, join, normalize};

use super::suggest;

/// Everything that the files hold, in the order in which definitions take effect.
#[derive(Debug, Default)]
pub(crate) struct Gathered<'a> {
    /// The modules; the root first.
    pub modules: Vec<RawModule<'a>>,
    /// The definitions of all modules.
    pub definitions: Vec<RawExpression<'a>>,
    /// The pragmas.
    pub pragma: Pragma<'a>,
    /// Names of definitions that were lost to syntax errors.
    pub lost_names: Set<Cow<'a, str>>,
    /// How many definitions were lost without their names.
    pub nameless: usize,
    /// A file could not be read, so that any name may be missing.
    pub incomplete: bool,
}

/// A file.
#[derive(Debug)]
pub(crate) struct RawModule<'a> {
    /// Its path from the root's folder.
    pub name: String,
    /// The file.
    pub file: FileId,
    /// Modules that it includes.
    pub includes: Vec<ModuleId>,
    /// Free-form documentation.
    pub free_docs: Vec<Comment<'a>>,
    /// The places of the include directives that lead here from the root: they say where its mistakes
    /// stand among the others.
    pub route: Vec<u32>,
}

/// A definition that nobody has looked into.
#[derive(Debug)]
pub(crate) struct RawExpression<'a> {
    /// Its members.
    pub object: Object<'a>,
    /// From brace to brace.
    pub span: Span,
    /// Something in it was wrong.
    pub damaged: bool,
    /// Its module.
    pub module: ModuleId,
    /// Its documentation.
    pub doc: Option<Comment<'a>>,
}

/// What pragmas say.
#[derive(Debug, Default)]
pub(crate) struct Pragma<'a> {
    /// Some directive could not be read in full, or a file is missing: any exception may have been made.
    pub unsure: bool,
    /// Every definition must be documented.
    pub doc_required: bool,
    /// Commands that may have `_` in their name.
    pub command_names: Set<Cow<'a, str>>,
    /// Commands that may return anything.
    pub command_returns: Set<Cow<'a, str>>,
    /// Definitions whose members need no documentation.
    pub documentation: Set<Cow<'a, str>>,
    /// Types whose members may have upper case and `_` in their names.
    pub member_names: Set<Cow<'a, str>>,
}

impl Pragma<'_> {
    /// Whether everything must be documented.
    pub fn asks_for_docs(&self) -> bool {
        self.doc_required && !self.unsure
    }

    /// Whether a command may have `_` in its name.
    pub fn excuses_command_name(&self, name: &str) -> bool {
        self.unsure || self.command_names.contains(name)
    }

    /// Whether a command may return anything.
    pub fn excuses_returns(&self, name: &str) -> bool {
        self.unsure || self.command_returns.contains(name)
    }

    /// Whether the members of a definition need no documentation.
    pub fn excuses_documentation(&self, name: &str) -> bool {
        self.unsure || self.documentation.contains(name)
    }

    /// Whether the members of a type may have upper case and `_` in their names.
    pub fn excuses_member_names(&self, name: &str) -> bool {
        self.unsure || self.member_names.contains(name)
    }
}

const PRAGMAS: [&str; 5] = [
    "doc-required",
    "command-name-exceptions",
    "command-returns-exceptions",
    "documentation-exceptions",
    "member-name-exceptions",
];

/// Reads the root and everything that it includes.
pub(crate) fn gather<'a>(sources: &'a SourceMap, diagnostics: &mut Vec<Diagnostic>) -> Gathered<'a> {
    let mut gatherer = Gatherer {
        sources,
        diagnostics,
        out: Gathered::default(),
        done: Map::default(),
        open: Vec::new(),
        root_folder: String::new(),
    };
    if let Some(root) = sources.root() {
        let key = sources.get(root).map_or("", |source| source.key());
        gatherer.root_folder = key
            .rfind('/')
            .map_or(String::new(), |at| key.get(..=at).unwrap_or("").to_owned());
        gatherer.module(root, None);
    }
    gatherer.out.pragma.unsure |= gatherer.out.incomplete;
    gatherer.out
}

struct Gatherer<'a, 'd> {
    sources: &'a SourceMap,
    diagnostics: &'d mut Vec<Diagnostic>,
    out: Gathered<'a>,
    done: Map<FileId, ModuleId>,
    /// The files that are being read, each with the directive that led to it.
    open: Vec<(FileId, Option<Span>)>,
    root_folder: String,
}

impl<'a> Gatherer<'a, '_> {
    /// Reads a file that was not read before.
    fn module(&mut self, file: FileId, directive: Option<Span>) -> Option<ModuleId> {
        let source = self.sources.get(file)?;
        let id = ModuleId::from_index(self.out.modules.len());
        let mut route: Vec<u32> = Vec::new();
        if let (Some(directive), Some((parent, _))) = (directive, self.open.last())
            && let Some(parent) = self.done.get(parent)
        {
            route.clone_from(&self.out.modules.get(parent.index())?.route);
            route.push(directive.start);
        }
        self.out.modules.push(RawModule {
            name: relative(source.key(), &self.root_folder),
            file,
            includes: Vec::new(),
            free_docs: Vec::new(),
            route,
        });
        self.done.insert(file, id);
        if let Some(at) = source.not_utf8() {
            self.out.incomplete = true;
            self.diagnostics.push(
                Diagnostic::error(
                    codes::NOT_UTF8,
                    Span::new(file, at, at + 3),
                    "the file is not UTF-8",
                )
                .note("the first byte that is not")
                .help("schema files are UTF-8, and all but comments ASCII"),
            );
        }
        if let Some(problem) = source.problem() {
            self.cannot_read(file, directive, problem);
            return Some(id);
        }
        self.open.push((file, directive));
        let parsed = parse(file, source.text(), self.diagnostics);
        self.out.lost_names.extend(parsed.lost_names);
        self.out.nameless += parsed.nameless;
        self.out.pragma.unsure |= parsed.pragma_lost;
        // A comment was broken off, so that a lone `##` further down is what should have closed it.
        let mut broken_off = false;
        let mut pending: Option<Comment<'a>> = None;
        for item in parsed.items {
            match item {
                Item::Lost => {
                    if let Some(comment) = pending.take()
                        && let Some((symbol, _)) = comment.symbol
                    {
                        self.out.lost_names.insert(Cow::Borrowed(symbol));
                    }
                }
                Item::Doc { span, next } => {
                    let text = self.sources.snippet(span);
                    if text.trim_end() == "##" && (broken_off || documents(&pending)) {
                        broken_off = false;
                        pending = self.surplus_mark(span, pending.take());
                        continue;
                    }
                    self.without_definition(id, pending.take());
                    let comment = doc::read(span, text, next, self.diagnostics);
                    broken_off |= !comment.closed;
                    pending = Some(comment);
                }
                Item::Expression(expression) => self.expression(id, expression, &mut pending),
            }
        }
        self.without_definition(id, pending);
        self.open.pop();
        Some(id)
    }

    /// A lone `##` where another comment is at hand already, or was broken off above: no comment of its own.
    /// Gives back the comment for what follows, about which nothing more is to be said.
    fn surplus_mark(&mut self, span: Span, pending: Option<Comment<'a>>) -> Option<Comment<'a>> {
        let Some(comment) = pending else {
            return Some(Comment::nothing(span));
        };
        if let (false, Some((symbol, _))) = (comment.damaged, comment.symbol) {
            self.diagnostics.push(
                Diagnostic::error(
                    codes::DOC_NO_DEFINITION,
                    comment.opening(),
                    format!("documentation for '{symbol}' is not followed by its definition"),
                )
                .also(span, "this opens another comment")
                .help("remove the `##` that is too much"),
            );
        }
        Some(Comment {
            damaged: true,
            ..comment
        })
    }

    fn cannot_read(&mut self, file: FileId, directive: Option<Span>, problem: &ReadProblem) {
        self.out.incomplete = true;
        let span = directive.unwrap_or(Span::new(file, 0, 0));
        let name = self.sources.name(file);
        self.diagnostics.push(match problem {
            ReadProblem::Io(reason) => {
                let message = format!("cannot read '{name}': {reason}");
                let diagnostic = Diagnostic::error(codes::CANNOT_READ, span, message);
                if directive.is_some() {
                    diagnostic.help("the path starts from the folder of the file that includes")
                } else {
                    diagnostic
                }
            }
            ReadProblem::TooLong => Diagnostic::error(
                codes::TOO_LARGE,
                span,
                format!("'{name}' is too large for a schema"),
            ),
        });
    }

    /// What to do with a comment that no definition follows.
    fn without_definition(&mut self, module: ModuleId, comment: Option<Comment<'a>>) {
        let Some(comment) = comment else { return };
        match &comment.symbol {
            Some((symbol, span)) => {
                self.out.lost_names.insert(Cow::Borrowed(symbol));
                if !comment.damaged {
                    self.diagnostics.push(
                        Diagnostic::error(
                            codes::DOC_NO_DEFINITION,
                            comment.opening(),
                            format!("documentation for '{symbol}' is not followed by its definition"),
                        )
                        .also(*span, "what it documents"),
                    );
                }
            }
            None => {
                if let Some(module) = self.out.modules.get_mut(module.index()) {
                    module.free_docs.push(comment);
                }
            }
        }
    }

    fn expression(
        &mut self,
        module: ModuleId,
        expression: Expression<'a>,
        pending: &mut Option<Comment<'a>>,
    ) {
        let has = |key: &str| expression.object.iter().any(|entry| entry.key == key);
        let directive = has("include") || has("pragma");
        let comment = pending.take();
        if directive {
            self.without_definition(module, comment);
            if has("include") {
                self.include(module, &expression);
            } else {
                self.pragma(expression);
            }
            return;
        }
        let doc = match comment {
            Some(comment) if comment.symbol.is_none() => {
                if !comment.damaged {
                    self.diagnostics.push(
                        Diagnostic::error(
                            codes::DOC_FREE_BEFORE_DEFINITION,
                            comment.opening(),
                            "free-form documentation right before a definition",
                        )
                        .also(
                            Span {
                                end: expression.span.start + 1,
                                ..expression.span
                            },
                            "the definition",
                        )
                        .help("let the first line of the comment name the definition: `# @Name:`"),
                    );
                }
                // Marked damaged, so that nobody asks for documentation a second time.
                Some(Comment {
                    damaged: true,
                    ..comment
                })
            }
            other => other,
        };
        let Expression {
            object,
            span,
            damaged,
        } = expression;
        self.out.definitions.push(RawExpression {
            object,
            span,
            damaged,
            module,
            doc,
        });
    }

    /// Complains of members beside the one that makes a directive.
    fn sole_member<'e>(
        &mut self,
        expression: &'e Expression<'a>,
        key: &str,
        code: codes::Code,
    ) -> Option<&'e Value<'a>> {
        if let Some(other) = expression.object.iter().find(|entry| entry.key != key) {
            // The value is not looked into: that the two were written together shows another misunderstanding.
            self.diagnostics.push(
                Diagnostic::error(
                    code,
                    other.key_span,
                    format!("unexpected key '{}' beside '{key}'", other.key),
                )
                .help(format!("'{key}' must be the only key of its directive")),
            );
            return None;
        }
        expression
            .object
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    fn include(&mut self, module: ModuleId, expression: &Expression<'a>) {
        let Some(value) = self.sole_member(expression, "include", codes::BAD_INCLUDE) else {
            self.out.incomplete = true;
            return;
        };
        let path = match &value.kind {
            ValueKind::Str(path) => path,
            ValueKind::Bad => {
                self.out.incomplete = true;
                return;
            }
            other => {
                self.out.incomplete = true;
                self.diagnostics.push(Diagnostic::error(
                    codes::BAD_INCLUDE,
                    value.span,
                    format!(
                        "the value of 'include' must be a string, not {}",
                        other.describe()
                    ),
                ));
                return;
            }
        };
        let Some((file, _)) = self.open.last().copied() else {
            return;
        };
        let key = normalize(&join(
            self.sources.get(file).map_or("", |source| source.key()),
            path,
        ));
        let Some(included) = self.sources.find(&key) else {
            // The map was filled by somebody who did not follow this directive.
            self.out.incomplete = true;
            self.diagnostics.push(Diagnostic::error(
                codes::CANNOT_READ,
                value.span,
                format!(
                    "cannot read '{}': no such file",
                    join(self.sources.name(file), path)
                ),
            ));
            return;
        };
        if let Some(from) = self.open.iter().position(|(open, _)| *open == included) {
            self.cycle(value.span, path, from);
            return;
        }
        let id = match self.done.get(&included) {
            Some(id) => Some(*id),
            None if self.open.len() > MAX_INCLUDE_DEPTH || self.out.modules.len() >= MAX_FILES => {
                self.out.incomplete = true;
                self.diagnostics.push(Diagnostic::error(
                    codes::TOO_LARGE,
                    value.span,
                    format!(
                        "more than {MAX_FILES} files, or includes more than {MAX_INCLUDE_DEPTH} levels deep"
                    ),
                ));
                None
            }
            None => self.module(included, Some(value.span)),
        };
        if let (Some(id), Some(module)) = (id, self.out.modules.get_mut(module.index()))
            && !module.includes.contains(&id)
        {
            module.includes.push(id);
        }
    }

    fn cycle(&mut self, span: Span, path: &str, from: usize) {
        let mut diagnostic =
            Diagnostic::error(codes::INCLUDE_CYCLE, span, format!("inclusion loop for '{path}'"));
        for (_, directive) in self.open.iter().skip(from + 1) {
            if let Some(directive) = directive {
                diagnostic = diagnostic.also(*directive, "included by way of this");
            }
        }
        self.diagnostics
            .push(diagnostic.help("a file may be included many times, but not by itself"));
    }

    fn pragma(&mut self, mut expression: Expression<'a>) {
        let told = self.diagnostics.len();
        self.pragmas(&mut expression);
        self.out.pragma.unsure |= expression.damaged || self.diagnostics.len() > told;
    }

    fn pragmas(&mut self, expression: &mut Expression<'a>) {
        if self
            .sole_member(expression, "pragma", codes::BAD_PRAGMA)
            .is_none()
        {
            return;
        }
        let Some(at) = expression.object.iter().position(|entry| entry.key == "pragma") else {
            return;
        };
        let value = expression.object.swap_remove(at).value;
        let object = match value.kind {
            ValueKind::Object(object) => object,
            ValueKind::Bad => return,
            other => {
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::BAD_PRAGMA,
                        value.span,
                        format!(
                            "the value of 'pragma' must be an object, not {}",
                            other.describe()
                        ),
                    )
                    .help("`{ 'pragma': { 'doc-required': true } }`, for example"),
                );
                return;
            }
        };
        if expression.damaged {
            // Parts may have slipped to where they do not belong.
            return;
        }
        for entry in object {
            let list = |value: Value<'a>, diagnostics: &mut Vec<Diagnostic>| {
                string_list(value, &entry.key, diagnostics)
            };
            match &*entry.key {
                "doc-required" => match entry.value.kind {
                    ValueKind::Bool(value) => self.out.pragma.doc_required = value,
                    ValueKind::Bad => {}
                    other => self.diagnostics.push(Diagnostic::error(
                        codes::PRAGMA_VALUE,
                        entry.value.span,
                        format!(
                            "pragma 'doc-required' must be a boolean, not {}",
                            other.describe()
                        ),
                    )),
                },
                "command-name-exceptions" => {
                    self.out.pragma.command_names = list(entry.value, self.diagnostics);
                }
                "command-returns-exceptions" => {
                    self.out.pragma.command_returns = list(entry.value, self.diagnostics);
                }
                "documentation-exceptions" => {
                    self.out.pragma.documentation = list(entry.value, self.diagnostics);
                }
                "member-name-exceptions" => {
                    self.out.pragma.member_names = list(entry.value, self.diagnostics);
                }
                unknown => self.diagnostics.push(
                    Diagnostic::error(
                        codes::UNKNOWN_PRAGMA,
                        entry.key_span,
                        format!("unknown pragma '{unknown}'"),
                    )
                    .help(
                        suggest::did_you_mean(unknown, PRAGMAS)
                            .or_else(|| renamed(unknown))
                            .unwrap_or_else(|| format!("the pragmas are {}", suggest::list(PRAGMAS))),
                    ),
                ),
            }
        }
    }
}

/// What a pragma of older schemas is called now.
fn renamed(pragma: &str) -> Option<String> {
    let now = match pragma {
        "returns-whitelist" => "command-returns-exceptions",
        "name-case-whitelist" => "member-name-exceptions",
        _ => return None,
    };
    Some(format!("it is called '{now}' now"))
}

/// Whether a comment documents a definition.
fn documents(comment: &Option<Comment<'_>>) -> bool {
    comment.as_ref().is_some_and(|comment| comment.symbol.is_some())
}

fn string_list<'a>(value: Value<'a>, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Set<Cow<'a, str>> {
    let mut wrong = |span: Span, what: &str| {
        diagnostics.push(Diagnostic::error(
            codes::PRAGMA_VALUE,
            span,
            format!("pragma '{name}' must be a list of strings, {what}"),
        ));
    };
    let mut set = Set::default();
    match value.kind {
        ValueKind::Array(list) => {
            for element in list {
                match element.kind {
                    ValueKind::Str(name) => {
                        set.insert(name);
                    }
                    ValueKind::Bad => {}
                    other => wrong(element.span, &format!("and this is {}", other.describe())),
                }
            }
        }
        ValueKind::Bad => {}
        other => wrong(value.span, &format!("not {}", other.describe())),
    }
    set
}

/// A normalised path as seen from a folder, which is either empty or ends with a slash.
fn relative(path: &str, folder: &str) -> String {
    let mut common = 0;
    for (at, _) in folder.match_indices('/') {
        match (folder.get(..=at), path.get(..=at)) {
            (Some(a), Some(b)) if a == b => common = at + 1,
            _ => break,
        }
    }
    let up = folder.get(common..).unwrap_or("").matches('/').count();
    format!("{}{}", "../".repeat(up), path.get(common..).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn module_names_start_from_the_root() {
        assert_eq!(relative("/a/b/c.json", "/a/b/"), "c.json");
        assert_eq!(relative("/a/q/c.json", "/a/b/d/"), "../../q/c.json");
        assert_eq!(relative("/a/b/sub/c.json", "/a/b/"), "sub/c.json");
        assert_eq!(relative("c.json", ""), "c.json");
    }
}
