//! Documentation comments: from lines of `# text` to sections, and from their text to Markdown.
//!
//! Whether what a comment describes exists is not known here; the checks compare.

mod comment;
mod line;
pub mod markdown;
pub mod rst;

pub(crate) use comment::{Comment, RawKind, RawSection, read};
pub(crate) use line::fits;
