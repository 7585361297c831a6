//! Source texts and places in them.
//!
//! A [`SourceMap`] holds every file that a compilation may look at. It never opens a file: the thin
//! reader in [`crate::fs`] fills it, or a test does with texts of its own.

use std::cell::{Cell, OnceCell};

use crate::lookup::Map;

/// Which file of a [`SourceMap`] a place belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub(crate) u32);

impl FileId {
    /// The position of the file in its map, counted from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A range of bytes in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// A span of `file` from `start` up to `end`.
    pub fn new(file: FileId, start: u32, end: u32) -> Span {
        Span {
            file,
            start,
            end: end.max(start),
        }
    }

    /// The empty span at this span's start.
    pub fn at_start(self) -> Span {
        Span {
            end: self.start,
            ..self
        }
    }

    /// From the start of `self` to the end of `other`, which must lie in the same file.
    pub fn to(self, other: Span) -> Span {
        Span {
            end: other.end.max(self.end),
            ..self
        }
    }
}

/// A line and a column as people count them: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Why a file has no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadProblem {
    /// The operating system refused; its words.
    Io(String),
    /// The file is longer than [`crate::limits::MAX_FILE_BYTES`].
    TooLong,
}

/// One file.
#[derive(Debug)]
pub struct Source {
    name: String,
    key: String,
    text: Result<Box<str>, ReadProblem>,
    /// Where the first byte that is not UTF-8 stands, if there is one. The text then has U+FFFD in its place.
    not_utf8: Option<u32>,
}

impl Source {
    /// The name to print: as given for the root, and for an included file the including file's
    /// folder joined with the path in the directive.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The normalised path that identifies the file.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The text; empty when the file could not be read.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("")
    }

    /// What went wrong when the file was read.
    pub fn problem(&self) -> Option<&ReadProblem> {
        self.text.as_ref().err()
    }

    /// Offset of the first byte that is not UTF-8.
    pub fn not_utf8(&self) -> Option<u32> {
        self.not_utf8
    }
}

/// Every file of one compilation. The first that was added is the root.
#[derive(Debug, Default)]
pub struct SourceMap {
    files: Vec<Source>,
    by_key: Map<String, FileId>,
}

impl SourceMap {
    /// An empty map.
    pub fn new() -> SourceMap {
        SourceMap::default()
    }

    /// A map with one file, for tests and for tools that have a text and no file.
    pub fn single(name: &str, text: impl Into<String>) -> SourceMap {
        let mut sources = SourceMap::new();
        sources.add(name, text);
        sources
    }

    /// Adds a file by its text. A name that is there already keeps its first text.
    pub fn add(&mut self, name: &str, text: impl Into<String>) -> FileId {
        self.insert(name, normalize(name), Ok(text.into().into_bytes()))
    }

    /// Adds a file as it was read, under the `key` that identifies it.
    pub fn insert(&mut self, name: &str, key: String, bytes: Result<Vec<u8>, ReadProblem>) -> FileId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let mut not_utf8 = None;
        let text = match bytes {
            Err(problem) => Err(problem),
            Ok(bytes) if bytes.len() as u64 > crate::limits::MAX_FILE_BYTES => Err(ReadProblem::TooLong),
            Ok(bytes) => Ok(match String::from_utf8(bytes) {
                Ok(text) => text.into_boxed_str(),
                Err(error) => {
                    not_utf8 = u32::try_from(error.utf8_error().valid_up_to()).ok();
                    String::from_utf8_lossy(error.as_bytes())
                        .into_owned()
                        .into_boxed_str()
                }
            }),
        };
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        self.files.push(Source {
            name: name.to_owned(),
            key: key.clone(),
            text,
            not_utf8,
        });
        self.by_key.insert(key, id);
        id
    }

    /// The file that compilation starts with.
    pub fn root(&self) -> Option<FileId> {
        (!self.files.is_empty()).then_some(FileId(0))
    }

    /// All files, in the order in which they were added.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &Source)> {
        (0u32..).map(FileId).zip(self.files.iter())
    }

    /// One file. An id of another map gives the nearest thing there is: the last file.
    pub fn get(&self, id: FileId) -> Option<&Source> {
        self.files.get(id.index())
    }

    /// The file with this key.
    pub fn find(&self, key: &str) -> Option<FileId> {
        self.by_key.get(key).copied()
    }

    /// The name that is printed for a file.
    pub fn name(&self, id: FileId) -> &str {
        self.get(id).map_or("", Source::name)
    }

    /// The text of a file.
    pub fn text(&self, id: FileId) -> &str {
        self.get(id).map_or("", Source::text)
    }

    /// The text under a span.
    pub fn snippet(&self, span: Span) -> &str {
        self.text(span.file)
            .get(span.start as usize..span.end as usize)
            .unwrap_or("")
    }

    /// Line and column of a span's start.
    pub fn line_column(&self, span: Span) -> LineColumn {
        line_column(self.text(span.file), span.start)
    }

    /// `name:line:column` of a span's start.
    pub fn location(&self, span: Span) -> String {
        let at = self.line_column(span);
        format!("{}:{}:{}", self.name(span.file), at.line, at.column)
    }
}

