//! The thin reader: from the name of a schema file to a filled [`SourceMap`].
//!
//! It looks for include directives by their text alone and reads what they name, without parsing anything.
//! It may so read a file that no directive includes (one that is named in a comment, say); which files
//! belong to the schema is decided by [`crate::compile`], which also tells what could not be read.

use std::io::Read;
use std::path::Path;

use crate::limits::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES};
use crate::source::{ReadProblem, SourceMap, join, normalize};

/// Reads a schema file and everything that it may include.
pub fn load(path: &Path) -> SourceMap {
    let mut sources = SourceMap::new();
    let folder = std::env::current_dir().unwrap_or_default();
    let name = path.to_string_lossy().into_owned();
    let mut open = vec![name];
    let mut total: u64 = 0;
    let mut at = 0;
    while let Some(name) = open.get(at).cloned() {
        at += 1;
        let key = normalize(&folder.join(&name).to_string_lossy());
        if sources.find(&key).is_some() {
            continue;
        }
        let bytes = if total > MAX_TOTAL_BYTES || at > MAX_FILES {
            Err(ReadProblem::TooLong)
        } else {
            read(Path::new(&name))
        };
        total = total.saturating_add(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        let id = sources.insert(&name, key, bytes);
        for included in includes(sources.text(id)) {
            open.push(join(&name, &included));
        }
    }
    sources
}

fn read(path: &Path) -> Result<Vec<u8>, ReadProblem> {
    let refused = |error: std::io::Error| ReadProblem::Io(reason(&error));
    let file = std::fs::File::open(path).map_err(refused)?;
    // What a file says of its length saves asking the system for piece after piece; it is not believed.
    let length = file
        .metadata()
        .map_or(0, |metadata| metadata.len())
        .min(MAX_FILE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    // One byte more than allowed tells a long file from one that just fits; a device has no length to ask for.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refused)?;
    Ok(bytes)
}

/// The system's words without Rust's number behind them.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// What comes after each `'include':`, if it is a string.
fn includes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("'include'") {
        rest = rest.get(at + "'include'".len()..).unwrap_or("");
        let Some(value) = skip(rest).strip_prefix(':') else {
            continue;
        };
        let Some(value) = skip(value).strip_prefix('\'') else {
            continue;
        };
        if let Some((path, _)) = value.split_once('\'')
            && !path.contains(['\n', '\r'])
        {
            found.push(path.replace("\\\\", "\\"));
        }
    }
    found
}

/// Skips blanks and comments.
fn skip(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest
            .find(['\n', '\r'])
            .and_then(|end| rest.get(end..))
            .unwrap_or("")
            .trim_start();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::includes;

    #[test]
    fn directives_are_found_by_their_text() {
        let text =
            "{ 'include': 'a.json' }\n{ 'include' # why\n : # not\n 'b/c.json' }\n{'include': []}\n'include'";
        assert_eq!(includes(text), ["a.json", "b/c.json"]);
    }
}
