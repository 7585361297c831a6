//! Corpus, end-to-end, crash and differential tests of the whole workspace.