/// Where the lines of files start, for many questions about places. A file is looked through when it is
/// asked about first.
#[derive(Debug)]
pub struct LineIndex<'a> {
    sources: &'a SourceMap,
    starts: Vec<OnceCell<Vec<u32>>>,
    /// The line of the last answer: questions mostly come in the order of the text.
    last: Cell<usize>,
}

impl<'a> LineIndex<'a> {
    /// Answers questions about all files of a map.
    pub fn of(sources: &'a SourceMap) -> LineIndex<'a> {
        LineIndex {
            sources,
            starts: vec![OnceCell::new(); sources.files.len()],
            last: Cell::new(0),
        }
    }

    /// Line and column of a span's start.
    pub fn at(&self, span: Span) -> LineColumn {
        let Some(starts) = self.starts.get(span.file.index()) else {
            return LineColumn { line: 1, column: 1 };
        };
        let text = self.sources.text(span.file);
        let starts = starts.get_or_init(|| line_starts(text));
        let line = self.line(starts, span.start);
        self.last.set(line);
        let start = starts.get(line).copied().unwrap_or(0);
        let before = text.get(start as usize..span.start as usize).unwrap_or("");
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        LineColumn {
            line: count(line).saturating_add(1),
            column: count(before.chars().count()).saturating_add(1),
        }
    }

    /// The line that holds an offset, counted from 0.
    fn line(&self, starts: &[u32], offset: u32) -> usize {
        const NEAR: usize = 8;
        let from = self.last.get();
        let near = starts.get(from..).unwrap_or(&[]);
        if near.first().is_some_and(|start| *start <= offset)
            && let Some(lines) = near.iter().take(NEAR).position(|start| *start > offset)
        {
            return from + lines - 1;
        }
        starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }
}

/// Where the lines of a text start. A carriage return ends a line, and one with a line feed ends it once.
fn line_starts(text: &str) -> Vec<u32> {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let bytes = text.as_bytes();
    let mut starts = Vec::with_capacity(bytes.len() / 24 + 1);
    starts.push(0);
    if memchr::memchr(b'\r', bytes).is_none() {
        starts.extend(memchr::memchr_iter(b'\n', bytes).map(|at| offset(at + 1)));
        return starts;
    }
    for at in memchr::memchr2_iter(b'\n', b'\r', bytes) {
        let ended_already = bytes.get(at) == Some(&b'\n') && at > 0 && bytes.get(at - 1) == Some(&b'\r');
        match starts.last_mut() {
            Some(last) if ended_already => *last = offset(at + 1),
            _ => starts.push(offset(at + 1)),
        }
    }
    starts
}

/// Line and column of a byte offset. A line ends with `\n`, `\r` or both.
pub fn line_column(text: &str, offset: u32) -> LineColumn {
    let mut end = text.len().min(offset as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or("");
    let line_start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ends = before
        .bytes()
        .filter(|byte| *byte == b'\n' || *byte == b'\r')
        .count();
    LineColumn {
        line: count(ends - before.matches("\r\n").count()).saturating_add(1),
        column: count(before.get(line_start..).unwrap_or("").chars().count()).saturating_add(1),
    }
}

/// A path without `.`, `..` and doubled slashes, decided by its text alone: what a link points to
/// does not count, so that "the same file" means the same on every machine.
pub fn normalize(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The path of an included file: the including file's folder, then what the directive says.
pub fn join(including: &str, included: &str) -> String {
    match including.rfind('/') {
        _ if included.starts_with('/') => included.to_owned(),
        Some(slash) => format!("{}{included}", including.get(..=slash).unwrap_or("")),
        None => included.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_newlines() {
        let text = "ab\n\u{e9}\u{e9}x\r\n";
        assert_eq!(line_column(text, 0), LineColumn { line: 1, column: 1 });
        assert_eq!(line_column(text, 7), LineColumn { line: 2, column: 3 });
        assert_eq!(line_column(text, 9999), LineColumn { line: 3, column: 1 });
        let sources = SourceMap::single("a", "ab\n\u{e9}\u{e9}x\r\nend\rlast");
        let index = LineIndex::of(&sources);
        for offset in [0, 1, 2, 3, 5, 7, 8, 10, 12, 14, 17] {
            let span = Span::new(FileId(0), offset, offset);
            assert_eq!(index.at(span), sources.line_column(span), "{offset}");
        }
    }

    #[test]
    fn paths_are_normalised_by_their_text() {
        assert_eq!(normalize("/a/./b//../c"), "/a/c");
        assert_eq!(normalize("../x/../y"), "../y");
        assert_eq!(normalize("/../y"), "/y");
        assert_eq!(join("qapi/root.json", "../qga/a.json"), "qapi/../qga/a.json");
        assert_eq!(join("root.json", "a.json"), "a.json");
        assert_eq!(join("dir/root.json", "/abs.json"), "/abs.json");
    }
}
